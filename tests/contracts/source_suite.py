"""The laws of `Source`, for every implementation: subclass `SourceLaws` and define a `log` fixture.

Each test has its own log, with TOPICS topics of PARTITIONS partitions and a group without members.
"""

import asyncio
from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
import pytest

from adledger.pipeline.errors import CommitFenced, LogError, OffsetOutOfRange
from adledger.pipeline.log.record_block import Record
from adledger.pipeline.log.source import Assignment, Committed, OffsetBounds, Source
from adledger.pipeline.records.encoded import READ_AHEAD_BYTES, Fetched
from adledger.pipeline.stages.walk import walk
from tests.support.records import Stored, read_back, stored

TOPICS = 2
PARTITIONS = 4
START = 1_767_225_600_000  # 2026-01-01T00:00:00Z
BYTES_MAX = 1 << 20
WAIT_MS = 5_000
"""How long a fetch may wait for records that are there or are about to be."""
PATIENCE_SECONDS = 60.0

ODD_RECORDS: list[Record] = [
    (START, b"key", b"value"),
    (START, None, b"no key"),
    (START - 5_000, b"its time is before the first one's", b""),
    (START + 1, b"", b"an empty key is not a null key"),
    (START + 2, b"tombstone", None),
    (START + 3, None, None),
    (START + 4, "\N{SNOWMAN}".encode(), bytes(range(256))),
    (START + 5, b"k" * 300, b"v" * 20_000),
]


class Log(Protocol):
    """What the suite needs besides sources: a log to fill, and members of its one group."""

    keeps_record_times: bool
    """Whether a record's log time is the one it is appended with (the broker may set its own)."""

    async def append(self, topic: int, partition: int, records: Sequence[Record]) -> None:
        """Append records as at least one batch of their own; they can be fetched when this returns."""

    def member(self) -> Source:
        """Return a source that has not joined the group."""


class Listener:
    """Records its calls."""

    def __init__(self) -> None:
        self.assigned: dict[int, Assignment] = {}
        self.revoked: list[int] = []
        self.complete = asyncio.Event()

    async def lanes_assigned(self, assignments: Collection[Assignment]) -> None:
        self.assigned |= {a.lane: a for a in assignments}
        if len(self.assigned) == PARTITIONS:
            self.complete.set()

    async def lanes_revoked(self, lanes: Collection[int]) -> None:
        self.revoked += lanes
        for lane in lanes:
            self.assigned.pop(lane, None)
        self.complete.clear()


async def joined(source: Source) -> Listener:
    """Join and wait for every lane."""
    listener = Listener()
    await source.join(listener)
    await has_all(listener)
    return listener


async def has_all(listener: Listener) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        await listener.complete.wait()


def some_records(count: int, first: int = 0) -> list[Record]:
    return [(START + i, b"user-%d" % (i % 7), b'{"n":%d}' % i) for i in range(first, first + count)]


async def fetch_one(
    source: Source, position: int, *, bytes_max: int = BYTES_MAX, wait_ms: int = WAIT_MS
) -> Fetched:
    """Fetch once from lane 1, topic 0."""
    [fetched] = await source.fetch(1, {0: position}, bytes_max, wait_ms)
    return fetched


async def fetch_all(source: Source, position: int = 0, *, bytes_max: int = BYTES_MAX) -> list[Stored]:
    """Fetch from lane 1, topic 0, until it is drained, and check each step."""
    records: list[Stored] = []
    while True:
        fetched = await fetch_one(source, position, bytes_max=bytes_max)
        assert (fetched.topic, fetched.position) == (0, position)
        assert fetched.next_offset > position, "a fetch brings something where there is something"
        for batch in fetched.batches:
            assert len(batch.buffer) >= batch.start + batch.size + READ_AHEAD_BYTES
            assert batch.buffer.dtype == np.uint8
        records += read_back(walk(fetched))
        position = fetched.next_offset
        if fetched.drained:
            return records


class SourceLaws:
    """What a lane relies on."""

    # reading

    async def test_appended_records_are_fetched(self, log: Log):
        """Records come back in order, once, byte for byte, null distinct from empty, with offset and log time."""
        await log.append(0, 1, ODD_RECORDS)
        await log.append(0, 1, some_records(500))
        source = log.member()
        await joined(source)
        expected = stored(ODD_RECORDS + some_records(500))
        found = await fetch_all(source)
        assert [(o, k, v) for o, _, k, v in found] == [(o, k, v) for o, _, k, v in expected]
        if log.keeps_record_times:
            assert found == expected
        assert await fetch_all(source) == found, "and again the same"
        await source.leave()

    async def test_a_fetch_may_begin_anywhere(self, log: Log):
        """From every offset, also in the middle of a batch, a fetch begins with exactly that record."""
        await log.append(0, 1, some_records(20))
        await log.append(0, 1, some_records(20, 20))
        source = log.member()
        await joined(source)
        expected = [(o, k, v) for o, _, k, v in stored(some_records(40))]
        for position in range(40):
            found = [(o, k, v) for o, _, k, v in await fetch_all(source, position)]
            assert found == expected[position:]
        await source.leave()

    async def test_a_small_limit_still_makes_progress(self, log: Log):
        """A fetch of few bytes returns at least one batch, however large, and little more."""
        large: Record = (START, b"k", b"v" * 200_000)
        for _ in range(4):
            await log.append(0, 1, [large])
        source = log.member()
        await joined(source)
        assert len(await fetch_all(source, bytes_max=1)) == 4
        first = await fetch_one(source, 0, bytes_max=250_000)
        assert 1 <= len(walk(first)) <= 2
        await source.leave()

    async def test_topics_are_fetched_together(self, log: Log):
        """Each requested topic gets one `Fetched` from its own position, even without records."""
        await log.append(0, 1, some_records(10))
        await log.append(1, 1, some_records(5))
        source = log.member()
        await joined(source)
        found = {f.topic: f for f in await source.fetch(1, {0: 10, 1: 2}, BYTES_MAX, WAIT_MS)}
        assert set(found) == {0, 1}
        assert [r[0] for r in read_back(walk(found[1]))] == [2, 3, 4]
        assert len(walk(found[0])) == 0
        assert found[0].next_offset == 10
        assert found[0].drained
        await source.leave()

    async def test_lanes_are_separate(self, log: Log):
        """A record is in the lane of its partition and in no other."""
        await log.append(0, 1, some_records(3))
        source = log.member()
        await joined(source)
        for lane in (0, 2, 3):
            [fetched] = await source.fetch(lane, {0: 0}, BYTES_MAX, 0)
            assert (len(walk(fetched)), fetched.next_offset, fetched.end_offset) == (0, 0, 0)
        await source.leave()

    async def test_an_end_is_drained_until_it_moves(self, log: Log):
        """At the end a fetch returns nothing and is drained; the next fetch returns what is appended after it."""
        await log.append(0, 1, some_records(3))
        source = log.member()
        await joined(source)
        fetched = await fetch_one(source, 3, wait_ms=0)
        assert (fetched.next_offset, fetched.end_offset, fetched.drained) == (3, 3, True)
        waiting = asyncio.create_task(fetch_one(source, 3, wait_ms=int(PATIENCE_SECONDS * 1000)))
        await log.append(0, 1, some_records(2, 3))
        assert [r[0] for r in read_back(walk(await waiting))] == [3, 4]
        await source.leave()

    async def test_after_the_end_is_out_of_range(self, log: Log):
        """A position that the log does not hold is an error, never a silent jump."""
        await log.append(0, 1, some_records(3))
        source = log.member()
        await joined(source)
        with pytest.raises(OffsetOutOfRange):
            await fetch_one(source, 4, wait_ms=0)
        await source.leave()

    async def test_bounds_are_the_first_and_the_end(self, log: Log):
        """Bounds have every topic's first offset and the one after its last."""
        await log.append(1, 1, some_records(6))
        source = log.member()
        await joined(source)
        assert await source.bounds(1) == {0: OffsetBounds(0, 0), 1: OffsetBounds(0, 6)}
        await source.leave()

    # membership

    async def test_a_lone_member_has_every_lane(self, log: Log):
        """Every lane is assigned once, in one generation of one member."""
        source = log.member()
        listener = Listener()
        topology = await source.join(listener)
        await has_all(listener)
        assert (len(topology.topics), topology.partitions) == (TOPICS, PARTITIONS)
        assert len(set(topology.topic_ids)) == TOPICS
        assert set(listener.assigned) == set(range(PARTITIONS))
        assert len({(a.generation, a.member_id) for a in listener.assigned.values()}) == 1
        await source.leave()

    async def test_leaving_revokes(self, log: Log):
        """A member that leaves has all its lanes revoked."""
        source = log.member()
        listener = await joined(source)
        await source.leave()
        assert sorted(listener.revoked) == list(range(PARTITIONS))

    async def test_joining_again_is_a_new_member(self, log: Log):
        """After a rejoin the lanes are back, in a later generation, under another member id."""
        source = log.member()
        listener = await joined(source)
        before = listener.assigned[1]
        await source.rejoin()
        await has_all(listener)
        assert sorted(listener.revoked) == list(range(PARTITIONS))
        assert listener.assigned[1].member_id != before.member_id
        assert listener.assigned[1].generation > before.generation
        await source.leave()

    async def test_generations_count_on(self, log: Log):
        """The next member of the group has a later generation than any before it."""
        generations = []
        for _ in range(3):
            source = log.member()
            generations.append((await joined(source)).assigned[0].generation)
            await source.leave()
        assert generations == sorted(set(generations))

    # commits

    async def test_a_new_group_has_committed_nothing(self, log: Log):
        """Without a commit there is no position, not a position of zero."""
        source = log.member()
        await joined(source)
        assert await source.committed(1) == {}
        await source.leave()

    async def test_what_was_committed_is_there_for_the_next_member(self, log: Log):
        """Offset and metadata of each topic read back as committed, for their lane."""
        await log.append(0, 1, some_records(9))
        await log.append(1, 1, some_records(5))
        first = {0: Committed(0, ""), 1: Committed(5, "text")}
        second = {
            0: Committed(7, "\N{SNOWMAN}" * 1_365 + "x"),
            1: Committed(5, '{"a": "\\n\n"}'),
        }  # 4,096 bytes
        source = log.member()
        listener = await joined(source)
        for positions in (first, second):
            await source.commit(listener.assigned[1], positions)
            assert await source.committed(1) == positions
        assert await source.committed(0) == {}
        await source.leave()
        successor = log.member()
        await joined(successor)
        assert await successor.committed(1) == second
        await successor.leave()

    async def test_topics_may_be_committed_one_by_one(self, log: Log):
        """A commit does not change topics that it does not name."""
        await log.append(1, 1, some_records(5))
        source = log.member()
        listener = await joined(source)
        await source.commit(listener.assigned[1], {0: Committed(0, "a")})
        await source.commit(listener.assigned[1], {1: Committed(3, "b")})
        assert await source.committed(1) == {0: Committed(0, "a"), 1: Committed(3, "b")}
        await source.leave()

    async def test_metadata_is_bounded(self, log: Log):
        """Metadata over 4,096 bytes is refused, and nothing of that commit is kept."""
        source = log.member()
        listener = await joined(source)
        with pytest.raises(LogError):
            await source.commit(listener.assigned[1], {0: Committed(0, "x" * 4_097), 1: Committed(0, "")})
        assert await source.committed(1) == {}
        await source.leave()

    async def test_an_old_generation_is_fenced(self, log: Log):
        """A commit in an earlier assignment's generation is refused and changes nothing."""
        source = log.member()
        listener = await joined(source)
        stale = listener.assigned[1]
        await source.commit(stale, {0: Committed(0, "old")})
        await source.rejoin()
        await has_all(listener)
        with pytest.raises(CommitFenced):
            await source.commit(stale, {0: Committed(0, "zombie")})
        assert await source.committed(1) == {0: Committed(0, "old")}
        await source.commit(listener.assigned[1], {0: Committed(0, "new")})
        assert await source.committed(1) == {0: Committed(0, "new")}
        await source.leave()

    async def test_a_stranger_is_fenced(self, log: Log):
        """The current generation under another member id is refused too."""
        source = log.member()
        listener = await joined(source)
        mine = listener.assigned[1]
        with pytest.raises(CommitFenced):
            await source.commit(Assignment(1, mine.generation, mine.member_id + "x"), {0: Committed(0, "")})
        assert await source.committed(1) == {}
        await source.leave()

    async def test_a_member_that_left_is_fenced(self, log: Log):
        """After leaving, nothing can be committed."""
        source = log.member()
        listener = await joined(source)
        mine = listener.assigned[1]
        await source.leave()
        with pytest.raises(CommitFenced):
            await source.commit(mine, {0: Committed(0, "")})

    async def test_a_lane_that_does_not_exist_is_an_error(self, log: Log):
        """Each method refuses a lane beyond the last."""
        source = log.member()
        listener = await joined(source)
        some = listener.assigned[1]
        with pytest.raises(LogError):
            await source.fetch(PARTITIONS, {0: 0}, BYTES_MAX, 0)
        with pytest.raises(LogError):
            await source.bounds(PARTITIONS)
        with pytest.raises(LogError):
            await source.committed(PARTITIONS)
        with pytest.raises(LogError):
            await source.commit(
                Assignment(PARTITIONS, some.generation, some.member_id), {0: Committed(0, "")}
            )
        await source.leave()
