"""What a lane is given: the log, ClickHouse, its limits, and where its CPU work runs."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, TypeVar

from adledger.pipeline.kernels.slots import KNOWN_SECRET, SlotSecret
from adledger.pipeline.lanes.buffer import BatchLimits
from adledger.pipeline.lanes.rules_in_force import RulesInForce
from adledger.pipeline.log.source import Source, Topology
from adledger.pipeline.retry import RetryPolicy
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.schemas.classes import Reason
from adledger.sinks.orders import NO_ORDERS, Orders
from adledger.sinks.sink import Columns, LedgerEntry, Sink

T = TypeVar("T")


class RunCpu(Protocol):
    """Runs a function of the data path, in a thread or at once, and returns what it returns."""

    def __call__(self, function: Callable[[], T], /) -> Awaitable[T]:
        """Run it."""


class WriteTexts(Protocol):
    """Writes user agents and pages; returns when they are durable."""

    def __call__(self, texts: Mapping[str, Columns], /) -> Awaitable[None]:
        """Write them."""


class Announce(Protocol):
    """Tells the control path of a batch whose rollups are in (the `ad.rollups` message)."""

    def __call__(self, batch: "RolledUp", /) -> Awaitable[None]:
        """Return when the message is accepted; it may be sent again. Raises SinkUnavailable: the batch is in doubt."""


@dataclass(frozen=True, slots=True)
class RolledUp:
    """A batch's rollup rows, as columns of `rollup_minute`."""

    epoch: str
    lane: int
    batch_no: int
    clock_after: int  # watermark (ms)
    rollup: Columns


class Phase(StrEnum):
    """What a lane does."""

    REBUILDING = "rebuilding"  # reads its state back from ClickHouse
    RUNNING = "running"
    IDLE = "idle"  # all that was there is in the ledger
    WAITING = "waiting"  # for ClickHouse, which does not answer
    IN_DOUBT = "in_doubt"  # settles a batch whose outcome is unknown
    STOPPED = "stopped"  # found what a person must decide about


class Observer(Protocol):
    """Is told what lanes do, a few calls a batch, from the loop or from CPU threads. Never raises."""

    def phase(self, lane: int, phase: Phase, detail: str = "") -> None:
        """Hear that a lane is in a phase now."""

    def stage(self, stage: str, seconds: float) -> None:
        """Hear that a stage of one batch took so long (wall time)."""

    def inserted(self, table: str, outcome: str) -> None:
        """Hear that an insert ended: "ok", or the name of its error."""

    def fetched(self, lane: int, topic: str, size: int, lag: int) -> None:
        """Hear that a fetch brought `size` bytes of records; `lag` records of the topic's partition wait behind it."""

    def not_evaluated(self, events: Mapping[Reason, int]) -> None:
        """Hear on how many events of one batch rules could not be evaluated; a rule that is not named was on all."""

    def alert(self, kind: str) -> None:
        """Hear that an alert was raised: adledger.sinks.rules.AlertKind."""

    def batch_done(self, entry: LedgerEntry, dedupe_entries: int) -> None:
        """Hear that a batch is in the ledger; the lane's dedupe state holds so many ids."""

    def forget(self, lane: int) -> None:
        """Hear that a lane is not ours any more."""


class NoObserver:
    """Looks away."""

    def phase(self, lane: int, phase: Phase, detail: str = "") -> None:
        """Do nothing."""

    def stage(self, stage: str, seconds: float) -> None:
        """Do nothing."""

    def inserted(self, table: str, outcome: str) -> None:
        """Do nothing."""

    def fetched(self, lane: int, topic: str, size: int, lag: int) -> None:
        """Do nothing."""

    def not_evaluated(self, events: Mapping[Reason, int]) -> None:
        """Do nothing."""

    def alert(self, kind: str) -> None:
        """Do nothing."""

    def batch_done(self, entry: LedgerEntry, dedupe_entries: int) -> None:
        """Do nothing."""

    def forget(self, lane: int) -> None:
        """Do nothing."""


NO_OBSERVER = NoObserver()


async def announce_to_nobody(_: RolledUp) -> None:
    """Return at once: a log in a directory has no control path."""


@dataclass(frozen=True, slots=True)
class IdleClock:
    """An idle lane writes an empty batch every so often, which moves its clock to the server's time less the skew."""

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
    idle_clock: IdleClock | None = None
    slot_secret: SlotSecret = (
        KNOWN_SECRET  # of this process: where entries of its tables lie, and nothing else
    )


@dataclass(frozen=True, slots=True)
class Ports:
    """Everything outside the lane."""

    source: Source
    sink: Sink
    topology: Topology
    limits: LaneLimits
    run_cpu: RunCpu
    say: Callable[[str], None]
    write_texts: WriteTexts
    pace: Callable[[], Awaitable[None]]  # returns when this worker may send another batch's inserts
    announce: Announce = announce_to_nobody
    observer: Observer = NO_OBSERVER
    rules_in_force: RulesInForce = field(default_factory=lambda: RulesInForce(RuleEvaluator.none()))
    orders: Orders = NO_ORDERS
