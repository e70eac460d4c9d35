"""What a comparison must be able to see: silence that could hide a change of the asked size is no pass."""

from collections.abc import Iterator, Mapping, Sequence

from adledger.loadtest.compare.change import METRICS, Change, ChangeKind
from adledger.loadtest.report.figures import number
from adledger.pipeline.errors import UsageError

ROUNDING = 1e-9
"""A tenth that was read from text may be a little less than the tenth that stands in METRICS."""


def must_see_of(texts: Sequence[str]) -> dict[str, float]:
    """Return metric -> relative change, of `10%` (every metric that is compared) and `METRIC=5%`; the last one counts.

    Raises UsageError: no percentage, no such metric, or a change so small that it would never be told.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, equals, size = text.rpartition("=")
        known = [metric for metric in METRICS if not equals or metric.name == name]
        if not known:
            names = ", ".join(metric.name for metric in METRICS)
            raise UsageError(f"--must-see {text}: {name} is not compared", remedy=f"name one of {names}")
        asked = _size(text, size)
        for metric in known:
            if asked < metric.effect_min - ROUNDING:
                raise UsageError(
                    f"--must-see {text}: less than {metric.effect_min:.0%} of {metric.title} is never told",
                    remedy=f"ask for at least {metric.effect_min:.0%}, or name the metric that matters: "
                    "--must-see METRIC=10%",
                )
            found[metric.name] = asked
    return found


def unseen(changes: Sequence[Change], asked: Mapping[str, float]) -> Iterator[str]:
    """Yield, in words, what was asked for and could have gone unseen. What is told as changed was seen."""
    for change in changes:
        size = asked.get(change.metric.name)
        if size is None or change.kind in {ChangeKind.WORSE, ChangeKind.BETTER}:
            continue
        title = change.metric.title
        if change.seen_from is None:
            yield f"{title}: {change.why}, so that no change could be seen"
        elif change.seen_from > size + ROUNDING:
            yield f"{title}: only changes from {number(change.seen_from * 100)} % are sure to be seen, not from {number(size * 100)} %"


def _size(text: str, size: str) -> float:
    try:
        asked = float(size.removesuffix("%")) / 100 if size.endswith("%") else 0.0
    except ValueError:
        asked = 0.0
    if not 0 < asked <= 1:
        raise UsageError(f"--must-see {text}: no change", remedy="e.g. --must-see 10%; up to 100%")
    return asked
