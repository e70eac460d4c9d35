"""Axes: round numbers for their ticks, and fewer points where there are more seconds than pixels."""

import math
from collections.abc import Sequence

TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200)
"""Seconds between ticks of a time axis."""

Values = Sequence[float | None]


def ticks(high: float, count_max: int = 5) -> tuple[float, ...]:
    """Return round numbers from 0 to the first that is not below `high`, at most `count_max` + 1 of them."""
    if high <= 0:
        return 0.0, 1.0
    raw = high / count_max
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 2.5, 5, 10) if power * factor >= raw * (1 - 1e-9))
    return tuple(round(step * i, 12) for i in range(math.ceil(high / step - 1e-9) + 1))


def time_ticks(low: float, high: float, count_max: int = 6) -> tuple[float, ...]:
    """Return round times within [low, high], in seconds; 0 is one of them where it is within."""
    step = next((s for s in TIME_STEPS if (high - low) / s <= count_max), TIME_STEPS[-1])
    return tuple(float(t) for t in range(math.ceil(low / step) * step, math.floor(high) + 1, step))


def bucket_size(seconds: int, points_max: int) -> int:
    """Return how many seconds make one point, so that at most `points_max` points are drawn."""
    return max(1, math.ceil(seconds / points_max))


def largest(values: Values, size: int) -> tuple[float | None, ...]:
    """Return the largest value of each bucket; None where it has none."""
    return tuple(max(known, default=None) for known in _buckets(values, size))


def mean(values: Values, size: int) -> tuple[float | None, ...]:
    """Return the mean of each bucket; None where it has no value."""
    return tuple(sum(known) / len(known) if known else None for known in _buckets(values, size))


def _buckets(values: Values, size: int) -> list[list[float]]:
    return [
        [value for value in values[at : at + size] if value is not None] for at in range(0, len(values), size)
    ]
