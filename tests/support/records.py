"""Records for tests of the log: how to make them, and how to read them back out of memory."""

import ctypes

from hypothesis import strategies as st

from adledger.pipeline.log.record_block import Record
from adledger.pipeline.records.columns import RecordRefs

Stored = tuple[int, int, bytes | None, bytes | None]
"""Offset, log time, key, value."""

TIMES = st.integers(-(2**40), 2**42)
BYTES = st.none() | st.binary(max_size=300)
RECORDS = st.lists(st.tuples(TIMES, BYTES, BYTES), min_size=1, max_size=60)


def read_back(refs: RecordRefs) -> list[Stored]:
    """Return the records that the references point at."""
    return [
        (int(offset), int(time), _bytes(key, key_len), _bytes(value, value_len))
        for offset, time, key, key_len, value, value_len in zip(
            refs.offset,
            refs.log_time,
            refs.key_addr,
            refs.key_len,
            refs.value_addr,
            refs.value_len,
            strict=True,
        )
    ]


def stored(records: list[Record], first_offset: int = 0) -> list[Stored]:
    """Return what the log should return for records that were appended at an offset."""
    return [(first_offset + i, *record) for i, record in enumerate(records)]


def _bytes(address: int, length: int) -> bytes | None:
    return None if length < 0 else ctypes.string_at(int(address), int(length))
