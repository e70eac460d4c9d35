"""The report's page: one HTML file with styles and plots in it, no script, nothing fetched."""

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from adledger.loadtest.report import figures, wording
from adledger.loadtest.report.plot import drawing
from adledger.loadtest.report.plots import plots_of
from adledger.loadtest.report.rendering import render
from adledger.loadtest.results.names import METRICS
from adledger.loadtest.results.run_folder import Run, RunSummary, Second, ThresholdResult

NO_NETWORK = "default-src 'none'; style-src 'unsafe-inline'"
"""The page's Content-Security-Policy: no scripts, no requests."""

LINES_MAX = 50
"""The differences shown, at most; the others are in summary.json."""

SECTIONS = {
    "thresholds": "Thresholds",
    "plots": "Over time",
    "figures": "All figures",
    "run": "How it was run",
}


def page(run: Run, summary: RunSummary, seconds: Sequence[Second]) -> str:
    """Return the page as text. Raises UsageError where Jinja is not installed."""
    return render(
        "page.html", run=run, summary=summary, sections=SECTIONS, no_network=NO_NETWORK, marks=wording.MARKS,
        verdict=wording.headline(run, summary), reasons=wording.reasons(summary), tiles=wording.tiles(run, summary),
        cautions=wording.cautions(run, summary), thresholds=list(map(_threshold, summary.thresholds)),
        differences=_differences(summary), lines_max=LINES_MAX, plots=list(map(drawing, plots_of(run, summary, seconds))),
        figures=list(_figures(summary)), command=shlex.join(run.command), load=_load(run), environment=_environment(run),
    )  # fmt: skip


def _threshold(result: ThresholdResult) -> dict[str, str]:
    return {
        "kind": wording.GOOD if result.held else wording.BAD,
        "outcome": "held" if result.held else "crossed, and ended the run" if result.aborted else "crossed",
        "threshold": f"{result.metric}: {result.expression}",
        "meaning": wording.meaning(result),
        "value": "nothing" if result.value is None else figures.metric(result.metric, result.value),
    }


def _differences(summary: RunSummary) -> dict[str, Sequence[str]]:
    found = summary.verification
    if not found.ran or found.equal:
        return {}
    parts = {"Counts and rows": found.wrong, "The events behind them": found.explanations}
    return {title: lines for title, lines in parts.items() if lines}


def _figures(summary: RunSummary) -> Iterator[tuple[str, str, str]]:
    meaning = ""
    for name in dict.fromkeys([*METRICS, *summary.metrics]):
        described = METRICS.get(name, "")
        meaning = meaning if described == "the same" else described
        if name in summary.metrics:
            yield name, figures.metric(name, summary.metrics[name]), meaning


def _load(run: Run) -> dict[str, Any]:
    return {
        "rate": wording.rate_asked(run), "executor": run.executor, "duration": f"{run.duration_seconds:g} s",
        "warm-up": f"{run.warm_up_seconds:g} s", "partitions": run.profile.get("load", {}).get("partitions"),
        "workers": run.workers, "sender processes": run.senders, "seed": run.seed, "target": run.target,
        "log": run.source, "ClickHouse": run.clickhouse, "database": run.names.database,
    }  # fmt: skip


def _environment(run: Run) -> dict[str, Any]:
    values = dict(run.environment)
    if isinstance(memory := values.pop("memory_bytes", None), int | float):
        return {"memory": figures.size(memory), **values}
    return values
