"""Run folders as the runner writes them, made only of values: a quarter of a minute of load, with a fault."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

from adledger.loadtest.results.names import METRICS, SECONDS
from adledger.loadtest.results.run_folder import (
    FaultResult,
    Names,
    Run,
    RunFolder,
    RunSummary,
    RunVerdict,
    ThresholdResult,
    Verification,
)

STARTED_MS = 1_795_000_000_000
WARM_UP_SECONDS, LOAD_SECONDS, DRAIN_SECONDS = 5, 15, 4
RATE = 20_000.0

LOAD = {
    "executor": "constant-arrival-rate",
    "rate": RATE,
    "seconds": 30.0,
    "warm_up_seconds": 5.0,
    "partitions": 8,
}
THRESHOLDS = (
    {"metric": "freshness_ms", "aggregation": "p(99)", "comparison": "<", "bound": 5_000.0},
    {"metric": "lag_records", "aggregation": "max", "comparison": "<", "bound": 9_000_000.0},
)


def run_of(run_id: str = "r1", **other: Any) -> Run:
    """Return a run's parameters, with the given changes."""
    run = Run(
        id=run_id, profile_name="steady-day", seed=1, executor="constant-arrival-rate", rate_per_second=RATE,
        profile={"name": "steady-day", "description": "An ordinary day", "load": LOAD, "traffic": {}, "thresholds": THRESHOLDS},
        model={"publishers": 400_000, "users": 80_000_000}, duration_seconds=float(LOAD_SECONDS),
        warm_up_seconds=float(WARM_UP_SECONDS), command=("adledger", "loadtest", "run", "steady-day", "--target", "local"),
        target="local", source="kafka://127.0.0.1:9092", clickhouse="clickhouse://default@127.0.0.1:9000/",
        names=Names(f"adledger_lt_{run_id}", ("impressions", "clicks"), "rollups", "group"), workers=1, senders=1,
        own_servers=True, settings={"batch_rows_max": 131_072, "database": f"adledger_lt_{run_id}"},
        environment={"adledger": "0.1.0", "cpu": "EPYC", "cores": 8, "memory_bytes": 2**35, "load_average_before": 0.1, "one_machine": True, "numpy": "2.4.6"},
        started_ms=STARTED_MS, load_started_ms=STARTED_MS + 9_000, load_ended_ms=STARTED_MS + 24_000, ended_ms=STARTED_MS + 40_000,
    )  # fmt: skip
    return replace(run, **other)


def summary_of(run_id: str = "r1", **other: Any) -> RunSummary:
    """Return the summary of a run that held, with the given changes."""
    metrics = dict.fromkeys(METRICS, 1234.5) | {"worker_cpu_us_per_event": 4.0, "dropped_events": 0}
    summary = RunSummary(
        run_id=run_id, verdict=RunVerdict.HELD, why=(), metrics=metrics,
        thresholds=(ThresholdResult(metric="freshness_ms", expression="p(99)<5000", value=1_234.5, held=True),),
        faults=(
            FaultResult(kind="pause-clickhouse", at_seconds=4.0, duration_seconds=3.0, started_second=4.01,
                        ended_second=7.2, took_effect=True, seen="stopped, going on after 3 s"),
        ),
        verification=Verification(ran=True, equal=True, records_expected=400_000, records_found=400_000, rows_compared=98_765),
    )  # fmt: skip
    return replace(summary, **other)


def seconds_of(count: int = WARM_UP_SECONDS + LOAD_SECONDS + DRAIN_SECONDS) -> list[dict[str, float | None]]:
    """Return lines of seconds.csv: a different wave in every column, and gaps in those that may have some."""
    lines: list[dict[str, float | None]] = []
    for i in range(count):
        line: dict[str, float | None] = {
            name: round(1_000 * (2 + n + math.sin(i / 3 + n)), 3) for n, name in enumerate(SECONDS)
        }
        line |= {"second": i - WARM_UP_SECONDS + 1, "time_ms": STARTED_MS + i * 1_000}
        line |= {name: value * 1e6 for name, value in line.items() if name.endswith("_bytes") and value}
        if i % 3 == 0:
            line |= dict.fromkeys(
                (n for n in SECONDS if n.startswith(("freshness", "stage")) or n == "batch_rows_mean"), None
            )
        lines.append(line)
    return lines


def folder_of(runs: Path, run: Run, summary: RunSummary) -> RunFolder:
    """Write a run's folder."""
    folder = RunFolder.create(runs, run.id)
    folder.write_run(run)
    folder.write_summary(summary)
    folder.write_seconds(seconds_of())
    return folder
