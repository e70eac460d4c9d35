"""What `adledger loadtest` prints: progress on stderr, a run's result on stdout."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adledger.pipeline.cli.output import err, out

if TYPE_CHECKING:
    from adledger.loadtest.results.run_folder import RunFolder, RunSummary, Second

LINE_SECONDS = 5
WRONG_SHOWN_MAX = 10

SHOWN = (
    ("rate.mean", "events/s acknowledged", 1.0, ""), ("consumed_rate.mean", "events/s queryable", 1.0, ""),
    ("events_sent", "events sent", 1.0, ""), ("dropped_events", "dropped_events", 1.0, ""),
    ("freshness_ms.med", "freshness p50", 1.0, " ms"), ("freshness_ms.p(90)", "freshness p90", 1.0, " ms"),
    ("freshness_ms.p(99)", "freshness p99", 1.0, " ms"), ("freshness_ms.p(99.9)", "freshness p99.9", 1.0, " ms"),
    ("freshness_ms.max", "freshness max", 1.0, " ms"), ("log_time_freshness_ms.p(99)", "  from log time, p99", 1.0, " ms"),
    ("lag_records.max", "lag, at most", 1.0, " records"), ("drain_seconds", "drained in", 1.0, " s"),
    ("batch_rows.mean", "records per batch", 1.0, ""), ("inserts_per_second.mean", "inserts/s", 1.0, ""),
    ("worker_cpu_cores.mean", "CPU of workers", 1.0, " cores"), ("broker_cpu_cores.mean", "CPU of broker", 1.0, " cores"),
    ("clickhouse_cpu_cores.mean", "CPU of ClickHouse", 1.0, " cores"),
    ("generator_cpu_cores.mean", "CPU of generator", 1.0, " cores"),
    ("worker_memory_bytes.max", "memory of workers", 2.0**-20, " MiB"),
    ("clickhouse_memory_bytes.max", "memory of ClickHouse", 2.0**-20, " MiB"),
    ("worker_cpu_us_per_event", "worker CPU per event", 1.0, " us"),
)  # fmt: skip
"""Metric, its label, its factor, its unit."""


class LoadLines:
    """A line for each step, and one every LINE_SECONDS of the load."""

    def say(self, text: str) -> None:
        """Write a line."""
        err(text)

    def second(self, line: "Second", total_seconds: float) -> None:
        """Write a line every LINE_SECONDS."""
        if round(line["second"] or 0) % LINE_SECONDS == 0:
            err(as_line(line, total_seconds))


class Live:
    """A terminal line that is updated each second, below the lines of `say`."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.status import Status

        self._console = Console(stderr=True)
        self._status = Status("", console=self._console)

    def say(self, text: str) -> None:
        """Write a line above."""
        self._console.print(text, highlight=False, markup=False)

    def second(self, line: "Second", total_seconds: float) -> None:
        """Update the line."""
        self._status.start()
        self._status.update(as_line(line, total_seconds))

    def close(self) -> None:
        """Remove the line."""
        self._status.stop()


def as_line(line: "Second", total_seconds: float) -> str:
    """Return a second as a line of at most 80 columns: `done` counts events that became queryable."""
    second = line["second"] or 0
    phase = "warm-up" if second <= 0 else "load" if second <= total_seconds else "drain"
    return (
        f"{phase:<7} {second:>2.0f}/{total_seconds:g} s {line['sent'] or 0:>8,.0f}/s sent {line['consumed'] or 0:>8,.0f}/s done"
        f"  lag {line['lag_records'] or 0:>8,.0f}  p99 {_ms(line['freshness_p99_ms'])}"
    )


def print_end(folder: "RunFolder", summary: "RunSummary") -> None:
    """Print a run's result: metrics, faults, verification, thresholds with ticks and crosses, the verdict."""
    out("")
    width = max(len(label) for _, label, _, _ in SHOWN)
    for name, label, factor, unit in SHOWN:
        value = summary.metrics.get(name)
        if value is not None:
            out(f"  {label.ljust(width, '.')}: {_number(value * factor)}{unit}")
    for step in summary.steps:
        out(
            f"  {'✓' if step.held else '✗'} {step.rate_per_second:,.0f} events/s: {step.verdict} ({step.run_id})"
        )
    for fault in summary.faults:
        out(f"  fault {fault.kind} at {fault.at_seconds:g} s: {fault.seen}")
    _print_verification(summary)
    out("")
    out("  thresholds")
    for result in summary.thresholds:
        text = "nothing measured" if result.value is None else _number(result.value)
        aborted = "  ended the run" if result.aborted else ""
        out(f"  {'✓' if result.held else '✗'} {result.metric}: {result.expression}  ({text}){aborted}")
    out("")
    for why in summary.why:
        out(f"  {why}")
    if summary.rate_max_per_second is not None:
        out(f"  the highest rate that held: {summary.rate_max_per_second:,.0f} events/s")
    out(f"{summary.verdict.value.upper()}  run {summary.run_id}, in {folder.path}")


def _print_verification(summary: "RunSummary") -> None:
    found = summary.verification
    if not found.ran:
        out(f"  not verified: {found.why_not}")
        return
    if found.equal:
        out(
            f"  counted exactly: {found.records_expected:,} records, {found.rows_compared:,} publisher-minutes in "
            f"records and nanos ({found.seconds:.1f} s)"
        )
        return
    out(
        f"  NOT EQUAL to the ground truth: {found.rows_wrong:,} publisher-minute rows, {found.counts_wrong:,} counts; the first:"
    )
    _print_some([*found.wrong[:WRONG_SHOWN_MAX], *found.explanations[:WRONG_SHOWN_MAX]])


def _print_some(lines: Sequence[str]) -> None:
    for line in lines:
        out(f"    {line}")


def progress_screen() -> "LoadLines | Live":
    """Return a screen for stderr: live on a terminal, lines otherwise."""
    return Live() if sys.stderr.isatty() else LoadLines()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:,.2f}"


def _ms(value: float | None) -> str:
    return "        -" if value is None else f"{value:>6,.0f} ms"
