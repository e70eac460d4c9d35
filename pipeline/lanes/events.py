"""What happens in a worker's lanes, as data: each event, its fields, and its log line.

Readers of the event log depend on names and fields (docs/operations.md): a released event keeps both, and their meaning.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from adledger.pipeline.halts import HaltReason
from adledger.pipeline.lanes.emit import Event, LaneTrouble, Measurement, Remediable
from adledger.schemas.classes import Reason
from adledger.schemas.wire import Malformed
from adledger.sinks.sink import LedgerEntry

TRIES_LOGGED, TRIES_BETWEEN_LINES = 5, 12
"""The first tries have a line each, then every twelfth: once a minute at the longest pause."""


class Phase(StrEnum):
    """What a lane does."""

    REBUILDING = "rebuilding"  # reads its state back from ClickHouse
    RUNNING = "running"
    IDLE = "idle"  # everything in the log is in the ledger
    WAITING = "waiting"  # for ClickHouse, which does not answer
    IN_DOUBT = "in_doubt"  # settles a batch whose outcome is unknown
    HALTED = "halted"  # found what an operator must decide about


@dataclass(frozen=True, slots=True)
class StageTimed(Measurement):
    """A stage of one batch took this long (wall time)."""

    stage: str
    seconds: float


@dataclass(frozen=True, slots=True)
class InsertDone(Measurement):
    """ClickHouse acknowledged an insert."""

    table: str


@dataclass(frozen=True, slots=True)
class RecordsFetched(Measurement):
    """A fetch returned `size` bytes of records; `lag` records of the topic's partition come after them."""

    lane: int
    topic: str
    size: int
    lag: int


@dataclass(frozen=True, slots=True)
class RulesNotEvaluated(Measurement):
    """Rule -> on how many events of one batch it could not be evaluated; rules without a count always were."""

    events: Mapping[Reason, int]


@dataclass(frozen=True, slots=True)
class ReasonsCounted(Measurement):
    """What was found in one batch: malformed records by reason, and events by reason; what did not occur is absent."""

    malformed: Mapping[Malformed, int]
    reasons: Mapping[Reason, int]


@dataclass(frozen=True, slots=True)
class PhaseChanged(Event):
    """A lane is in this phase now."""

    lane: int
    phase: Phase
    detail: str = ""


@dataclass(frozen=True, slots=True)
class BatchDone(Event):
    """A batch is in the ledger; the lane's dedupe state holds this many ids."""

    entry: LedgerEntry
    dedupe_entries: int

    def fields(self) -> Mapping[str, object]:
        """Return the batch's name and size; the ledger has the rest."""
        e = self.entry
        return {
            "lane": e.lane, "batch_no": e.batch_no, "records": e.records_received, "clock_after": e.clock_after,
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class InsertFailed(Event):
    """An insert of a batch ended with an error. `code` is ClickHouse's, or 0."""

    lane: int
    batch_no: int
    table: str
    error: str
    code: int


@dataclass(frozen=True, slots=True)
class BatchInDoubt(LaneTrouble):
    """It is unknown whether a batch is in the tables."""

    level = logging.WARNING
    text = "lane {e.lane}, batch {e.batch_no}: in doubt. {e.why}"
    batch_no: int


@dataclass(frozen=True, slots=True)
class BatchSettled(Event):
    """A batch that was in doubt is in the ledger."""

    text = "lane {e.lane}, batch {e.batch_no}: settled"
    lane: int
    batch_no: int


@dataclass(frozen=True, slots=True)
class BatchCutAgain(Event):
    """A batch in doubt is given up and cut again: the log was rewritten, and the tables have no row of it."""

    text = "lane {e.lane}, batch {e.batch_no}: cut again, the log was rewritten"
    lane: int
    batch_no: int


@dataclass(frozen=True, slots=True)
class LeftoversRemoved(Event):
    """Rows of a batch were removed by an operator override."""

    text = "lane {e.lane}, batch {e.batch_no}: its rows are removed by an operator override"
    lane: int
    batch_no: int


@dataclass(frozen=True, slots=True)
class RetryScheduled(LaneTrouble):
    """A try failed and another follows. `batch_no`: the batch that remains in doubt."""

    level = logging.WARNING
    attempt: int
    attempts_max: int | None
    code: int = 0  # ClickHouse's, or 0
    batch_no: int | None = None

    @property
    def line(self) -> str:
        """Its log line, for the first tries and then once a minute."""
        if self.attempt > TRIES_LOGGED and self.attempt % TRIES_BETWEEN_LINES:
            return ""
        of = f" of {self.attempts_max}" if self.attempts_max else ""
        doubt = "" if self.batch_no is None else f"batch {self.batch_no} is still in doubt. "
        return f"lane {self.lane}: {doubt}{self.why}; try {self.attempt}{of}"


@dataclass(frozen=True, slots=True)
class RebuildProgressed(Event):
    """A lane's state is being read back from ClickHouse: `ids` so far, of about `expected`."""

    text = "lane {e.lane}: {e.ids:,} ids rebuilt, of about {e.expected:,}"
    lane: int
    ids: int
    expected: int


@dataclass(frozen=True, slots=True)
class ParentAwaited(Event):
    """A lane of added partitions waits until the lane that had its users has reached the repartition barrier."""

    text = "lane {e.lane}: {e.what}"
    lane: int
    parent: int
    ends: tuple[int, ...]

    @property
    def what(self) -> str:
        """What the lane waits for."""
        return f"waits for lane {self.parent} to reach offsets {', '.join(map(str, self.ends))}"


@dataclass(frozen=True, slots=True)
class Halted(Remediable):
    """A lane found a state about which it must not guess. It continues after an operator's override.

    `halt_reason` None: nothing is to be decided, but a worker that is to catch up doesn't wait for a server that is away.
    """

    level = logging.ERROR
    text = "lane {e.lane} halted: {e.why}{e.advice}"
    halt_reason: HaltReason | None = None


@dataclass(frozen=True, slots=True)
class OverrideFound(Event):
    """An operator has written a new override for a halted lane: it starts again."""

    text = "lane {e.lane}: there is an override for it; it starts again"
    lane: int


@dataclass(frozen=True, slots=True)
class RestartScheduled(Remediable):
    """A server refused a lane's request, or a fault in its records may pass: the lane starts again after `seconds`."""

    level = logging.ERROR
    text = "lane {e.lane}: {e.why}; it starts again in {e.seconds:g} s{e.advice}"
    seconds: float


@dataclass(frozen=True, slots=True)
class LaneLost(LaneTrouble):
    """The group had given a lane to another worker before this one noticed; nothing is wrong with the tables."""

    text = "lane {e.lane}: given to another worker. {e.why}"


@dataclass(frozen=True, slots=True)
class LaneLeft(LaneTrouble):
    """A lane was stopped while it waited; its next owner settles the batch that it left, if there is one."""

    text = "lane {e.lane}: {e.why}"


@dataclass(frozen=True, slots=True)
class LaneCrashed(Event):
    """The code of a lane failed, by a bug or for lack of memory: the lane is dropped with its state."""

    level = logging.ERROR
    text = "lane {e.lane}: failed, so it begins again from the ledger, or halts. {e.traceback}"
    lane: int
    traceback: str


@dataclass(frozen=True, slots=True)
class LaneReleased(Event):
    """A lane no longer belongs to this worker."""

    lane: int
