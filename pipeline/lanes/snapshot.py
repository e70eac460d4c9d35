"""What a lane's start depends on, read at one moment, and the start itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.log_identity import LogEnvironment
from adledger.pipeline.lanes.overrides import LanePosition
from adledger.pipeline.log.source import Committed, OffsetBounds, Topology
from adledger.sinks.overrides import LaneOverride, Overrides
from adledger.sinks.sink import LedgerEntry

FIRST_BATCH = 1


class LaneEnvironment(LogEnvironment, Protocol):
    """The log, ClickHouse, and operator overrides."""

    @property
    def overrides(self) -> Overrides:
        """Operator overrides."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a lane begins: offsets by topic, the next batch's number, the watermark (ms), and an intent in doubt.

    `epoch` None: the log's own. `awaits`: the override that repartitions a new lane, whose parent must get there first.
    `leader_epochs`: topic -> the leader epoch before its position, if the ledger has one and the log does not deny it.
    """

    positions: Mapping[int, int]
    batch_no: int
    clock: int
    pending: Intent | None
    epoch: str | None = None
    awaits: LaneOverride | None = None
    leader_epochs: Mapping[int, int] = field(default_factory=dict)

    def after(self, parent: LedgerEntry) -> "Start":
        """Return the start of a new lane whose parent has reached its end: it continues at the parent's watermark."""
        assert self.pending is not None, "a repartition is pending until it is in the ledger"
        clock = parent.clock_after
        pending = replace(self.pending, cut_time=clock, clock_before=clock, clock_after=clock)
        return replace(self, clock=clock, pending=pending, awaits=None)


@dataclass(frozen=True, slots=True)
class LaneSnapshot:
    """A lane's last ledger entry, the group's commits, and the log's bounds; mappings are by topic index."""

    lane: int
    entry: LedgerEntry | None
    committed: Mapping[int, Committed]
    bounds: Mapping[int, OffsetBounds]

    @classmethod
    async def take(cls, environment: LaneEnvironment, lane: int) -> "LaneSnapshot":
        """Read the commits first, so that a caller who reads them again can tell whether the lane moved meanwhile.

        Raises LogError, SinkError.
        """
        committed = await environment.source.committed(lane)
        entry = await environment.sink.ledger_end(lane)
        return cls(lane, entry, committed, await environment.source.bounds(lane))

    @property
    def next_batch(self) -> int:
        """The batch after the ledger's last."""
        return self.entry.batch_no + 1 if self.entry else FIRST_BATCH

    @property
    def positions(self) -> dict[int, int]:
        """The offsets where the ledger ends or, without an entry, where the log begins."""
        if self.entry is not None:
            return {r.topic: r.end for r in self.entry.ranges}
        return {t: b.first for t, b in self.bounds.items()}

    def position(self, topology: Topology) -> LanePosition:
        """Return the lane's position according to the ledger."""
        epoch = self.entry.epoch if self.entry else topology.epoch
        return LanePosition(self.lane, self.next_batch, epoch, self.positions)
