"""Student's t distribution, for real degrees of freedom: its two tails, and the point that leaves so much in them."""

import math
from statistics import NormalDist

PRECISION = 1e-12
STEPS_MAX = 500
"""Of the continued fraction, and of Newton's method; both converge long before."""

_TINY = 1e-300


def two_tails(t: float, degrees: float) -> float:
    """Return P(|T| >= |t|). `degrees` is positive."""
    return _incomplete_beta(degrees / (degrees + t * t), degrees / 2, 0.5)


def quantile(tails: float, degrees: float) -> float:
    """Return t with P(|T| >= t) = `tails`, 0 < tails < 1.

    By Newton's method from the normal distribution's point, which is always nearer to 0: the tails are convex there, so
    that every step comes closer from the same side.
    """
    t = NormalDist().inv_cdf(1 - tails / 2)
    for _ in range(STEPS_MAX):
        step = (two_tails(t, degrees) - tails) / (2 * _density(t, degrees))
        t += step
        if step <= PRECISION * t:
            break
    return t


def _density(t: float, degrees: float) -> float:
    log_front = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    return math.exp(log_front - (degrees + 1) / 2 * math.log1p(t * t / degrees))


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
