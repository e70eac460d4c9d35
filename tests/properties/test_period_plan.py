"""Which batches closings cover: every event is in exactly one book, and every closer, early or late, finds the same."""

from hypothesis import given, settings
from hypothesis import strategies as st

from adledger.pipeline.billing.plan import (
    BillingPeriod,
    BooksSoFar,
    LaneLeftOut,
    PeriodPlan,
    first_period,
    plan_period,
)
from adledger.pipeline.stages.periods import after_close_plain
from adledger.schemas.periods import PERIOD_MS, CloseDelay, CloseDelays
from adledger.schemas.wire import EVENT_TIME_MS_MIN, FUTURE_MS_MAX
from tests.support.plain_ledger import (
    SLOW_CLOCK_MS,
    PlainBatch,
    PlainEvent,
    books_of,
    closed_of,
    marks_of,
)

MINUTE_MS = 60_000
BEGIN = EVENT_TIME_MS_MIN // PERIOD_MS * PERIOD_MS
LANES, LANES_LATER = 2, 4
PERIODS = 12

delays = st.tuples(st.integers(1, 40), st.integers(1, PERIODS), st.integers(1, 40)).map(
    lambda d: CloseDelays(
        (CloseDelay(0, d[0] * MINUTE_MS), CloseDelay(BEGIN + d[1] * PERIOD_MS, d[2] * MINUTE_MS))
    )
)
steps = st.integers(0, 25).map(lambda minutes: minutes * MINUTE_MS) | st.sampled_from([0, 1, PERIOD_MS])
ages = st.integers(-FUTURE_MS_MAX, 70 * MINUTE_MS) | st.sampled_from([0, PERIOD_MS, -FUTURE_MS_MAX])


@st.composite
def batches(draw, lane: int, number: int, clock: int, partitions: int) -> PlainBatch:
    """A batch after `clock`: the last of its events, or an empty batch, sets the watermark."""
    after = clock + draw(steps)
    clocks = sorted(draw(st.lists(st.integers(clock, after), max_size=3)))
    if clocks:
        clocks[-1] = after
    events = tuple(PlainEvent(at - draw(ages), at) for at in clocks)
    return PlainBatch(lane, number, after, partitions, events)


@st.composite
def ledgers(draw) -> list[PlainBatch]:
    """Rows of two lanes in the order in which they are written; at some point four lanes, the new ones perhaps behind."""
    rows: list[PlainBatch] = []
    ends = dict.fromkeys(range(LANES), (0, BEGIN, LANES))
    barrier = draw(st.integers(0, 30))
    for at in range(draw(st.integers(8, 28))):
        if at == barrier:
            for lane in range(LANES):
                number, clock, _ = ends[lane]
                rows.append(PlainBatch(lane, number + 1, clock, LANES_LATER))
                ends[lane] = (number + 1, clock, LANES_LATER)
            for lane in range(LANES, LANES_LATER):
                parent = [BEGIN, *(r.clock for r in rows if r.lane == lane % LANES)]
                start = draw(st.sampled_from(parent))
                rows.append(PlainBatch(lane, 1, start, LANES_LATER))
                ends[lane] = (1, start, LANES_LATER)
        lane = draw(st.sampled_from(sorted(ends)))
        number, clock, partitions = ends[lane]
        row = draw(batches(lane, number + 1, clock, partitions))
        rows.append(row)
        ends[lane] = (row.batch_no, row.clock, partitions)
    return rows


class Closer:
    """Closes periods over a growing ledger, as the command does: overrides are fixed before a period is planned."""

    def __init__(self, delays: CloseDelays) -> None:
        self.delays = delays
        self.closed: list[PeriodPlan] = []
        self.first: BillingPeriod | None = None  # as the books say, which the first closer opens
        self.overrides: list[tuple[int, int, int, int, int]] = []
        """Lane, first and last period's start, batch, partitions."""

    def left_out(self, period: BillingPeriod) -> dict[int, LaneLeftOut]:
        found: dict[int, LaneLeftOut] = {}
        for number, (lane, first, last, batch_no, partitions) in enumerate(self.overrides):
            if first <= period.start <= last:
                found.setdefault(lane, LaneLeftOut(f"o{number}", batch_no, partitions))
        return found

    def next(self, seen: list[PlainBatch]) -> BillingPeriod | None:
        if self.closed:
            return BillingPeriod.at(self.closed[-1].period.end, self.delays)
        if self.first is None:
            in_time = [
                e.time for r in seen for e in r.events if not after_close_plain(e.time, e.clock, self.delays)
            ]
            found = first_period(0, min(in_time, default=None), self.delays)
            self.first = found[0] if found else None
        return self.first

    def plan(self, ledger: list[PlainBatch], seen: list[PlainBatch]) -> PeriodPlan | None:
        period = self.next(seen)
        if period is None:
            return None
        before = books_of(self.closed[-1]) if self.closed else BooksSoFar()
        marks = marks_of(ledger, period, seen)
        return plan_period(period, marks, before, self.left_out(period), SLOW_CLOCK_MS)

    def close(self, seen: list[PlainBatch], periods_max: int) -> None:
        for _ in range(periods_max):
            plan = self.plan(seen, seen)
            if plan is None or not plan.may_close:
                return
            self.closed.append(plan)


@st.composite
def closings(draw) -> tuple[list[PlainBatch], Closer]:
    """A ledger that was closed while it grew, sometimes without a lane."""
    ledger = draw(ledgers())
    closer = Closer(draw(delays))
    for end in range(1, len(ledger) + 1):
        seen = ledger[:end]
        if not draw(st.integers(0, 2)):
            plan = closer.plan(seen, seen)
            if plan is not None and plan.held_by and draw(st.booleans()):
                lane = draw(st.sampled_from([h.lane for h in plan.held_by]))
                last = plan.period.start + draw(st.integers(0, 3)) * PERIOD_MS
                batch_no = max((r.batch_no for r in seen if r.lane == lane), default=0)
                partitions = max(r.partitions for r in seen)
                closer.overrides.append((lane, plan.period.start, last, batch_no, partitions))
            closer.close(seen, draw(st.integers(1, 4)))
    return ledger, closer


@settings(max_examples=100, deadline=None)
@given(closings())
def test_each_event_is_in_one_book(made):
    """An event of a closed period, in a batch that was booked, is in its final sums or in one adjustment, of a later period."""
    ledger, closer = made
    plans = {plan.period.start: plan for plan in closer.closed}
    if not plans:
        return
    last = closer.closed[-1]
    for row in ledger:
        for event in row.events:
            start = event.time // PERIOD_MS * PERIOD_MS
            if start > last.period.start:
                continue
            late = after_close_plain(event.time, event.clock, closer.delays)
            of = closed_of(plans[start], row.lane) if start in plans else None
            read = [s for s in plans[start].shares if s.closed.lane == row.lane] if start in plans else []
            in_final = not late and any(s.final_from <= row.batch_no <= s.closed.included for s in read)
            booked = [
                plan.period.start
                for plan in closer.closed
                for share in plan.shares
                if share.closed.lane == row.lane
                and share.booked_before < row.batch_no <= share.closed.booked
                and start < plan.period.start
                and (late or row.batch_no > (of.included if of else 0))
            ]
            assert len(booked) + in_final <= 1
            if row.batch_no <= closed_of(last, row.lane).booked:
                assert len(booked) + in_final == 1, (row, event)


@settings(max_examples=100, deadline=None)
@given(closings())
def test_closing_later_gives_the_same(made):
    """A closer that comes when the ledger is complete, with the same overrides and books, finds the same batches for every period."""
    ledger, closer = made
    again = Closer(closer.delays)
    again.overrides, again.first = closer.overrides, closer.first
    for plan in closer.closed:
        later = again.plan(ledger, ledger)
        assert later is not None
        assert (later.period, later.partitions) == (plan.period, plan.partitions), (
            again.overrides,
            plan,
            later,
        )
        assert [s.closed for s in later.shares] == [s.closed for s in plan.shares], (
            again.overrides,
            plan.period,
            later.held_by,
        )
        again.closed.append(later)


@settings(max_examples=60, deadline=None)
@given(closings())
def test_what_a_closing_includes_never_shrinks(made):
    """Periods follow on each other without a gap, and a lane's included and booked batches only grow."""
    _, closer = made
    for before, plan in zip(closer.closed, closer.closed[1:], strict=False):
        assert plan.period.start == before.period.end
        for share in before.shares:
            after = closed_of(plan, share.closed.lane)
            assert after.included >= share.closed.included
            assert after.booked >= share.closed.booked


@given(ledgers(), delays)
def test_a_lane_that_is_not_past_holds(ledger, delays):
    """Without an override a period closes only when the watermark of each lane is past its close, not at it."""
    closer = Closer(delays)
    closer.close(ledger, PERIODS)
    clocks = {row.lane: row.clock for row in ledger}
    for plan in closer.closed:
        assert all(clocks[share.closed.lane] > plan.period.closes_at for share in plan.shares)
    held = closer.plan(ledger, ledger)
    if held is not None and held.held_by:
        assert {h.lane for h in held.held_by} >= {
            lane for lane in range(LANES) if clocks.get(lane, 0) <= held.period.closes_at
        }


@given(st.integers(0, PERIODS), delays)
def test_a_period_waits_for_the_servers_clock(number, delays):
    """Watermarks from the future close nothing: the server's own clock must be past the close too."""
    period = BillingPeriod.at(BEGIN + number * PERIOD_MS, delays)
    ledger = [PlainBatch(0, 1, period.closes_at + 1, 1)]
    marks = marks_of(ledger, period, ledger)
    for server_ms, may_close in ((period.closes_at, False), (period.closes_at + 1, True)):
        assert plan_period(period, marks, BooksSoFar(), {}, server_ms).may_close is may_close


@given(st.integers(1, PERIODS * PERIOD_MS), delays)
def test_unmarked_batches_are_before_the_books(clock, delays):
    """The books begin with the first period that no unmarked batch is past the close of."""
    found = first_period(BEGIN + clock, None, delays)
    assert found is not None
    period, begin = found
    assert begin == period.start
    assert period.closes_at >= BEGIN + clock
    assert BillingPeriod.at(period.start - 1, delays).closes_at < BEGIN + clock or period.start == 0
