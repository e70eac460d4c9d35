"""What happens to a worker as a whole, as data: its membership, its pages, its rules. Released names and fields stay.

adledger.pipeline.lanes.events has what happens in its lanes.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from adledger.pipeline.lanes.emit import Event, LaneTrouble, Measurement


@dataclass(frozen=True, slots=True)
class LogJoined(Measurement):
    """The group has admitted this worker: its log has this many lanes."""

    lanes: int


@dataclass(frozen=True, slots=True)
class OwnershipChanged(Event):
    """The group gave lanes to this worker, or revoked some; `owned` are all that it has now."""

    lanes: tuple[int, ...]
    owned: tuple[int, ...]

    @property
    def moved(self) -> str:
        """The lanes, for the line."""
        return ",".join(map(str, self.lanes)) or "none"

    @property
    def left(self) -> str:
        """All owned lanes, for the line."""
        return ",".join(map(str, self.owned)) or "none"


@dataclass(frozen=True, slots=True)
class LanesAssigned(OwnershipChanged):
    """The group gave lanes to this worker."""

    text = "lanes taken: {e.moved}; now owned: {e.left}"


@dataclass(frozen=True, slots=True)
class LanesRevoked(OwnershipChanged):
    """Lanes went back to the group, after `seconds`."""

    text = "lanes given back: {e.moved}, after {e.seconds:.1f} s; now owned: {e.left}"
    seconds: float


@dataclass(frozen=True, slots=True)
class RejoinStarted(LaneTrouble):
    """A commit had no answer: this worker leaves the group and joins as a new member, so that it is never sent twice."""

    level = logging.WARNING
    text = "lane {e.lane}: {e.why}; leaving the group to join as a new member"


@dataclass(frozen=True, slots=True)
class RejoinFailed(Event):
    """The group could not be joined again; another try follows."""

    level = logging.ERROR
    text = "the group can't be joined again: {e.reason}; try {e.attempt}"
    reason: str
    attempt: int


@dataclass(frozen=True, slots=True)
class LedgerUnreadable(Event):
    """A worker that has caught up could not read whether the others have."""

    text = "the ledger can't be read: {e.reason}"
    reason: str


@dataclass(frozen=True, slots=True)
class PagesBound(Event):
    """The worker's pages are at this URL."""

    text = "pages at {e.url}"
    url: str


@dataclass(frozen=True, slots=True)
class AlertRaised(Event):
    """An alert is in the tables: adledger.sinks.rules.AlertKind."""

    kind: str


@dataclass(frozen=True, slots=True)
class PeriodClosed(Event):
    """A billing period was closed: its start (UTC), and the rows that were written."""

    text = "period {e.period} is closed: {e.rows} final sums, {e.adjustments} adjustments booked"
    period: str
    rows: int
    adjustments: int


@dataclass(frozen=True, slots=True)
class PeriodHeld(Event):
    """Lanes hold a billing period open that others are past; once for each period and set of lanes."""

    level = logging.WARNING
    text = "period {e.period} is held open by lanes {e.behind}: `adledger periods status` shows since when, and what waits"
    period: str
    lanes: tuple[int, ...]

    @property
    def behind(self) -> str:
        """The lanes, for the line."""
        return ",".join(map(str, self.lanes))


@dataclass(frozen=True, slots=True)
class ClosingFailed(Event):
    """Periods can't be closed: both roads differ, or ClickHouse refused. Once for each reason; tried again every minute."""

    level = logging.ERROR
    text = "closing periods failed: {e.reason}; {e.remedy}"
    reason: str
    remedy: str


@dataclass(frozen=True, slots=True)
class PeriodsSeen(Measurement):
    """How far periods are closed (seconds since the epoch, 0: none is), and what waits; only the owner of lane 0 looks.

    `held`: lane -> when the ledger got its last row (seconds, 0: never). `waiting`: currency -> billable nanos.
    """

    closed_until: int = 0
    periods_waiting: int = 0
    held: Mapping[int, int] = field(default_factory=dict)
    waiting: Mapping[str, int] = field(default_factory=dict)
    failed: bool = False


@dataclass(frozen=True, slots=True)
class RulesNoticed(Event):
    """A notice about the rules in force."""

    text = "{e.what}"
    what: str


@dataclass(frozen=True, slots=True)
class RulesTrouble(RulesNoticed):
    """A problem with the rules in force that needs an operator."""

    level = logging.ERROR
