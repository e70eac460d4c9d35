"""A fetch that was cut short brings more with a larger limit; one that brings nothing ends after some tries."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.log.kafka.batches import decode_batches
from adledger.pipeline.log.kafka.fetch_requests import FetchedPartition
from adledger.pipeline.log.kafka.progress import (
    LIMIT_BYTES_MAX,
    LINEAR_PROBES,
    TRIES_MAX,
    brings_nothing,
    fetch_alone,
    nothing_brought,
    reaches,
    readable_from,
)
from adledger.pipeline.retry import RetryPolicy
from tests.support.crafted import record, sealed, wrapped

AT_ONCE = RetryPolicy(attempts_max=None, backoff_ms_max=1, backoff_ms_min=0)
BATCH = wrapped(record(0, b"k", b"v" * 5_000), 1, 0)


def answer(data: bytes, end: int = 9) -> FetchedPartition:
    return FetchedPartition("id", 0, end, (), data)


def at(data: bytes, offset: int) -> bytes:
    """Return a batch at another offset; no checksum covers it."""
    return struct.pack(">q", offset) + data[8:]


def with_length(data: bytes, length: int) -> bytes:
    return data[:8] + struct.pack(">i", length) + data[12:]


class Broker:
    """A partition's bytes, of which each answer has as many as the limit allows."""

    def __init__(self, data: bytes, has_bytes: int | None = None) -> None:
        self.data, self.limits = data[:has_bytes], list[int]()

    async def ask(self, bytes_max: int) -> FetchedPartition:
        self.limits.append(bytes_max)
        return answer(self.data[:bytes_max])


@given(st.integers(len(BATCH) // 100, len(BATCH)))
async def test_a_batch_larger_than_the_limit_comes_with_a_larger_one(limit: int) -> None:
    """Whatever the first limit, also one that cuts off the batch's length."""
    broker = Broker(BATCH)
    found = await fetch_alone(broker.ask, 0, limit, AT_ONCE)
    assert (found.data[: len(BATCH)], decode_batches(found.data, 0, (), "record", "t-0").next_offset) == (
        BATCH,
        1,
    )
    assert broker.limits == sorted(broker.limits)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "goes up to offset 9, and the broker returns no record batch"),
        (BATCH[:7], "goes up to offset 9, and the broker returns no record batch"),
        (BATCH[:-1], f"says that it has {len(BATCH)} bytes, and the broker returns {len(BATCH) - 1}"),
        (with_length(BATCH, 2**31 - 1), f"says that it has {2**31 + 11} bytes"),
        (with_length(BATCH, -1), f"says that it has {2**32 + 11} bytes"),
        (at(BATCH, 0), "returns no record batch that reaches offset 3"),
    ],
    ids=[
        "nothing",
        "no length",
        "its end is missing",
        "a false length",
        "a negative length",
        "an earlier batch",
    ],
)
async def test_an_answer_that_never_brings_anything_is_returned(data: bytes, what: str) -> None:
    """After a bounded number of tries with bounded limits, and it says what is wrong."""
    broker = Broker(data)
    found = await fetch_alone(broker.ask, 3, 1_000, AT_ONCE)
    assert brings_nothing(found, 3)
    assert len(broker.limits) == TRIES_MAX
    assert max(broker.limits) <= LIMIT_BYTES_MAX
    assert what in nothing_brought(found, 3)


@given(st.binary(max_size=80), st.integers(0, 5), st.booleans())
def test_what_reaches_beyond_a_position_is_progress_or_an_error(
    noise: bytes, position: int, whole: bool
) -> None:
    """Decoding goes beyond the position exactly where the headers say so, or reports damage: it never does nothing."""
    data = (at(BATCH, 2) if whole else b"") + noise
    try:
        found = decode_batches(data, position, (), "record", "t-0")
    except Exception:  # noqa: BLE001 - any is a report
        return
    assert (found.next_offset > position) == reaches(data, position)


def test_a_position_at_the_end_needs_nothing() -> None:
    """There an empty answer, or half a batch that is not stable yet, is no fault."""
    assert not brings_nothing(answer(b"", end=3), 3)
    assert not brings_nothing(answer(BATCH[:50], end=3), 3)
    assert not brings_nothing(answer(sealed(bytearray(at(BATCH, 3)))), 3)


@given(st.integers(0, 50), st.integers(1, 200), st.integers(1, 200))
async def test_the_next_readable_offset_is_found(start: int, unreadable: int, more: int) -> None:
    """It is the first that can be read, or the end; in about twice the logarithm of the distance beyond the first ones."""
    end, asked = start + max(unreadable, more), list[int]()

    async def holds(offset: int) -> bool:
        assert start < offset < end
        asked.append(offset)
        return offset >= start + unreadable

    assert await readable_from(holds, start, end) == min(start + unreadable, end)
    assert len(asked) <= LINEAR_PROBES + 2 * (end - start).bit_length()


@given(
    st.integers(0, 50),
    st.frozensets(st.integers(1, LINEAR_PROBES), min_size=1),
    st.integers(LINEAR_PROBES, 500),
)
async def test_no_readable_offset_nearby_is_given_up(start: int, islands: frozenset[int], whole: int) -> None:
    """Among the next offsets it is the first that can be read, however few can, and wherever the log is whole again."""

    async def holds(offset: int) -> bool:
        return offset - start in islands or offset >= start + whole

    assert await readable_from(holds, start, start + 1_000) == start + min(islands)
