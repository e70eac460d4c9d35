"""A lane looked at from outside, by whoever does not own it: what it would find at start, and the override that fits.

Looking joins no group, commits nothing and writes nothing. A lane that works may be seen in the middle of a batch.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

from adledger.pipeline.addresses import FilesAddress, ServerAddress
from adledger.pipeline.errors import LaneHalted, LogError
from adledger.pipeline.lanes import overrides
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.overrides import COMMANDS, LanePosition, OverrideNeeded
from adledger.pipeline.lanes.recovery import Outside, Seen, diagnose
from adledger.pipeline.lanes.start import make_sink
from adledger.pipeline.log.files.source import FilesSource
from adledger.pipeline.log.kafka.source import KafkaSource
from adledger.pipeline.log.source import OffsetBounds, Source, Topology
from adledger.pipeline.settings import Settings
from adledger.sinks.clickhouse import ClickHouseSink
from adledger.sinks.overrides import LaneOverride, Overrides
from adledger.sinks.sink import Sink

SETTLED_SECONDS_MAX = 60
"""So long after its deadline an intended batch may be under way: its owner settles doubt within it."""


@dataclass(frozen=True, slots=True)
class Inspected:
    """A log, a ClickHouse and its overrides, to look at."""

    source: Source
    sink: Sink
    topology: Topology
    overrides: Overrides


@dataclass(frozen=True, slots=True)
class LaneLook:
    """One lane. `pending` is its batch without a ledger row, `rows` what the tables hold of it.

    `trouble` says why the lane would stand still ("" where it would not), `proposal` is the override that mends it and
    `ordered` whether such an override is there already.
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
    proposal: LaneOverride | None
    overridden: bool

    @property
    def lag(self) -> int:
        """How many offsets of the log lie beyond the ledger's end."""
        return sum(max(0, b.end - self.positions.get(t, b.first)) for t, b in self.bounds.items())

    @property
    def command(self) -> str:
        """The command of `adledger lane` that overrides what it needs, or ""."""
        return COMMANDS[self.proposal.kind] if self.proposal is not None else ""


@asynccontextmanager
async def inspected(settings: Settings, server: ServerAddress) -> AsyncIterator[Inspected]:
    """Give what there is to look at. Raises LogError, SinkError."""
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


async def look_at(outside: Outside, lane: int) -> LaneLook:
    """Look at a lane. Raises LogError, SinkError."""
    while True:
        committed = await outside.source.committed(lane)
        entry = await outside.sink.ledger_end(lane)
        seen = Seen(lane, entry, committed, await outside.source.bounds(lane))
        stopped: LaneHalted | None = None
        pending: Intent | None = None
        try:
            pending = (await diagnose(outside, seen)).pending
            stopped = await _unsettled(outside, seen.position(outside.topology), pending)
        except LaneHalted as error:
            stopped = error
        if stopped is None or await outside.source.committed(lane) == committed:
            break
    proposal = stopped.proposal if isinstance(stopped, OverrideNeeded) else None
    given = await outside.overrides.of_lane(lane) if proposal is not None else ()
    batch = pending.batch_no if pending else (proposal or seen.position(outside.topology)).batch_no
    return LaneLook(
        lane=lane,
        batch_no=entry.batch_no if entry else None,
        clock=entry.clock_after if entry else None,
        positions={r.topic: r.end for r in entry.ranges} if entry else {},
        bounds=seen.bounds,
        pending=pending,
        rows={t: n for t, n in (await outside.sink.batch_rows(lane, batch)).items() if n},
        trouble=stopped.message if stopped else "",
        remedy=stopped.remedy if stopped else "",
        proposal=proposal,
        overridden=proposal is not None and any(override.fits(proposal) for override in given),
    )


def check_lane(topology: Topology, lane: int) -> None:
    """Raise LogError where there is no such lane."""
    if not 0 <= lane < topology.partitions:
        raise LogError(
            f"there is no lane {lane}: the log has {topology.partitions} partitions",
            remedy=f"name one of 0 to {topology.partitions - 1}",
        )


async def _unsettled(outside: Outside, at: LanePosition, pending: Intent | None) -> OverrideNeeded | None:
    """Return what is wrong with an intended batch whose owner should have settled it, or could not."""
    if pending is None or await outside.sink.server_time() <= pending.send_by:
        return None
    there = await outside.sink.batch_rows(at.lane, pending.batch_no)
    found = await outside.overrides.leftovers(at.lane, pending.batch_no)
    if there["ledger"] or not found:
        return None
    some = there["events"] not in {0, pending.event_rows} or there["dead_letters"] not in {
        0,
        pending.dead_rows,
    }
    overdue = await outside.sink.server_time() > pending.send_by + SETTLED_SECONDS_MAX
    if not (some or overdue):
        return None
    return OverrideNeeded(
        f"lane {at.lane}: of batch {pending.batch_no} there are {there['events']} of {pending.event_rows} rows in "
        f"events, {there['dead_letters']} of {pending.dead_rows} in dead_letters, {there['rollup_minute']} in "
        "rollup_minute, and no ledger row",
        remedy="a worker that owns the lane settles it where it can; where it says that it stands still, let the batch "
        f"be written again: adledger lane resolve {at.lane} --reason TEXT --dry-run",
        proposal=overrides.clear(at, pending.batch_no, found),
    )
