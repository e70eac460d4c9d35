"""Student's t distribution, for real degrees of freedom: its two tails, and the point that leaves so much in them."""

import math

PRECISION = 1e-13
STEPS_MAX = 500
"""Of the continued fraction, and of halving an interval; both converge long before."""

_TINY = 1e-300


def two_tails(t: float, degrees: float) -> float:
    """Return P(|T| >= |t|). `degrees` is positive."""
    return _incomplete_beta(degrees / (degrees + t * t), degrees / 2, 0.5)


def quantile(tails: float, degrees: float) -> float:
    """Return t with P(|T| >= t) = `tails`, 0 < tails < 1, by halving."""
    low, high = 0.0, 1.0
    while two_tails(high, degrees) > tails:
        low, high = high, high * 2
    for _ in range(STEPS_MAX):
        middle = (low + high) / 2
        if high - low <= PRECISION * high:
            break
        low, high = (middle, high) if two_tails(middle, degrees) > tails else (low, middle)
    return high


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """Return the regularised incomplete beta function I_x(a, b)."""
    if x <= 0 or x >= 1:
        return min(1.0, max(0.0, x))
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    if x < (a + 1) / (a + b + 2):  # where the fraction converges fast; else its mirror
        return math.exp(log_front) * _fraction(x, a, b) / a
    return 1 - math.exp(log_front) * _fraction(1 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """Return the continued fraction of the incomplete beta function, by Lentz's method (DLMF 8.17.22)."""
    c, d = 1.0, 1 / _away_from_zero(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, STEPS_MAX):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for part in (even, odd):
            d = 1 / _away_from_zero(1 + part * d)
            c = _away_from_zero(1 + part / c)
            value *= c * d
        if abs(c * d - 1) < PRECISION:
            break
    return value


def _away_from_zero(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
