"""A worker's pages, read over HTTP: whether it is ready, and its metrics as numbers."""

import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

ANSWER_SECONDS_MAX = 2.0


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a worker has counted since its start. `stages`: stage -> (batches, seconds)."""

    inserts: float
    doubts: float
    stages: Mapping[str, tuple[float, float]]


def is_ready(url: str) -> bool | None:
    """Return the answer of a worker's /readyz; None where it does not answer."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=ANSWER_SECONDS_MAX):  # noqa: S310 - a worker's page
            return True
    except urllib.error.HTTPError as answer:
        answer.close()
        return False
    except (OSError, ValueError):  # the URL may come from a flag
        return None


def metric_of(url: str, name: str) -> float:
    """Return a counter summed over its labels; 0 where the worker does not answer."""
    return sum(value for sample, _, value in _samples(url) or () if sample == name)


def metrics_of(url: str) -> Metrics | None:
    """Scrape a worker; None where it does not answer in time."""
    samples = _samples(url)
    if samples is None:
        return None
    totals: dict[str, float] = {}
    stages: dict[str, list[float]] = {}
    for name, labels, value in samples:
        if name in {"adledger_inserts_total", "adledger_doubts_total"}:
            totals[name] = totals.get(name, 0.0) + value
        elif name.startswith("adledger_stage_duration_seconds_") and name.endswith(("_count", "_sum")):
            stages.setdefault(labels["stage"], [0.0, 0.0])[name.endswith("_sum")] += value
    return Metrics(
        totals.get("adledger_inserts_total", 0.0), totals.get("adledger_doubts_total", 0.0),
        {stage: (count, seconds) for stage, (count, seconds) in stages.items()},
    )  # fmt: skip


def _samples(url: str) -> list[tuple[str, Mapping[str, str], float]] | None:
    try:
        with urllib.request.urlopen(f"{url}/metrics", timeout=ANSWER_SECONDS_MAX) as answer:  # noqa: S310 - a worker's page
            text = answer.read().decode("utf-8", "replace")
    except (OSError, ValueError):
        return None
    return list(_parsed(text))


def _parsed(text: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value
