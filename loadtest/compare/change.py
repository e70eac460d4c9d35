"""Telling change from noise: runs of A against runs of B, metric by metric.

Welch's test on the logarithms of the runs' values: noise of load tests is relative, and the two sides may differ in noise.
A change is reported only where both hold: its confidence interval excludes zero, and it is at least `effect_min`, since a
small change does not matter even when it is real. The error is divided among the metrics, so that comparing A with A
reports a change in at most ERROR_MAX of all comparisons, however the metrics depend on each other.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from scipy import special

RUNS_MIN = 3
"""Of each side. Fewer do not show the noise."""

ERROR_MAX = 0.02
"""The share of comparisons of A with A that report any change, at most."""

NOISE_MIN = 0.002
"""The smallest standard deviation that is assumed of a run's value: values that happen to agree prove no precision."""

POWER = 0.8
"""`detectable_from` is the change that this share of such comparisons reports."""


class ChangeKind(StrEnum):
    """How a metric changed."""

    WORSE = "worse"
    BETTER = "better"
    SAME = "no change"
    UNKNOWN = "not comparable"


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric that is compared: its name in a summary, which way is worse, its share of ERROR_MAX.

    `effect_min` is relative: 0.03 is 3 %.
    """

    name: str
    title: str
    effect_min: float
    error: float
    higher_is_better: bool = False


METRICS = (
    Metric("worker_cpu_us_per_event", "worker CPU per event", 0.03, 0.01),
    Metric("freshness_ms.med", "freshness p50", 0.10, 0.0025),
    Metric("freshness_ms.p(99)", "freshness p99", 0.10, 0.0025),
    Metric("consumed_rate.mean", "events queryable a second", 0.03, 0.0025, higher_is_better=True),
    Metric("worker_memory_bytes.max", "memory of workers", 0.10, 0.0025),
)
"""CPU has half of the error: it hardly depends on what else the machine does. The sum is ERROR_MAX."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What was found of a metric: A's value against B's, geometric means. Changes are relative: 0.1 is 10 % more than B.

    `low` and `high` bound the change at the metric's own error; `detectable_from` is the minimum detectable effect. All are
    None where the kind is UNKNOWN, and `why` says why.
    """

    metric: Metric
    kind: ChangeKind
    value_a: float | None = None
    value_b: float | None = None
    change: float | None = None
    low: float | None = None
    high: float | None = None
    detectable_from: float | None = None
    p: float | None = None
    why: str = ""


def change_of(metric: Metric, a: Sequence[float | None], b: Sequence[float | None]) -> Change:
    """Compare the values of A's runs with those of B's, at least RUNS_MIN each."""
    known_a, known_b = _positive(a), _positive(b)
    if min(len(known_a), len(known_b)) < RUNS_MIN or len(known_a) < len(a) or len(known_b) < len(b):
        return Change(metric=metric, kind=ChangeKind.UNKNOWN, why="not every run measured it")
    logs_a, logs_b = [math.log(v) for v in known_a], [math.log(v) for v in known_b]
    error_a, error_b = (_variance(logs) / len(logs) for logs in (logs_a, logs_b))
    spread = math.sqrt(error_a + error_b)
    degrees = (error_a + error_b) ** 2 / (
        error_a**2 / (len(logs_a) - 1) + error_b**2 / (len(logs_b) - 1)
    )  # Welch and Satterthwaite
    mean_a, mean_b = statistics.fmean(logs_a), statistics.fmean(logs_b)
    difference = mean_a - mean_b
    reach = two_sided_t(metric.error, degrees) * spread
    p = 2 * float(special.stdtr(degrees, -abs(difference / spread)))
    change = math.expm1(difference)
    real = abs(difference) > reach and abs(change) >= metric.effect_min
    worse = (change > 0) != metric.higher_is_better
    power_reach = two_sided_t(2 * (1 - POWER), degrees) * spread
    return Change(
        metric=metric, kind=(ChangeKind.WORSE if worse else ChangeKind.BETTER) if real else ChangeKind.SAME,
        value_a=math.exp(mean_a), value_b=math.exp(mean_b), change=change,
        low=math.expm1(difference - reach), high=math.expm1(difference + reach),
        detectable_from=max(metric.effect_min, math.expm1(reach + power_reach)), p=p,
    )  # fmt: skip


def two_sided_t(error: float, degrees: float) -> float:
    """Return t with P(|T| >= t) = `error` for Student's T."""
    return -float(special.stdtrit(degrees, error / 2))


def _positive(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None and value > 0]


def _variance(logs: Sequence[float]) -> float:
    mean = statistics.fmean(logs)
    return max(sum((log - mean) ** 2 for log in logs) / (len(logs) - 1), NOISE_MIN**2)
