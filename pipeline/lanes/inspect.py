"""A lane inspected by a process that does not own it: what it would find at its start, and the override that resolves it.

Inspecting joins no group, commits nothing and writes nothing. A running lane may be in the middle of a batch.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from adledger.pipeline.addresses import FilesAddress, ServerAddress
from adledger.pipeline.errors import LaneHalted, LogError, OffsetOutOfRange, UnreadableBatch
from adledger.pipeline.halts import WAYS_OUT, HaltReason, override_command
from adledger.pipeline.lanes import overrides
from adledger.pipeline.lanes.diagnosis import diagnose
from adledger.pipeline.lanes.faults import unreadable
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.overrides import LanePosition, OverrideNeeded
from adledger.pipeline.lanes.snapshot import LaneEnvironment, LaneSnapshot, Start
from adledger.pipeline.lanes.start import make_sink
from adledger.pipeline.log.files.source import FilesSource
from adledger.pipeline.log.kafka.source import KafkaSource
from adledger.pipeline.log.source import OffsetBounds, Source, Topology
from adledger.pipeline.settings import Settings
from adledger.sinks.clickhouse import ClickHouseSink
from adledger.sinks.overrides import LaneOverride, Leftover, Overrides
from adledger.sinks.sink import Sink

SETTLED_SECONDS_MAX = 60
"""How long after its deadline an intended batch may still be under way: its owner settles doubt in this time."""
ANY_BATCH_BYTES = 1
"""Fetches one record batch, however large."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """The log, ClickHouse and operator overrides of a deployment."""

    source: Source
    sink: Sink
    topology: Topology
    overrides: Overrides


@dataclass(frozen=True, slots=True)
class LaneLook:
    """One lane. `pending` is its batch without a ledger row, `rows` that batch's rows by table.

    `trouble` says why the lane would halt ("" if it would not), `halt_reason` is its name, `proposal` the override that
    resolves it, and `overridden` whether a matching override is stored already. `next` is where the lane would go on, if
    it can begin: from there offsets can be given up, with `leftovers`, the rows of its next batch.
    """

    lane: int
    batch_no: int | None
    clock: int | None  # ms
    positions: Mapping[int, int]
    bounds: Mapping[int, OffsetBounds]
    pending: Intent | None
    rows: Mapping[str, int]
    trouble: str
    remedy: str
    halt_reason: HaltReason | None
    proposal: LaneOverride | None
    overridden: bool
    topics: Sequence[str]
    next: LanePosition | None
    leftovers: Sequence[Leftover]

    @property
    def lag(self) -> int:
        """How many offsets of the log the ledger does not cover yet."""
        return sum(max(0, b.end - self.positions.get(t, b.first)) for t, b in self.bounds.items())

    @property
    def command(self) -> str:
        """The command of `adledger lane` that resolves its trouble, or ""."""
        return WAYS_OUT[self.halt_reason].command if self.halt_reason is not None else ""


@asynccontextmanager
async def inspected(settings: Settings, server: ServerAddress) -> AsyncIterator[Inspected]:
    """Connect to a deployment's log and ClickHouse. Raises LogError, SinkError."""
    sink: ClickHouseSink = make_sink(settings, server)
    try:
        if isinstance(settings.source, FilesAddress):
            files = FilesSource(settings.source.directory, settings.group)
            yield Inspected(files, sink, files.topology, sink.overrides)
            return
        kafka = KafkaSource.of(settings, lambda _: None)
        topology = await kafka.look()
        try:
            yield Inspected(kafka, sink, topology, sink.overrides)
        finally:
            await kafka.leave()
    finally:
        await sink.close()


async def look_at(environment: LaneEnvironment, lane: int, *, any_rows: bool = False) -> LaneLook:
    """Inspect a lane. `any_rows`: rows of a batch without a ledger row are trouble, even if it may be under way.

    Raises LogError, SinkError.
    """
    while True:
        snapshot = await LaneSnapshot.take(environment, lane)
        at = snapshot.position(environment.topology)
        halted: LaneHalted | None = None
        start: Start | None = None
        try:
            start = await diagnose(environment, snapshot)
            halted = await _unsettled(environment, at, start.pending, any_rows=any_rows)
            halted = halted or await _unreadable(environment, lane, start)
        except LaneHalted as error:
            halted = error
        if halted is None or await environment.source.committed(lane) == snapshot.committed:
            break
    entry, pending = snapshot.entry, start.pending if start is not None else None
    proposal = halted.proposal if isinstance(halted, OverrideNeeded) else None
    stored = await environment.overrides.of_lane(lane)
    batch = pending.batch_no if pending else (proposal or at).batch_no
    return LaneLook(
        lane=lane,
        batch_no=entry.batch_no if entry else None,
        clock=entry.clock_after if entry else None,
        positions={r.topic: r.end for r in entry.ranges} if entry else {},
        bounds=snapshot.bounds,
        pending=pending,
        rows={t: n for t, n in (await environment.sink.batch_rows(lane, batch)).items() if n},
        trouble=halted.message if halted else "",
        remedy=halted.remedy if halted else "",
        halt_reason=halted.reason if halted else None,
        proposal=proposal,
        overridden=any(
            override.fits(proposal) if proposal is not None else overrides.gives_up_at(override, at)
            for override in stored
        ),
        topics=environment.topology.topics,
        next=at if start is not None and not (pending and pending.is_override) else None,
        leftovers=await environment.overrides.leftovers(lane, at.batch_no),
    )


def check_lane(topology: Topology, lane: int) -> None:
    """Raise LogError if there is no such lane."""
    if not 0 <= lane < topology.partitions:
        raise LogError(
            f"there is no lane {lane}: the log has {topology.partitions} partitions",
            remedy=f"name one of 0 to {topology.partitions - 1}",
        )


async def _unsettled(
    environment: LaneEnvironment, at: LanePosition, pending: Intent | None, *, any_rows: bool
) -> OverrideNeeded | None:
    """Return what is wrong with an intended batch that its owner should have settled, or could not settle."""
    if pending is None or not (any_rows or await environment.sink.server_time() > pending.send_by):
        return None
    rows = await environment.sink.batch_rows(at.lane, pending.batch_no)
    found = await environment.overrides.leftovers(at.lane, pending.batch_no)
    if rows["ledger"] or not found:
        return None
    partly = rows["events"] not in {0, pending.event_rows} or rows["dead_letters"] not in {
        0,
        pending.dead_rows,
    }
    overdue = await environment.sink.server_time() > pending.send_by + SETTLED_SECONDS_MAX
    if not (partly or overdue or any_rows):
        return None
    return OverrideNeeded(
        f"lane {at.lane}: of batch {pending.batch_no} there are {rows['events']} of {pending.event_rows} rows in "
        f"events, {rows['dead_letters']} of {pending.dead_rows} in dead_letters, {rows['rollup_minute']} in "
        "rollup_minute, and no ledger row",
        reason=HaltReason.ROWS_INCOMPLETE,
        remedy="the lane's worker settles it if it can; if it logs that the lane is halted, have the batch written "
        f"again: {override_command(HaltReason.ROWS_INCOMPLETE, at.lane)}",
        proposal=overrides.clear(at, pending.batch_no, found),
    )


async def _unreadable(environment: LaneEnvironment, lane: int, start: Start) -> LaneHalted | None:
    """Return what is wrong with the record batches that come next."""
    for topic, position in start.positions.items():
        try:
            await environment.source.fetch(lane, {topic: position}, ANY_BATCH_BYTES, 0)
        except UnreadableBatch as error:
            return unreadable(lane, error, environment.topology.topics)
        except OffsetOutOfRange:  # gone since
            continue
    return None
