"""From samples to metrics, thresholds and a verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adledger.loadtest.profiles.thresholds import EXACT, Threshold
from adledger.loadtest.results.names import PARTS
from adledger.loadtest.results.run_folder import (
    FaultResult,
    RunVerdict,
    Second,
    ThresholdResult,
    Verification,
)
from adledger.loadtest.runner.samples import Samples

GENERATOR_BEHIND_MS_MAX = 1_000
"""A generator later than this did not produce the requested load."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Other facts that a verdict depends on. `wrong`: what makes the run invalid, in words."""

    seconds: float
    paced: bool
    dropped: int
    go_ms: int
    drained_seconds: float | None
    interrupted: bool
    verify_wanted: bool
    wrong: tuple[str, ...]


def metrics_so_far(samples: Samples) -> dict[str, float | None]:
    """Return the metrics that are known during the run: those that abort_on_fail can use."""
    totals = samples.totals
    lines = samples.seconds
    return {
        **samples.histograms.metrics(),
        "events_sent": totals.acknowledged,
        "lag_records.max": _max(lines, "lag_records"),
        "behind_ms.max": totals.behind_ms,
        "generator_behind_ms.max": totals.generator_behind_ms,
        "batch_rows.mean": totals.batch_rows / totals.batches if totals.batches else None,
        "parts.max": _max(lines, "parts"),
        **{f"{part}_memory_bytes.max": _max(lines, f"{part}_memory_bytes") for part in PARTS},
    }


def metrics_of(samples: Samples, facts: RunFacts, verification: Verification) -> dict[str, float | None]:
    """Return every metric of a summary (results.names.METRICS)."""
    lines = samples.seconds
    loaded = [line for line in lines if 0 < (line["second"] or 0) <= facts.seconds]
    totals = samples.totals
    consuming = (totals.last_consumed_ms - facts.go_ms) / 1_000
    cpu = [line["worker_cpu_cores"] for line in lines if line["worker_cpu_cores"] is not None]
    consumed_after_first = totals.consumed - (lines[0]["consumed"] or 0 if lines else 0)
    return {
        **metrics_so_far(samples),
        "dropped_events": facts.dropped,
        "send_errors": sum(1 for text in facts.wrong if text.startswith("delivery")),
        "rate.mean": _mean(loaded, "acknowledged"),
        "consumed_rate.mean": totals.consumed / consuming if consuming > 0 else None,
        "drain_seconds": facts.drained_seconds,
        "inserts_per_second.mean": _mean(loaded, "inserts"),
        **{f"{part}_cpu_cores.mean": _mean(loaded, f"{part}_cpu_cores") for part in PARTS},
        "worker_cpu_us_per_event": sum(cpu) / consumed_after_first * 1e6
        if cpu and consumed_after_first > 0
        else None,
        EXACT.metric: verification.rows_wrong + verification.counts_wrong if verification.ran else None,
    }


def threshold_results(
    thresholds: Sequence[Threshold],
    aborted: Sequence[Threshold],
    metrics: Mapping[str, float | None],
    *,
    verified: bool,
) -> tuple[ThresholdResult, ...]:
    """Return every threshold's result; a verified run has one more, that counts are exact."""
    return tuple(
        threshold.result(metrics, aborted=threshold in aborted)
        for threshold in (*thresholds, *((EXACT,) if verified else ()))
    )


def verdict_of(
    results: Sequence[ThresholdResult], faults: Sequence[FaultResult], verification: Verification, facts: RunFacts,
    metrics: Mapping[str, float | None],
) -> tuple[RunVerdict, tuple[str, ...]]:  # fmt: skip
    """Return the verdict, with reasons for any but `held`.

    An interrupted run has that verdict whatever it measured. A run that did not produce the requested load is invalid.
    Crossed thresholds outrank a verification that did not run, since they are certain.
    """
    if facts.interrupted:
        return RunVerdict.INTERRUPTED, ("interrupted: what was measured until then is kept",)
    wrong = [*facts.wrong, *_faults_without_effect(faults)]
    behind = metrics.get("generator_behind_ms.max") or 0
    if facts.paced and behind > GENERATOR_BEHIND_MS_MAX:
        wrong.append(
            f"the generator fell {behind:,.0f} ms behind its schedule: use more --senders or a lower rate"
        )
    if wrong:
        return RunVerdict.INVALID, tuple(wrong)
    crossed = [r for r in results if not r.held]
    if crossed:
        return RunVerdict.CROSSED, tuple(f"{r.metric}: {r.expression} was crossed" for r in crossed)
    if facts.verify_wanted and not verification.ran:
        return RunVerdict.UNVERIFIED, (f"not verified: {verification.why_not}",)
    return RunVerdict.HELD, ()


def after_verification(
    before: RunVerdict, why: tuple[str, ...], results: Sequence[ThresholdResult]
) -> tuple[RunVerdict, tuple[str, ...]]:
    """Return the verdict of a run after a later verification: an invalid run stays invalid."""
    if before in {RunVerdict.INVALID, RunVerdict.INTERRUPTED}:
        return before, why
    crossed = [r for r in results if not r.held]
    if crossed:
        return RunVerdict.CROSSED, tuple(f"{r.metric}: {r.expression} was crossed" for r in crossed)
    return RunVerdict.HELD, ()


def _faults_without_effect(faults: Sequence[FaultResult]) -> list[str]:
    return [
        f"{fault.kind} at {fault.at_seconds:g} s took no effect: {fault.seen}"
        for fault in faults
        if not fault.took_effect
    ]


def _values(lines: Sequence[Second], name: str) -> list[float]:
    return [value for line in lines if (value := line.get(name)) is not None]


def _max(lines: Sequence[Second], name: str) -> float | None:
    return max(_values(lines, name), default=None)


def _mean(lines: Sequence[Second], name: str) -> float | None:
    values = _values(lines, name)
    return sum(values) / len(values) if values else None
