"""Which batches a period's closing covers, or which lanes hold it open: pure, from what the ledger says of each lane.

Every process computes the same result, at any time: a crossing batch is the first of its lane past a close, which no
later ledger row changes, and an operator override is fixed before the lanes' clocks are trusted (docs/adr/0024-periods.md).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adledger.schemas.periods import PERIOD_MS, CloseDelays
from adledger.schemas.wire import FUTURE_MS_MAX

NO_BATCH = 0
"""Batches are numbered from 1."""


@dataclass(frozen=True, slots=True)
class BillingPeriod:
    """A quarter of an hour: ms since the epoch, the end exclusive. `closes_at` is the watermark that no event in time is past."""

    start: int
    closes_at: int

    @classmethod
    def at(cls, time: int, delays: CloseDelays) -> "BillingPeriod":
        """Return the period that contains a time (ms)."""
        start = time // PERIOD_MS * PERIOD_MS
        return cls(start, delays.closes_at(start))

    @property
    def end(self) -> int:
        """The first millisecond after it."""
        return self.start + PERIOD_MS

    @property
    def first_clock(self) -> int:
        """The watermark before which no lane has read an event of it: events from further in the future are malformed."""
        return self.start - FUTURE_MS_MAX


@dataclass(frozen=True, slots=True)
class LaneMarks:
    """One lane, by the ledger. Batches are NO_BATCH where there is none (yet).

    `clock` (ms) and `last_batch` are the ledger's end when overrides were fixed: later rows don't count as passing.
    """

    lane: int
    last_batch: int
    clock: int
    from_batch: int  # the first that may have events of the period
    end_batch: int  # the first whose watermark has reached the period's end
    crossing_batch: int  # the first whose watermark is past its close
    partitions: int  # of the log, by the epochs up to the crossing batch


@dataclass(frozen=True, slots=True)
class LaneLeftOut:
    """An operator override: the lane counts up to a batch, whatever it reads later. `partitions` of the log when it was given."""

    override_id: str
    batch_no: int
    partitions: int


@dataclass(frozen=True, slots=True)
class ClosedLane:
    """A lane in a closing: its events in time count up to `included`, its late ones are booked up to `booked`."""

    lane: int
    included: int
    booked: int
    left_out: str = ""  # the override's id


@dataclass(frozen=True, slots=True)
class BooksSoFar:
    """What the closing before says. `partitions` 0 and no lanes: there is none."""

    partitions: int = 0
    lanes: Mapping[int, ClosedLane] | None = None

    def of(self, lane: int) -> ClosedLane:
        """Return a lane of the closing before; one that it lacks has nothing included."""
        return (self.lanes or {}).get(lane, ClosedLane(lane, NO_BATCH, NO_BATCH))


@dataclass(frozen=True, slots=True)
class HeldBy:
    """A lane that holds a period open. `clock` None: it has no ledger row."""

    lane: int
    clock: int | None


@dataclass(frozen=True, slots=True)
class LaneShare:
    """What a closing reads of a lane: batches [final_from, included] for the period, (booked_before, booked] for what was late."""

    closed: ClosedLane
    final_from: int
    booked_before: int


@dataclass(frozen=True, slots=True)
class PeriodPlan:
    """A period that may be closed with these shares, or (`held_by`) may not. `partitions` are the lanes of the log."""

    period: BillingPeriod
    partitions: int
    shares: Sequence[LaneShare]
    held_by: Sequence[HeldBy]
    too_early: bool

    @property
    def may_close(self) -> bool:
        """Whether nothing holds it open."""
        return not self.held_by and not self.too_early


def plan_period(
    period: BillingPeriod,
    marks: Mapping[int, LaneMarks],
    before: BooksSoFar,
    left_out: Mapping[int, LaneLeftOut],
    server_ms: int,
) -> PeriodPlan:
    """Return how a period is closed, or what holds it open.

    `server_ms`: it never closes before the server's own clock is past its close, so that log times from the future close
    nothing, and what is booked in the period of the server's clock comes in time.
    """
    passed = {lane for lane, of in marks.items() if of.clock > period.closes_at and of.crossing_batch}
    known = max([before.partitions, *(out.partitions for out in left_out.values())])
    partitions = _partitions(marks, passed - left_out.keys(), known)
    lanes = sorted({*range(partitions), *(before.lanes or {})})
    held = [
        HeldBy(lane, marks[lane].clock if lane in marks else None)
        for lane in lanes
        if lane not in passed and lane not in left_out
    ]
    shares = (
        [] if held else [_share(lane, marks.get(lane), before.of(lane), left_out.get(lane)) for lane in lanes]
    )
    return PeriodPlan(period, partitions, shares, held, too_early=server_ms <= period.closes_at)


def first_period(
    unmarked_clock: int, earliest_event: int | None, delays: CloseDelays
) -> tuple[BillingPeriod, int] | None:
    """Return the first period with final sums, and where the books begin (ms); None: not known yet.

    `unmarked_clock` is the latest watermark (ms) of batches whose events an older release did not mark: periods that close
    before it have no final sums. Without such batches (0) the books begin with time, and the first period that is not empty
    is that of `earliest_event`, the earliest one in time.
    """
    if unmarked_clock == 0:
        return None if earliest_event is None else (BillingPeriod.at(earliest_event, delays), 0)
    longest = max(step.delay_ms for step in delays.steps)
    period = BillingPeriod.at(max(0, unmarked_clock - longest - PERIOD_MS), delays)
    while period.closes_at < unmarked_clock:
        period = BillingPeriod.at(period.end, delays)
    return period, period.start


def _partitions(marks: Mapping[int, LaneMarks], passed: set[int], known: int) -> int:
    """Return how many lanes a period needs: what the lanes' epochs name up to their crossing batches, and at least `known`.

    A lane whose log got partitions after it had passed says nothing, so that a barrier which is written later changes nothing.
    """
    if not known:  # of a first closing that leaves no lane out: it closes nothing before lane 0 has passed
        known = marks[min(passed)].partitions if passed else _most(marks, list(marks))
    while True:
        more = max(known, _most(marks, [lane for lane in passed if lane < known]))
        if more == known:
            return known
        known = more


def _most(marks: Mapping[int, LaneMarks], lanes: Sequence[int]) -> int:
    return max((marks[lane].partitions for lane in lanes), default=0)


def _share(lane: int, marks: LaneMarks | None, before: ClosedLane, left_out: LaneLeftOut | None) -> LaneShare:
    """Return a lane's share. Nothing is counted back: a lane that an override leaves out keeps what the closing before included."""
    included = before.included
    if left_out is not None:
        included = max(included, left_out.batch_no)
    elif marks is not None:
        included = max(included, marks.crossing_batch)
    reached = included if marks is None or not marks.end_batch else min(included, marks.end_batch - 1)
    booked = max(before.booked, reached)
    override = "" if left_out is None else left_out.override_id
    final_from = marks.from_batch if marks is not None and marks.from_batch else included + 1
    return LaneShare(ClosedLane(lane, included, booked, override), final_from, before.booked)
