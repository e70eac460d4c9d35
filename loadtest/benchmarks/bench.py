"""Every tool over the same traffic, one after the other: measured and checked against the ground truth."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from adledger.loadtest.benchmarks.catalog import Contestant, ContestantKind
from adledger.loadtest.benchmarks.environments import ContestantUnavailable, command, versions
from adledger.loadtest.benchmarks.ours import run_adledger
from adledger.loadtest.benchmarks.traffic import FilledTopic, read_found, rows_wrong
from adledger.loadtest.lab.measured_process import Cost, ProcessFailed, measured
from adledger.sinks.embedded.launch import search_path

RUN_SECONDS_MAX = 180
"""A tool that takes longer is killed and reported as failed."""


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one run of a contestant. `failure` says why there are no figures, "" where there are.

    `steady` leaves out start-up and warming up: the time until a quarter of the events was read (for adledger,
    which computes ahead, until its worker began).
    """

    contestant: str
    events: int = 0
    cpu_seconds: float = 0.0
    seconds: float = 0.0
    memory_bytes: int = 0
    steady_events: int = 0
    steady_cpu_seconds: float = 0.0
    steady_seconds: float = 0.0
    server_cpu_seconds: float = 0.0
    rows: int = 0
    rows_wrong: int = 0
    versions: str = ""
    failure: str = ""

    @property
    def per_cpu_second(self) -> float:
        """Events per CPU-second, start-up included."""
        return self.events / self.cpu_seconds if self.cpu_seconds else 0.0

    @property
    def steady_per_cpu_second(self) -> float:
        """Events per CPU-second once it is warm."""
        return self.steady_events / self.steady_cpu_seconds if self.steady_cpu_seconds else 0.0

    @property
    def steady_per_second(self) -> float:
        """Events a second of wall time once it is warm."""
        return self.steady_events / self.steady_seconds if self.steady_seconds else 0.0


def run_rounds(
    contestants: list[Contestant], rounds: int, traffic_of: Callable[[int], FilledTopic], servers: str, folder: Path, say: Callable[[str], None]
) -> list[Result]:  # fmt: skip
    """Run every tool `rounds` times, round by round, so that a busy minute does not slow one tool only."""
    results = []
    for number in range(1, rounds + 1):
        for contestant in contestants:
            result = run_contestant(
                contestant, traffic_of(contestant.events), servers, folder / f"{contestant.name}-{number}"
            )
            results.append(result)
            say(_line(contestant, result))
    return results


def run_contestant(contestant: Contestant, traffic: FilledTopic, servers: str, folder: Path) -> Result:
    """Run a tool once, in a folder that is removed when its counts are right. Never raises: the result holds the failure."""
    folder.mkdir(parents=True)
    try:
        result = _ours(contestant, traffic, servers, folder) if contestant.kind is ContestantKind.ADLEDGER else _theirs(contestant, traffic, servers, folder)  # fmt: skip
    except (ContestantUnavailable, ProcessFailed) as error:
        return Result(contestant.name, failure=error.message)
    if not result.rows_wrong:
        shutil.rmtree(folder)
    return result


def _theirs(contestant: Contestant, traffic: FilledTopic, servers: str, folder: Path) -> Result:
    numbers = (
        [str(traffic.events)]
        if contestant.kind is ContestantKind.FLINK
        else [str(traffic.events), str(traffic.unique)]
    )
    run = command(contestant, [servers, traffic.topic, *numbers, str(folder)])
    cost = measured(
        run, folder / "log", seconds_max=RUN_SECONDS_MAX, cwd=folder, env=_environment(contestant)
    )
    report = json.loads((folder / "report.json").read_text())
    found = read_found(folder / "found.tsv")
    return _result(
        contestant, traffic, cost, rows_wrong(traffic.minutes, found),
        mark_events=report["mark_events"], steady_cpu_seconds=report["steady_cpu_seconds"],
        steady_seconds=report["steady_seconds"], versions=versions(contestant),
    )  # fmt: skip


def _environment(contestant: Contestant) -> dict[str, str]:
    return {"PYTHONPATH": search_path()} if contestant.kind is ContestantKind.DATA_PATH else {}


def _ours(contestant: Contestant, traffic: FilledTopic, servers: str, folder: Path) -> Result:
    own = run_adledger(servers, traffic, folder, seconds_max=RUN_SECONDS_MAX)
    return _result(
        contestant, traffic, own.cost, rows_wrong(traffic.minutes, own.minutes), mark_events=0,
        steady_cpu_seconds=own.steady_cpu_seconds, steady_seconds=own.steady_seconds,
        server_cpu_seconds=own.server_cpu_seconds, versions=versions(contestant),
    )  # fmt: skip


def _result(
    contestant: Contestant,
    traffic: FilledTopic,
    cost: Cost,
    wrong: int,
    *,
    mark_events: int,
    **figures: object,
) -> Result:
    return Result(
        contestant.name, traffic.events, cost.cpu_seconds, cost.seconds, cost.memory_bytes,
        traffic.events - mark_events, rows=len(traffic.minutes), rows_wrong=wrong, **figures,  # type: ignore[arg-type]
    )  # fmt: skip


def _line(contestant: Contestant, result: Result) -> str:
    if result.failure:
        return f"{contestant.title}: {result.failure}"
    right = (
        "counts right" if not result.rows_wrong else f"{result.rows_wrong:,} of {result.rows:,} rows WRONG"
    )
    return (
        f"{contestant.title}: {result.steady_per_cpu_second:,.0f} events/CPU-s steady, {result.per_cpu_second:,.0f} with "
        f"start-up, {result.steady_per_second:,.0f}/s, {result.memory_bytes / 2**20:,.0f} MiB, {right}"
    )
