"""A lane goes on where ledger, committed intent and log agree; anything else halts it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from adledger.pipeline.errors import LaneHalted
from adledger.pipeline.lanes.buffer import BatchLimits
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.ports import LaneLimits, Ports
from adledger.pipeline.lanes.recovery import find_start
from adledger.pipeline.lanes.snapshot import FIRST_BATCH, Start
from adledger.pipeline.log.source import Committed, OffsetBounds, Topology
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.memory import MemorySink
from adledger.sinks.overrides import NO_OVERRIDES
from adledger.sinks.sink import LedgerEntry, OffsetRange, Stamp
from tests.contracts import sink_suite

LANE = 3
TOPOLOGY = Topology(("ad.impressions", "ad.clicks"), (1, 2), ("idA", "idB"), 16)
NOW = 1_767_225_600
CLOCK = sink_suite.CLOCK
ENDS = {0: 20, 1: 6}


@dataclass(slots=True)
class FakeLog:
    """What find_start reads of a log: committed offsets and bounds."""

    commits: dict[int, Committed] = field(default_factory=dict)
    log_bounds: dict[int, OffsetBounds] = field(
        default_factory=lambda: {0: OffsetBounds(10, 100), 1: OffsetBounds(5, 50)}
    )

    async def committed(self, lane: int) -> Mapping[int, Committed]:
        assert lane == LANE
        return self.commits

    async def bounds(self, lane: int) -> Mapping[int, OffsetBounds]:
        assert lane == LANE
        return self.log_bounds

    def resume(self, lane: int, positions: Mapping[int, int], leader_epochs: Mapping[int, int]) -> None:
        assert leader_epochs == {}, "entries here have none"


class World:
    """A log and a sink, and what happened to them."""

    def __init__(self) -> None:
        self.log = FakeLog()
        self.sink = MemorySink(clock=lambda: NOW)

    def commit(self, intent: Intent, *topics: int) -> None:
        for r in intent.ranges:
            if r.topic in (topics or (0, 1)):
                self.log.commits[r.topic] = Committed(r.start, intent.text())

    async def ledger(self, entry: LedgerEntry) -> None:
        await self.sink.insert("ledger", ledger_columns(entry), Stamp(LANE, entry.batch_no, NOW))

    async def events(self, batch_no: int) -> None:
        await self.sink.insert("events", sink_suite.events(2), Stamp(LANE, batch_no, NOW))

    async def start(self) -> Start:
        limits = LaneLimits(BatchLimits(9, 9, 9), 9, 9, 9, 9, 9, 9, 9)
        given: dict[str, Any] = dict.fromkeys(Ports.__dataclass_fields__)
        given.update(
            source=self.log, sink=self.sink, topology=TOPOLOGY, limits=limits, overrides=NO_OVERRIDES
        )
        return await find_start(Ports(**given), LANE)

    async def stopped(self, *words: str) -> None:
        """Check that the lane halts, and that the error names the lane and each of `words`, with a remedy."""
        with pytest.raises(LaneHalted) as stopped:
            await self.start()
        assert stopped.value.remedy
        for word in (f"lane {LANE}", *words):
            assert word in stopped.value.message


@pytest.fixture
def world() -> World:
    return World()


def intent(batch_no: int, starts: Mapping[int, int], ends: Mapping[int, int], **changed: Any) -> Intent:
    ranges = tuple(OffsetRange(t, starts[t], ends[t]) for t in starts)
    made = Intent(
        TOPOLOGY.epoch, LANE, batch_no, ranges, CLOCK + 9, 0, 19, CLOCK, CLOCK + 9, 10, 1, 7, NOW + 5
    )
    return replace(made, **changed)


def entry(of: Intent) -> LedgerEntry:
    """Return the ledger entry that completes the intent's batch."""
    return replace(
        sink_suite.entry(LANE, of.batch_no),
        epoch=of.epoch,
        ranges=of.ranges,
        clock_before=of.clock_before,
        clock_after=of.clock_after,
    )


DONE = intent(7, {0: 10, 1: 5}, ENDS)
NEXT = intent(8, ENDS, {0: 30, 1: 6}, clock_before=CLOCK + 9, clock_after=CLOCK + 12)


async def test_a_fresh_lane_begins_where_the_log_does(world):
    """Without ledger and intent it begins at the log's first offsets, with batch 1 and watermark 0."""
    assert await world.start() == Start({0: 10, 1: 5}, FIRST_BATCH, 0, None)


async def test_a_done_batch_is_continued(world):
    """The intent of the ledger's last batch is done: the lane goes on at its ends, with nothing in doubt."""
    world.commit(DONE)
    await world.ledger(entry(DONE))
    assert await world.start() == Start(ENDS, 8, CLOCK + 9, None)


async def test_an_intent_without_its_ledger_row_is_pending(world):
    """The batch after the ledger's last is in doubt, whatever of it is written already."""
    world.commit(NEXT)
    await world.ledger(entry(DONE))
    await world.events(8)
    assert await world.start() == Start(ENDS, 8, CLOCK + 9, NEXT)


async def test_the_first_intent_may_be_pending(world):
    """A lane that died in its first batch finds that batch in doubt."""
    first = replace(DONE, batch_no=FIRST_BATCH, clock_before=0)
    world.commit(first)
    await world.events(FIRST_BATCH)
    assert await world.start() == Start({0: 10, 1: 5}, FIRST_BATCH, 0, first)


@pytest.mark.parametrize("reached", [0, 1])
async def test_the_highest_batch_number_wins(world, reached):
    """A commit that reached only one topic's partition counts, since it may be all that is known of the batch."""
    world.commit(DONE)
    world.commit(NEXT, reached)
    await world.ledger(entry(DONE))
    assert (await world.start()).pending == NEXT


async def test_the_latest_deadline_wins(world):
    """For one batch that was intended twice, the later deadline is waited for."""
    later = NEXT.with_send_by(NEXT.send_by + 60)
    world.commit(later, 0)
    world.commit(NEXT, 1)
    await world.ledger(entry(DONE))
    assert (await world.start()).pending == later


@pytest.mark.parametrize("batch_no", [1, 6, 9])
async def test_a_ledger_and_a_group_of_different_batches(world, batch_no):
    """A group whose intent is neither of the ledger's last batch nor of the next belongs to another database."""
    world.commit(replace(NEXT, batch_no=batch_no))
    await world.ledger(entry(DONE))
    await world.stopped("batch 7", f"batch {batch_no}")


async def test_a_ledger_without_a_group(world):
    """A group that never committed does not match a ledger, and the lane does not begin again."""
    await world.ledger(entry(DONE))
    await world.stopped("batch 7", "none")


async def test_a_group_without_a_ledger(world):
    """A group that had batches does not match an empty database."""
    world.commit(NEXT)
    await world.stopped("batch 0", "batch 8")


async def test_a_done_batch_of_other_ranges(world):
    """Ledger and group with the same batch number and other offsets do not belong together."""
    world.commit(intent(7, {0: 10, 1: 5}, {0: 21, 1: 6}))
    await world.ledger(entry(DONE))
    await world.stopped("batch 7", "10 to 19 of topic 0", "10 to 20 of topic 0")


@pytest.mark.parametrize(
    "altered",
    [
        intent(8, {0: 21, 1: 6}, {0: 30, 1: 6}, clock_before=CLOCK + 9),
        intent(8, {0: 19, 1: 6}, {0: 30, 1: 6}, clock_before=CLOCK + 9),
        replace(NEXT, clock_before=CLOCK + 8),
    ],
    ids=["a gap", "an overlap", "another clock"],
)
async def test_an_intent_that_does_not_begin_at_the_ledgers_end(world, altered):
    """Ranges join without gap or overlap and the watermark goes on; otherwise one of them was altered."""
    world.commit(altered)
    await world.ledger(entry(DONE))
    await world.stopped("batch 8")


@pytest.mark.parametrize("epoch", ["idA,idC/16", "idA,idB/8"])
@pytest.mark.parametrize("pending", [False, True])
async def test_another_log_is_noticed(world, epoch, pending):
    """A topic that was created again, or has other partitions, is another log, in which the ledger's offsets mean
    nothing.
    """
    done, following = (replace(i, epoch=epoch) for i in (DONE, NEXT))
    world.commit(following if pending else done)
    await world.ledger(entry(done))
    await world.stopped(epoch, TOPOLOGY.epoch)


async def test_a_first_intent_of_another_log(world):
    """The same holds where there is an intent but no ledger yet."""
    world.commit(replace(DONE, batch_no=FIRST_BATCH, epoch="old/16"))
    await world.stopped("old/16", TOPOLOGY.epoch)


@pytest.mark.parametrize("bounds", [OffsetBounds(21, 100), OffsetBounds(10, 19)], ids=["gone", "truncated"])
@pytest.mark.parametrize("pending", [False, True])
async def test_the_log_no_longer_holds_what_comes_next(world, bounds, pending):
    """Missing offsets, at either end, are never skipped."""
    world.commit(NEXT if pending else DONE)
    await world.ledger(entry(DONE))
    world.log.log_bounds[0] = bounds
    await world.stopped("offset 20", "ad.impressions", str(bounds.first), str(bounds.end - 1))


async def test_the_end_of_the_log_is_held(world):
    """A lane that has read everything goes on at the end, even of a log that holds nothing any more."""
    world.commit(DONE)
    await world.ledger(entry(DONE))
    world.log.log_bounds = {t: OffsetBounds(end, end) for t, end in ENDS.items()}
    assert (await world.start()).positions == ENDS


@pytest.mark.parametrize(("batch_no", "pending"), [(8, False), (9, False), (9, True), (70, True)])
async def test_rows_without_ledger_or_intent(world, batch_no, pending):
    """Rows of a batch that is neither in the ledger nor intended mean that another program writes, or that offsets were
    reset.
    """
    world.commit(NEXT if pending else DONE)
    await world.ledger(entry(DONE))
    await world.events(batch_no)
    await world.stopped("events", f"batch {batch_no}", "next batch is 8")


async def test_rows_before_a_fresh_start(world):
    """A new group on a database with rows does not begin at batch 1."""
    await world.events(1)
    await world.stopped("events", "batch 1", "not intended")


async def test_foreign_metadata(world):
    """An offset that another tool committed or reset halts the lane, and the error names its topic."""
    await world.ledger(entry(DONE))
    world.commit(DONE)
    world.log.commits[1] = Committed(0, "")
    await world.stopped("ad.clicks", "not an intent")
