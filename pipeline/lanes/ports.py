"""A lane's dependencies: the log, ClickHouse, its limits, and where its CPU work runs."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from adledger.pipeline.kernels.slots import KNOWN_SECRET, SlotSecret
from adledger.pipeline.lanes.buffer import BatchLimits
from adledger.pipeline.lanes.emit import Emit, ignore
from adledger.pipeline.lanes.rules_in_force import RulesInForce
from adledger.pipeline.log.source import Source, Topology
from adledger.pipeline.retry import RetryPolicy
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.schemas.periods import CLOSE_DELAY_MINUTES, CloseDelays
from adledger.sinks.overrides import NO_OVERRIDES, Overrides
from adledger.sinks.sink import Columns, Sink

T = TypeVar("T")


class RunCpu(Protocol):
    """Runs a function of the data path, in a thread or inline, and returns its result."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Run it."""


class WriteTexts(Protocol):
    """Writes user agents and pages; returns when they are durable."""

    def __call__(self, texts: Mapping[str, Columns], /) -> Awaitable[None]:
        """Write them."""


class Announce(Protocol):
    """Notifies the control path of a batch whose rollups are inserted (the `ad.rollups` message)."""

    def __call__(self, batch: "RolledUp", /) -> Awaitable[None]:
        """Return when the message is accepted; it may be sent again. Raises SinkUnavailable: send it again."""


@dataclass(frozen=True, slots=True)
class RolledUp:
    """A batch's rollup rows, as columns of `rollup_minute`."""

    epoch: str
    lane: int
    batch_no: int
    clock_after: int  # watermark (ms)
    rollup: Columns


async def announce_to_nobody(_: RolledUp) -> None:
    """Do nothing: a log in a directory has no control path."""


@dataclass(frozen=True, slots=True)
class IdleWatermark:
    """An idle lane writes an empty batch at intervals, which advances its watermark to the server's time minus the skew."""

    every_seconds: int
    skew_seconds: int


@dataclass(frozen=True, slots=True)
class LaneLimits:
    """Limits and times of a lane, from the settings of the same names.

    `retry` without a limit of attempts: a lane waits for ClickHouse for as long as it is away.
    """

    batch: BatchLimits
    fetch_bytes_max: int
    window_ms: int
    allowed_lateness_ms: int
    write_deadline_seconds: int
    retry: RetryPolicy
    default_currency: int
    close_delays: CloseDelays = field(default_factory=lambda: CloseDelays.same(CLOSE_DELAY_MINUTES))
    idle_watermark: IdleWatermark | None = None
    slot_secret: SlotSecret = KNOWN_SECRET  # of this process: decides slots in its hash tables, nothing else


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside the lane."""

    source: Source
    sink: Sink
    topology: Topology
    limits: LaneLimits
    run_cpu: RunCpu
    write_texts: WriteTexts
    pace: Callable[[], Awaitable[None]]  # returns when this worker may send another batch's inserts
    announce: Announce = announce_to_nobody
    emit: Emit = ignore
    rules_in_force: RulesInForce = field(default_factory=lambda: RulesInForce(RuleEvaluator.none()))
    overrides: Overrides = NO_OVERRIDES
