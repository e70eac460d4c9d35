"""Operator overrides: whatever halts a lane at start, exactly one override lets it go on, and only while it fits."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import LaneHalted
from adledger.pipeline.halts import HaltReason
from adledger.pipeline.lanes import overrides
from adledger.pipeline.lanes.diagnosis import diagnose
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.overrides import Ancestor, LanePosition, OverrideNeeded, lineage
from adledger.pipeline.lanes.recovery import find_start
from adledger.pipeline.lanes.snapshot import LaneSnapshot, Start
from adledger.pipeline.log.epochs import log_of, same_offsets, truncated
from adledger.pipeline.log.source import Committed, OffsetBounds, Topology
from adledger.pipeline.stages.plain_hashes import partition_of
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.memory import MemorySink
from adledger.sinks.overrides import NO_PARENT, LaneOverride, Leftover, OverrideKind
from adledger.sinks.sink import LedgerEntry, OffsetRange, Stamp
from tests.contracts import sink_suite

LANE, NOW, CLOCK = 1, 1_767_225_600, sink_suite.CLOCK
TOPOLOGY = Topology(("ad.impressions", "ad.clicks"), (1, 2), ("idA", "idB"), 4)
ENDS = (20, 6)


@dataclass
class Overrides:
    """The overrides that were given, the ledger's rows, and rows without a ledger row."""

    given: list[LaneOverride] = field(default_factory=list)
    known_epochs: Sequence[str] = ()
    entries: dict[int, LedgerEntry] = field(default_factory=dict)
    left: Sequence[Leftover] = ()
    cleared: list[tuple[int, int, int]] = field(default_factory=list)

    async def of_lane(self, lane: int) -> Sequence[LaneOverride]:
        return [override for override in self.given if override.lane == lane]

    async def epochs(self) -> Sequence[str]:
        return self.known_epochs

    async def entry_reaching(self, lane: int, ends: Sequence[int]) -> LedgerEntry | None:
        found = self.entries.get(lane)
        return found if found and all(r.end >= ends[r.topic] for r in found.ranges) else None

    async def leftovers(self, lane: int, batch_no: int) -> Sequence[Leftover]:
        return self.left

    async def clear(self, lane: int, batch_no: int, send_by: int) -> None:
        self.cleared.append((lane, batch_no, send_by))


class Log:
    """What is committed, and what the log holds."""

    def __init__(self) -> None:
        self.commits: dict[int, Committed] = {}
        self.log_bounds = {0: OffsetBounds(10, 100), 1: OffsetBounds(5, 50)}

    async def committed(self, lane: int) -> dict[int, Committed]:
        return self.commits

    async def bounds(self, lane: int) -> dict[int, OffsetBounds]:
        return self.log_bounds

    def resume(self, lane: int, positions: dict[int, int], leader_epochs: dict[int, int]) -> None:
        assert leader_epochs == {}, "entries here have none"


class World:
    """A lane whose batch 7 is in the ledger, and its commit with it."""

    def __init__(self) -> None:
        self.source, self.sink, self.overrides = Log(), MemorySink(clock=lambda: NOW), Overrides()
        self.topology = TOPOLOGY

    async def with_ledger(self, epoch: str = TOPOLOGY.epoch) -> "World":
        ranges = tuple(OffsetRange(t, 0, end) for t, end in enumerate(ENDS))
        entry = replace(sink_suite.entry(LANE, 7), epoch=epoch, ranges=ranges, clock_after=CLOCK)
        await self.sink.insert("ledger", ledger_columns(entry), Stamp(LANE, 7, NOW))
        override = LaneOverride(LANE, 7, OverrideKind.ADOPT, epoch, ranges)
        self.commit(replace(overrides.override_intent(override, CLOCK, NOW), is_override=False))
        return self

    def commit(self, intent) -> None:
        self.source.commits = {r.topic: Committed(r.start, intent.text()) for r in intent.ranges}

    async def proposed(self) -> LaneOverride:
        """Return the override that the lane would go on with."""
        with pytest.raises(OverrideNeeded) as stopped:
            await find_start(self, LANE)
        assert stopped.value.proposal is not None
        return stopped.value.proposal

    async def start(self) -> Start:
        return await find_start(self, LANE)


async def start_after(world: World, override: LaneOverride) -> Start:
    """Apply the override; return where the lane goes on, which is the same when it died after its intent."""
    world.overrides.given.append(replace(override, reason="why", author="who"))
    start = await world.start()
    assert start.pending is not None
    assert start.pending.is_override
    world.commit(start.pending.with_send_by(NOW))
    again = await world.start()
    assert (again.positions, again.batch_no, again.clock, again.pending.with_send_by(0)) == (
        start.positions, start.batch_no, start.clock, start.pending,
    )  # fmt: skip
    return start


async def test_a_gap():
    """Exactly what retention removed is given up; the watermark and the epoch do not change."""
    world = await World().with_ledger()
    world.source.log_bounds[0] = OffsetBounds(33, 100)
    override = await world.proposed()
    assert (override.kind, override.ranges, override.lost) == (
        OverrideKind.SKIP, (OffsetRange(0, 20, 33), OffsetRange(1, 6, 6)), 13,
    )  # fmt: skip
    start = await start_after(world, override)
    assert (start.batch_no, start.clock, start.pending.epoch) == (8, CLOCK, TOPOLOGY.epoch)


async def test_a_truncated_log():
    """The lane goes on at the log's end, in a new epoch of the same log, and counts nothing as lost that was counted
    before.
    """
    world = await World().with_ledger()
    world.source.log_bounds[0] = OffsetBounds(0, 12)
    override = await world.proposed()
    assert override.ranges == (OffsetRange(0, 12, 12), OffsetRange(1, 6, 6))
    assert (override.epoch, override.lost) == (TOPOLOGY.epoch + "~1", 0)
    assert (await start_after(world, override)).epoch == TOPOLOGY.epoch + "~1"


async def test_a_topic_created_again():
    """The new topic is read from its first offset and the other from its position, in a new epoch of the log only."""
    world = await World().with_ledger("idOLD,idB/4~2")
    override = await world.proposed()
    assert (override.epoch, override.ranges) == (
        TOPOLOGY.epoch,
        (OffsetRange(0, 10, 10), OffsetRange(1, 6, 6)),
    )
    await start_after(world, override)


@pytest.mark.parametrize("metadata", [None, "", "{}"])
async def test_commits_that_are_gone_or_reset(metadata: str | None):
    """The lane goes on from the ledger's end, by override."""
    world = await World().with_ledger()
    world.source.commits = {} if metadata is None else {t: Committed(0, metadata) for t in (0, 1)}
    override = await world.proposed()
    assert (override.kind, override.batch_no, override.lost) == (OverrideKind.ADOPT, 8, 0)
    await start_after(world, override)


async def test_rows_without_an_intent():
    """Rows up to the deadline that was seen are removed and later ones stay; then the lane goes on."""
    world = await World().with_ledger()
    await world.sink.insert("events", sink_suite.events(2), Stamp(LANE, 8, NOW))
    world.overrides.left = [Leftover("events", 2, NOW - 5, 77)]
    override = await world.proposed()
    assert (override.kind, override.batch_no, override.leftovers) == (
        OverrideKind.CLEAR,
        8,
        tuple(world.overrides.left),
    )
    world.overrides.left = [Leftover("events", 3, NOW - 5, 78)]
    world.overrides.given.append(override)
    assert (await world.proposed()).leftovers == tuple(
        world.overrides.left
    )  # not the rows of the snapshot: nothing is done
    assert not world.overrides.cleared


async def test_new_partitions():
    """When 2 partitions become 4, an old lane stays where it is, and a new one begins at its partition's start once its
    parent is done.
    """
    before = "idA,idB/2"
    old = await World().with_ledger(before)
    override = await old.proposed()
    assert (override.kind, override.parent, override.epoch) == (
        OverrideKind.REPARTITION,
        NO_PARENT,
        TOPOLOGY.epoch,
    )
    assert override.ranges == (OffsetRange(0, 20, 20), OffsetRange(1, 6, 6))
    await start_after(old, override)

    new = World()
    new.overrides.known_epochs = [before]
    with pytest.raises(OverrideNeeded) as stopped:
        await find_start(new, 3)
    override = stopped.value.proposal
    assert (override.lane, override.batch_no, override.parent, override.parent_ends) == (3, 1, 1, (100, 50))
    new.overrides.given.append(override)
    start = await find_start(new, 3)
    assert start.awaits == override
    parent = replace(
        sink_suite.entry(1, 9), ranges=(OffsetRange(0, 90, 100), OffsetRange(1, 50, 50)), clock_after=CLOCK
    )
    new.overrides.entries[1] = parent
    assert await lineage(new.overrides, 3) == (Ancestor(1, 10),)
    begun = start.after(parent)
    assert (begun.clock, begun.pending.clock_before, begun.pending.clock_after) == (CLOCK, CLOCK, CLOCK)


async def test_partitions_that_are_not_a_multiple():
    """By override the lane goes on where it is, without the windows of users that another lane had."""
    world = await World().with_ledger("idA,idB/3")
    with pytest.raises(OverrideNeeded, match="3 partitions became 4") as stopped:
        await world.start()
    assert stopped.value.reason is HaltReason.PARTITIONS_UNRELATED
    override = stopped.value.proposal
    assert (override.kind, override.epoch) == (OverrideKind.SKIP, TOPOLOGY.epoch)
    assert (override.ranges, override.lost) == ((OffsetRange(0, 20, 20), OffsetRange(1, 6, 6)), 0)
    await start_after(world, override)


def in_doubt(end: int) -> Intent:
    """Return the intent of the batch after the ledger's last, up to an offset of the first topic."""
    ranges = (OffsetRange(0, ENDS[0], end), OffsetRange(1, ENDS[1], ENDS[1]))
    made = overrides.override_intent(
        LaneOverride(LANE, 8, OverrideKind.SKIP, TOPOLOGY.epoch, ranges), CLOCK, NOW
    )
    return replace(made, is_override=False)


async def test_a_log_that_ends_within_a_batch_in_doubt():
    """By override the batch is given up with its rows, and no offset: the lane reads on where the ledger ends."""
    world = await World().with_ledger()
    world.source.log_bounds[0] = OffsetBounds(10, 33)
    world.commit(in_doubt(40))
    world.overrides.left = [Leftover("events", 2, NOW - 5, 77)]
    with pytest.raises(
        OverrideNeeded, match="batch 8 in doubt goes up to 39, the log holds 10 to 32"
    ) as stopped:
        await world.start()
    override = stopped.value.proposal
    assert (stopped.value.reason, override.kind, override.lost) == (
        HaltReason.BATCH_TRUNCATED,
        OverrideKind.SKIP,
        0,
    )
    assert override.clears(8)
    assert (override.ranges, override.leftovers) == (
        (OffsetRange(0, 20, 20), OffsetRange(1, 6, 6)),
        tuple(world.overrides.left),
    )
    await start_after(world, override)


async def test_an_end_that_lags_behind_is_no_truncation():
    """Once the log holds the batch in doubt again, the lane settles it, without an override."""
    world = await World().with_ledger()
    world.source.log_bounds[0] = OffsetBounds(10, 33)
    world.commit(in_doubt(40))
    assert (await world.proposed()).batch_no == 8
    world.source.log_bounds[0] = OffsetBounds(10, 40)
    assert (await world.start()).pending == in_doubt(40)


async def test_a_place_that_an_operator_names():
    """The lane gives up what comes before it at its very position; at any other position the override does nothing."""
    world = await World().with_ledger()
    at = LanePosition(LANE, 8, TOPOLOGY.epoch, dict(enumerate(ENDS)))
    left = Leftover("events", 2, NOW - 5, 77)
    override = overrides.give_up(at, {0: 31}, [left])
    assert (override.ranges, override.lost) == ((OffsetRange(0, 20, 31), OffsetRange(1, 6, 6)), 11)
    assert override.clears(8)
    for other in (
        replace(override, batch_no=9),
        replace(override, lane=LANE + 1),
        replace(override, epoch=TOPOLOGY.epoch + "~1"),
        replace(override, ranges=(OffsetRange(0, 21, 31), OffsetRange(1, 6, 6))),
        replace(override, kind=OverrideKind.SKIP),
    ):
        world.overrides.given = [other]
        assert (await world.start()).pending is None
    world.overrides.given = []
    await start_after(world, override)


async def test_a_place_that_an_operator_names_replaces_a_batch_in_doubt():
    """Its intent is the override's from then on, so that a later owner does not write the batch."""
    world = await World().with_ledger()
    world.commit(in_doubt(40))
    at = LanePosition(LANE, 8, TOPOLOGY.epoch, dict(enumerate(ENDS)))
    start = await start_after(world, overrides.give_up(at, {0: 40}, []))
    assert start.pending.ranges == (OffsetRange(0, 20, 40), OffsetRange(1, 6, 6))


async def test_a_healthy_lane_ignores_overrides():
    """An override without a matching problem does nothing."""
    world = await World().with_ledger()
    at = LanePosition(LANE, 8, TOPOLOGY.epoch, dict(enumerate(ENDS)))
    world.overrides.given += [
        overrides.adopt(at),
        overrides.skip_gap(at, {0: OffsetBounds(30, 40), 1: OffsetBounds(6, 6)}),
    ]
    assert (await world.start()).pending is None
    snapshot = LaneSnapshot(
        LANE, await world.sink.ledger_end(LANE), world.source.commits, world.source.log_bounds
    )
    assert (await diagnose(world, snapshot)).pending is None


POSITIONS = st.integers(0, 50)


@given(POSITIONS, POSITIONS, st.integers(0, 30), st.integers(0, 30))
def test_an_override_fits_only_its_problem(position: int, first: int, size: int, more: int):
    """It also covers what retention has removed since, and nothing else."""
    log_bounds = {0: OffsetBounds(first, first + size)}
    at = LanePosition(LANE, 8, "id/4", {0: position})
    override = overrides.skip_gap(at, log_bounds)
    assert override.fits(override)
    assert override.lost == max(0, first - position)
    assert same_offsets("id/4", override.epoch) == (position <= first + size)
    later = overrides.skip_gap(at, {0: OffsetBounds(first + more, first + size + more)})
    if position <= first:
        assert override.fits(later)
        assert later.fits(override) == (later.lost == override.lost)
    assert not override.fits(replace(override, batch_no=9))
    assert not override.fits(replace(override, epoch="id/5"))
    assert not override.fits(replace(override, ranges=(OffsetRange(0, position + 1, first + 99),)))


@given(st.binary(min_size=1, max_size=40), st.integers(1, 64), st.integers(1, 8))
def test_a_new_partitions_keys_come_from_its_parent(key: bytes, partitions: int, times: int):
    """Whatever the key, its new partition, modulo the old number, is its old one."""
    new, old = partition_of(key, partitions * times), partition_of(key, partitions)
    assert old == (new if (parent := overrides.parent_of(new, partitions)) == NO_PARENT else parent)


def test_epochs():
    """Truncations are counted in the epoch, and the log stays the same."""
    once = truncated("idA,idB/16")
    assert (once, truncated(once)) == ("idA,idB/16~1", "idA,idB/16~2")
    assert log_of(truncated(once)) == "idA,idB/16"
    assert same_offsets("idA,idB/16", "idA,idB/32")
    assert not same_offsets("idA,idB/16", once)
    assert not same_offsets("idA,idB/16", "idA,idC/16")


async def test_the_remedy_is_the_command():
    """The remedy names the lane and the command that creates the override."""
    world = await World().with_ledger()
    world.source.log_bounds[0] = OffsetBounds(33, 100)
    with pytest.raises(LaneHalted) as stopped:
        await world.start()
    assert f"adledger lane skip {LANE} --reason TEXT --dry-run" in stopped.value.remedy
