"""The minimum detectable effect of a comparison: finding no change passes only if a change of that size would have been found."""

from collections.abc import Iterator, Mapping, Sequence

from adledger.loadtest.compare.change import METRICS, Change, ChangeKind
from adledger.loadtest.report.figures import number
from adledger.pipeline.errors import UsageError

OPTION = "--min-detectable-effect"
ROUNDING = 1e-9
"""A tenth parsed from text may be slightly less than the tenth in METRICS."""


def min_detectable_effects(texts: Sequence[str]) -> dict[str, float]:
    """Return metric -> relative change, of `10%` (every metric that is compared) and `METRIC=5%`; the last one counts.

    Raises UsageError: no percentage, no such metric, or a change so small that it is never reported.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, equals, size = text.rpartition("=")
        known = [metric for metric in METRICS if not equals or metric.name == name]
        if not known:
            names = ", ".join(metric.name for metric in METRICS)
            raise UsageError(f"{OPTION} {text}: {name} is not compared", remedy=f"name one of {names}")
        asked = _size(text, size)
        for metric in known:
            if asked < metric.effect_min - ROUNDING:
                raise UsageError(
                    f"{OPTION} {text}: a change of {metric.title} below {metric.effect_min:.0%} is never reported",
                    remedy=f"ask for at least {metric.effect_min:.0%}, or name the metric that matters: "
                    f"{OPTION} METRIC=10%",
                )
            found[metric.name] = asked
    return found


def undetectable(changes: Sequence[Change], asked: Mapping[str, float]) -> Iterator[str]:
    """Yield, in words, which of the requested effects could have been missed. A reported change was not."""
    for change in changes:
        size = asked.get(change.metric.name)
        if size is None or change.kind in {ChangeKind.WORSE, ChangeKind.BETTER}:
            continue
        title = change.metric.title
        if change.detectable_from is None:
            yield f"{title}: {change.why}, so no change can be detected"
        elif change.detectable_from > size + ROUNDING:
            yield (
                f"{title}: changes are detectable from {number(change.detectable_from * 100)} %, "
                f"not from {number(size * 100)} %"
            )


def _size(text: str, size: str) -> float:
    try:
        asked = float(size.removesuffix("%")) / 100 if size.endswith("%") else 0.0
    except ValueError:
        asked = 0.0
    if not 0 < asked <= 1:
        raise UsageError(f"{OPTION} {text}: not a percentage", remedy=f"e.g. {OPTION} 10%; up to 100%")
    return asked
