"""Where a damaged batch ends is told by what follows it, not by its own header: no good record is given up, or skipped."""

import struct

import pytest

from adledger.pipeline.errors import UnreadableBatch
from adledger.pipeline.log.kafka.batches import decode_batches
from adledger.pipeline.log.kafka.fetch_requests import FetchById
from tests.support.crafted import record, wrapped
from tests.support.kafka_answers import METADATA, Broker, Pauses, fetched, offsets, read

FALSE_LAST = 5_000


def batch(offset: int, records: int = 4) -> bytes:
    """Return an undamaged batch; no checksum covers its offset."""
    whole = wrapped(b"".join(record(i, b"k", b"v") for i in range(records)), records, 0)
    return struct.pack(">q", offset) + whole[8:]


def damaged(offset: int, last_delta: int = FALSE_LAST) -> bytes:
    """Return a batch with any last offset delta, whose checksum does not match."""
    whole = batch(offset)
    return whole[:23] + struct.pack(">i", last_delta) + whole[27:-1] + b"?"


def next_offset(data: bytes, position: int) -> int:
    return decode_batches(data, position, (), "record", "t-0").next_offset


def refused(data: bytes, position: int) -> UnreadableBatch:
    with pytest.raises(UnreadableBatch) as error:
        next_offset(data, position)
    assert error.value.start == position
    return error.value


@pytest.mark.parametrize("last_delta", [0, 2, 3, 4, FALSE_LAST, -1, 2**31 - 1])
def test_a_damaged_batch_ends_where_the_next_whole_one_begins(last_delta: int) -> None:
    """Whatever its header says; a damaged batch after it is a part of the damage."""
    found = refused(damaged(100, last_delta) + batch(104), 100)
    assert (found.end, found.end_guessed) == (104, False)
    found = refused(damaged(100, last_delta) + damaged(104) + batch(108), 100)
    assert (found.end, found.end_guessed) == (108, False)


@pytest.mark.parametrize(
    "rest", [b"", batch(104)[:-1], damaged(104), b"\0" * 100], ids=["none", "cut", "damaged", "zeros"]
)
def test_an_end_that_no_whole_batch_shows_is_a_guess(rest: bytes) -> None:
    """Of the header, or the next offset."""
    found = refused(damaged(100) + rest, 100)
    assert (found.end, found.end_guessed) == (100 + FALSE_LAST + 1, True)
    assert refused(damaged(100, -7) + rest, 100).end == 101


def test_what_follows_a_damaged_batch_is_read_from_its_first_offset() -> None:
    """A broker returns the damaged batch for each offset that its header claims: it is skipped where it ends before."""
    assert next_offset(damaged(100) + batch(104) + batch(108), 104) == 112
    assert next_offset(damaged(100) + batch(104), 106) == 108


@pytest.mark.parametrize(
    ("first", "second", "end"),
    [(228, 104, 104), (100, 50, 108), (100, 103, 103), (100, 100, 108)],
    ids=["the first is too high", "the second is too low", "they overlap", "they are at the same"],
)
def test_batches_that_share_offsets_are_damaged(first: int, second: int, end: int) -> None:
    """Read in sequence, a lane would miss what has the false offset, or place records where none are."""
    data = batch(first) + batch(second) + batch(108)
    found = refused(data, 100)
    assert "one of the two offsets is damaged" in found.message
    assert (found.end, found.end_guessed) == (end, False)
    assert next_offset(batch(96) + data, 96) == 100, "what is before them is read"
    assert refused((batch(first) + batch(second))[:-1], 100).end_guessed, (
        "a second one that is cut off says it too"
    )


@pytest.mark.parametrize("rest", [b"\0" * 100, damaged(50), batch(50)[:40]], ids=["zeros", "damaged", "cut"])
def test_a_batch_is_read_whatever_damage_follows(rest: bytes) -> None:
    """What has no header or checksum of its own contradicts nobody."""
    assert next_offset(batch(100) + rest, 100) == 104


class Limited(Broker):
    """A partition of `batches`, of which a fetch gets the first from its position as their headers say, and `more` if it asks for much."""

    def __init__(self, batches: list[bytes], end: int) -> None:
        super().__init__([], [])
        self.batches, self.end, self.limits = batches, end, list[int]()

    async def send(self, node: int, request: object, *, group: object = 0) -> object:
        if not isinstance(request, FetchById):
            topics = getattr(request, "topics", None) or getattr(request, "_topics", ())
            return METADATA if isinstance(topics, tuple) else offsets((0, self.end))
        [position] = request._positions.values()
        self.limits.append(request._bytes_max)
        at = next(
            (i for i, one in enumerate(self.batches) if last(one) >= position.offset), len(self.batches)
        )
        found = self.batches[at:] if request._bytes_max > 1 << 20 else self.batches[at : at + 1]
        return fetched(b"".join(found), end=self.end)


def last(one: bytes) -> int:
    """Return the last offset of a batch, as its header says."""
    return int.from_bytes(one[:8], "big") + int.from_bytes(one[23:27], "big", signed=True)


async def test_what_follows_is_fetched_where_an_answer_lacks_it() -> None:
    """The lane is told where the next whole batch begins, and from there it reads all that follows."""
    broker = Limited([damaged(0), batch(4), batch(8)], 12)
    with pytest.raises(UnreadableBatch) as found:
        await read(broker, Pauses(), 0)
    assert (found.value.start, found.value.end) == (0, 4)
    assert await read(broker, Pauses(), 4) == 12


async def test_the_log_is_searched_where_nothing_whole_follows() -> None:
    """An end that only the damaged header says is not believed: the broker is asked from which offset on it has whole batches."""
    broken = batch(4)[:8] + struct.pack(">i", 1 << 30) + batch(4)[12:]  # no length leads beyond it
    broker = Limited([damaged(0, 1), broken, batch(8), batch(12)], 16)
    with pytest.raises(UnreadableBatch) as found:
        await read(broker, Pauses(), 0)
    assert (found.value.start, found.value.end) == (0, 8)
