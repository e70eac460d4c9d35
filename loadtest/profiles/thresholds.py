"""Thresholds, in k6's words: `p(99)<5000` on a metric, which holds or is crossed; `abort_on_fail` ends the run."""

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from adledger.loadtest.results.names import METRICS
from adledger.loadtest.results.run_folder import ThresholdResult

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le, ">=": operator.ge, "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt,
}  # fmt: skip

_EXPRESSION = re.compile(r"\s*([a-z]+|p\(\d{1,2}(?:\.\d+)?\))\s*(<=|>=|==|!=|<|>)\s*(-?\d+(?:\.\d+)?)\s*")
_PLAIN = ("value", "count")
"""Aggregations of a metric that is one number."""

EXACT_METRIC = "unequal_rows"


@dataclass(frozen=True, slots=True)
class Threshold:
    """`metric` aggregated by `aggregation`, compared with `bound`. `name` is the metric's in results.names.METRICS."""

    metric: str
    aggregation: str
    comparison: str
    bound: float
    abort_on_fail: bool = False
    delay_seconds: float = 0.0

    @property
    def name(self) -> str:
        """The metric's name in a summary."""
        return self.metric if self.aggregation in _PLAIN else f"{self.metric}.{self.aggregation}"

    @property
    def expression(self) -> str:
        """Its text in a profile."""
        return f"{self.aggregation}{self.comparison}{self.bound:g}"

    def holds(self, value: float) -> bool:
        """Whether it holds for a value."""
        return OPERATORS[self.comparison](value, self.bound)

    def result(self, metrics: Mapping[str, float | None], *, aborted: bool = False) -> ThresholdResult:
        """Return its result. Without a measurement it does not hold, nor where it ended the run."""
        value = metrics.get(self.name)
        return ThresholdResult(
            metric=self.metric, expression=self.expression, value=value,
            held=value is not None and self.holds(value) and not aborted,
            abort_on_fail=self.abort_on_fail, aborted=aborted,
        )  # fmt: skip


EXACT = Threshold(EXACT_METRIC, "count", "<=", 0)
"""Every run that is verified has it: a system that counts wrongly does not hold, however fast."""


def parse_threshold(
    metric: str, expression: object, *, abort_on_fail: bool = False, delay_seconds: float = 0.0
) -> Threshold:
    """Return the threshold of a profile's text. Raises ValueError."""
    match = _EXPRESSION.fullmatch(expression) if isinstance(expression, str) else None
    if match is None:
        raise ValueError(f"{expression!r} is no threshold")
    threshold = Threshold(
        metric, match[1], match[2], float(match[3]), abort_on_fail=abort_on_fail, delay_seconds=delay_seconds
    )
    if threshold.name not in METRICS:
        known = [name.partition(".")[2] or "count" for name in METRICS if name.partition(".")[0] == metric]
        raise ValueError(f"{metric} has no {threshold.aggregation}: it has {', '.join(known)}")
    return threshold
