"""Which book an event belongs to: its period's final sums, or, once that has closed, the adjustments."""

import numpy as np

from adledger.pipeline.kernels.periods import mark
from adledger.pipeline.records.columns import I64, U16, EventColumns
from adledger.schemas.periods import PERIOD_MS, CloseDelays
from adledger.schemas.wire import Flag

_BIT = np.uint16(1 << Flag.AFTER_CLOSE)


def mark_after_close(columns: EventColumns, clock: I64, delays: CloseDelays) -> None:
    """Set AFTER_CLOSE in the flags of n events where the watermark at the event is past its period's close."""
    mark(columns.event_time, clock, *delays.arrays, columns.flags)


def marks_follow(columns: EventColumns, clock: I64, delays: CloseDelays) -> bool:
    """Whether AFTER_CLOSE is set exactly where `mark_after_close` sets it: not so in rows of releases without the flag."""
    expected = columns.flags & ~_BIT
    mark(columns.event_time, clock, *delays.arrays, expected)
    return bool(np.array_equal(expected, columns.flags))


def after_close(flags: U16) -> U16:
    """Return 1 where AFTER_CLOSE is set, else 0."""
    return flags >> np.uint16(Flag.AFTER_CLOSE) & np.uint16(1)


def after_close_plain(event_time: int, clock: int, delays: CloseDelays) -> bool:
    """Return whether one event came after its period closed: the plain twin."""
    return clock > delays.closes_at(event_time)


def past_close_sql(delays: CloseDelays) -> str:
    """Return a condition of ClickHouse for rows of `events` that came after their period closed, by the rule, not the flag."""
    begin = f"intDiv(toUnixTimestamp64Milli(event_time), {PERIOD_MS}) * {PERIOD_MS}"
    later = (f"{begin} >= {step.from_ms}, {step.delay_ms}" for step in reversed(delays.steps[1:]))
    delay = (
        f"multiIf({', '.join(later)}, {delays.steps[0].delay_ms})"
        if delays.steps[1:]
        else f"{delays.steps[0].delay_ms}"
    )
    return f"(toUnixTimestamp64Milli(lane_clock) > {begin} + {PERIOD_MS} + {delay})"


def misplaced_sql(delays: CloseDelays) -> str:
    """Return a condition of ClickHouse for rows of `events` whose flag is not what the rule gives."""
    return f"bitTest(flags, {Flag.AFTER_CLOSE:d}) != {past_close_sql(delays)}"
