"""A ledger in memory: batches of lanes with their watermarks and events, and what closings read of it, in plain Python."""

from collections.abc import Mapping
from dataclasses import dataclass

from adledger.pipeline.billing.plan import BillingPeriod, BooksSoFar, ClosedLane, LaneMarks, PeriodPlan

SLOW_CLOCK_MS = 2**52


@dataclass(frozen=True)
class PlainEvent:
    """One event of a lane: its time and the watermark at it (ms)."""

    time: int
    clock: int


@dataclass(frozen=True)
class PlainBatch:
    """A ledger row, and the batch's events."""

    lane: int
    batch_no: int
    clock: int
    partitions: int
    events: tuple[PlainEvent, ...] = ()


def marks_of(ledger: list[PlainBatch], period: BillingPeriod, seen: list[PlainBatch]) -> dict[int, LaneMarks]:
    """Return the marks of a period: lanes' ends by the rows in `seen`, batches by those in `ledger`."""
    found = {}
    for lane in {row.lane for row in seen}:
        rows = sorted((r for r in ledger if r.lane == lane), key=lambda r: r.batch_no)
        end = max((r for r in seen if r.lane == lane), key=lambda r: r.batch_no)

        def first(clock: int, rows: list[PlainBatch] = rows) -> int:
            return next((r.batch_no for r in rows if r.clock >= clock), 0)

        crossing = first(period.closes_at + 1)
        upto = [r.partitions for r in rows if not crossing or r.batch_no <= crossing]
        found[lane] = LaneMarks(
            lane, end.batch_no, end.clock, first(period.first_clock), first(period.end), crossing, max(upto)
        )
    return found


def books_of(plan: PeriodPlan) -> BooksSoFar:
    """Return what the next closing knows of this one."""
    return BooksSoFar(plan.partitions, {s.closed.lane: s.closed for s in plan.shares})


def closed_of(plan: PeriodPlan, lane: int) -> ClosedLane:
    """Return a lane of a closing; one that it lacks has nothing included."""
    lanes: Mapping[int, ClosedLane] = {s.closed.lane: s.closed for s in plan.shares}
    return lanes.get(lane, ClosedLane(lane, 0, 0))
