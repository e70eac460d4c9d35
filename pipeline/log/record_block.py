"""Records to be written to a log: a block of columns, and the v2 record batches encoded from it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

import numpy as np
import numpy.typing as npt

from adledger.pipeline.kernels.encode import NULL, RECORD_OVERHEAD_MAX, encode_records
from adledger.pipeline.records.batch_format import HEADER_BYTES
from adledger.pipeline.records.record_batch import write_header

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]

BATCH_BYTES_MAX = 256 * 1024
"""A batch is closed before a record that would exceed this; a batch with a single record may exceed it."""
BATCH_RECORDS_MAX = 4_000

Record = tuple[int, bytes | None, bytes | None]
"""Log time (ms), key, value."""


@dataclass(frozen=True, slots=True)
class RecordBlock:
    """n records as columns: all values' bytes in one buffer, all keys' in another, each row's end, its log time.

    `value_ends[i]` and `key_ends[i]` are where row i's bytes end and the next row's begin, or NULL (-1) for a null: the next
    row's bytes then begin where those of the last row that has any end.
    """

    values: U8
    value_ends: I64
    keys: U8
    key_ends: I64
    log_times: I64  # ms since the epoch

    def __len__(self) -> int:
        return len(self.log_times)

    @classmethod
    def of(cls, records: Iterable[Record]) -> Self:
        """Return a block of (log time, key, value) records."""
        times, keys, values = [], [], []
        for time, key, value in records:
            times.append(time)
            keys.append(key)
            values.append(value)
        return cls(*_joined(values), *_joined(keys), np.array(times, np.int64))


@dataclass(frozen=True, slots=True)
class WrittenBatch:
    """One encoded batch: `data` (u8, header and records) is valid until the next batch is yielded."""

    data: U8
    base_offset: int
    next_offset: int
    max_timestamp: int


def encode_batches(
    block: RecordBlock,
    base_offset: int,
    *,
    bytes_max: int = BATCH_BYTES_MAX,
    records_max: int = BATCH_RECORDS_MAX,
) -> Iterator[WrittenBatch]:
    """Yield the block's records, in order, as v2 batches with create times, uncompressed."""
    n = len(block)
    if n == 0:
        return
    largest = _largest(block.values, block.value_ends) + _largest(block.keys, block.key_ends)
    out = np.empty(HEADER_BYTES + max(bytes_max, largest + RECORD_OVERHEAD_MAX), np.uint8)
    row = value_at = key_at = 0
    while row < n:
        first = row
        row, value_at, key_at, size, max_time = encode_records(
            block.values, block.value_ends, block.keys, block.key_ends, block.log_times,
            row, value_at, key_at, bytes_max, records_max, out,
        )  # fmt: skip
        write_header(
            out,
            size,
            base_offset=base_offset + first,
            last_offset_delta=row - first - 1,
            base_timestamp=int(block.log_times[first]),
            max_timestamp=max_time,
            count=row - first,
        )
        yield WrittenBatch(out[:size], base_offset + first, base_offset + row, max_time)


def _joined(texts: list[bytes | None]) -> tuple[U8, I64]:
    ends = np.fromiter(accumulate(len(t or b"") for t in texts), np.int64, len(texts))
    ends[np.array([t is None for t in texts], np.bool_)] = NULL
    return np.frombuffer(b"".join(t or b"" for t in texts), np.uint8), ends


def _largest(data: U8, ends: I64) -> int:
    """Return an upper bound of a row's size in bytes: ends never decrease, so a row is no longer than its step."""
    steps = np.diff(ends[ends != NULL], prepend=0)
    return int(min(steps.max(initial=0), len(data)))
