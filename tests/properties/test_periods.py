"""Which book an event belongs to: the kernel marks what the definition says, and nobody who looks later disagrees."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.records.columns import EventColumns
from adledger.pipeline.stages.periods import after_close, after_close_plain, mark_after_close, marks_follow
from adledger.schemas.periods import PERIOD_MS, CloseDelay, CloseDelays
from adledger.schemas.wire import EVENT_TIME_MS_MIN, Flag

MINUTE_MS = 60_000
FIRST_PERIOD = EVENT_TIME_MS_MIN // PERIOD_MS
PERIODS = 6
"""Events, watermarks and steps of the delay lie so close together that all of their orders occur."""

steps = st.dictionaries(
    st.integers(FIRST_PERIOD, FIRST_PERIOD + PERIODS), st.integers(1, 90), max_size=3
).flatmap(
    lambda later: st.integers(1, 90).map(
        lambda first: CloseDelays(
            tuple(
                CloseDelay(period * PERIOD_MS, minutes * MINUTE_MS)
                for period, minutes in [(0, first), *sorted(later.items())]
            )
        )
    )
)
times = st.integers(0, PERIODS * PERIOD_MS) | st.integers(0, PERIODS).map(lambda n: n * PERIOD_MS)
edges = st.sampled_from([-1, 0, 1])
watermarks = st.integers(0, 3 * PERIODS * PERIOD_MS) | st.tuples(st.integers(0, 3 * 90), edges).map(
    lambda at: at[0] * MINUTE_MS + at[1]
)
events = st.lists(st.tuples(times, watermarks, st.integers(0, 2**16 - 1)), max_size=40)


def columns_of(rows: list[tuple[int, int, int]]) -> tuple[EventColumns, np.ndarray]:
    columns = EventColumns.zeros(len(rows))
    columns.event_time[:] = [EVENT_TIME_MS_MIN + time for time, _, _ in rows]
    columns.flags[:] = [flags & ~(1 << Flag.AFTER_CLOSE) for _, _, flags in rows]
    return columns, np.array([EVENT_TIME_MS_MIN + clock for _, clock, _ in rows], np.int64)


@given(events, steps)
def test_the_kernel_marks_what_is_defined(rows, delays):
    """Exactly the events whose watermark is past their period's end and its delay are marked; other flags stay."""
    columns, clock = columns_of(rows)
    before = columns.flags.copy()
    mark_after_close(columns, clock, delays)
    expected = [
        after_close_plain(int(time), int(at), delays)
        for time, at in zip(columns.event_time, clock, strict=True)
    ]
    assert after_close(columns.flags).tolist() == expected
    assert np.array_equal(columns.flags & ~np.uint16(1 << Flag.AFTER_CLOSE), before)


@given(events.filter(bool), steps, st.data())
def test_a_mark_that_is_not_the_rules_is_noticed(rows, delays, data):
    """Rows read back follow the rule only if every one does: an older release's, and altered ones, don't."""
    columns, clock = columns_of(rows)
    mark_after_close(columns, clock, delays)
    assert marks_follow(columns, clock, delays)
    columns.flags[data.draw(st.integers(0, len(rows) - 1))] ^= np.uint16(1 << Flag.AFTER_CLOSE)
    assert not marks_follow(columns, clock, delays)


@given(times, steps, st.lists(watermarks, min_size=1, max_size=10))
def test_no_event_in_time_comes_once_a_lane_is_past_the_close(time, delays, clocks):
    """Once a lane's watermark is past a period's close, whatever it reads of that period is after close."""
    event_time = EVENT_TIME_MS_MIN + time
    seen = sorted(EVENT_TIME_MS_MIN + clock for clock in clocks)
    passed = [clock > delays.closes_at(event_time) for clock in seen]
    late = [after_close_plain(event_time, clock, delays) for clock in seen]
    assert passed == late == sorted(late)


@given(times, steps)
def test_all_events_of_a_period_close_together(time, delays):
    """The close is the period's: after its end, and the same for its first and last millisecond."""
    begin = (EVENT_TIME_MS_MIN + time) // PERIOD_MS * PERIOD_MS
    closes = {delays.closes_at(at) for at in (begin, begin + PERIOD_MS - 1, EVENT_TIME_MS_MIN + time)}
    assert len(closes) == 1
    assert closes.pop() > begin + PERIOD_MS
