"""The workers of a run: started by it, or told of by their pages' URLs; their metrics as numbers."""

import re
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from adledger.loadtest.lab.processes import Process
from adledger.pipeline.errors import AdledgerError
from adledger.sinks.embedded.launch import search_path

READY_SECONDS_MAX = 120
ANSWER_SECONDS_MAX = 2.0
LOOK_SECONDS = 0.1

_PAGES = re.compile(r"pages at (http://\S+?)[\"\s]")


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a worker counted since its start. `stages`: stage -> (batches, seconds)."""

    inserts: float
    doubts: float
    stages: Mapping[str, tuple[float, float]]


class WorkerProcess:
    """`adledger run` with the run's settings. `start` again after a death.

    On Kafka it has pages, which tell when it is ready; on a `files:` log it is when `lock`, the group's, names its process.
    """

    def __init__(self, number: int, config: Path, folder: Path, *, lock: Path | None) -> None:
        self.name = f"worker-{number}"
        self._config, self._log, self._lock = config, folder / f"{self.name}.log", lock
        self._said_before = 0
        self.process: Process | None = None
        self.expected_to_end = False
        self.url = ""

    def start(self) -> None:
        """Start it; it is ready when `ready` says so."""
        self._said_before = self._log.stat().st_size if self._log.exists() else 0
        command = [sys.executable, "-m", "adledger", "run", "--config", str(self._config)]
        self.url = ""
        self.process = Process(
            [*command, *(("--loglevel", "info") if self._lock is None else ())],
            self._log,
            env={"PYTHONPATH": search_path()},
        )
        self.expected_to_end = False  # last: until then the death of the process before is looked at

    def ready(self) -> bool:
        """Whether it works on its lanes. Raises AdledgerError where it has ended."""
        assert self.process is not None, "not started"
        if self.process.exit_code is not None and not self.expected_to_end:
            raise AdledgerError(
                f"{self.name} ended with {self.process.exit_code} at its start: {self._said()[-600:].strip()}",
                remedy=f"read {self._log}",
            )
        if self._lock is not None:
            # Only read: a look through the lock itself could be in the way of who is just taking it.
            return self._lock.is_file() and self._lock.read_text("ascii").strip() == str(self.process.pid)
        if not self.url and (match := _PAGES.search(self._said())):
            self.url = match[1].rstrip("/")
        return bool(self.url) and is_ready(self.url)

    def died(self) -> int | None:
        """Return the exit code where it ended, and nobody meant it to."""
        return None if self.process is None or self.expected_to_end else self.process.exit_code

    def kill(self) -> None:
        """End it at once."""
        assert self.process is not None, "not started"
        self.expected_to_end = True
        self.process.kill()

    def stop(self) -> None:
        """End it in order, by force where that takes too long."""
        self.expected_to_end = True
        if self.process is not None:
            self.process.stop()

    def _said(self) -> str:
        with self._log.open("rb") as log:
            log.seek(self._said_before)
            return log.read().decode("utf-8", "replace") + "\n"


def wait_until_ready(
    workers: list[WorkerProcess], urls: list[str], seconds_max: float = READY_SECONDS_MAX
) -> None:
    """Return when all are ready. Raises AdledgerError: one ended, or it took too long."""
    last = time.monotonic() + seconds_max
    while True:
        waiting = [worker.name for worker in workers if not worker.ready()] + [
            u for u in urls if not is_ready(u)
        ]
        if not waiting:
            return
        if time.monotonic() > last:
            raise AdledgerError(
                f"{', '.join(waiting)}: not ready after {seconds_max:.0f} s",
                remedy="read the workers' logs in the run's folder; /readyz names the lane that stands still",
            )
        time.sleep(LOOK_SECONDS)


def is_ready(url: str) -> bool:
    """Ask a worker's /readyz."""
    return _get(f"{url}/readyz") is not None


def metrics_of(url: str) -> Metrics | None:
    """Scrape a worker; None where it does not answer in time."""
    text = _get(f"{url}/metrics")
    if text is None:
        return None
    totals: dict[str, float] = {}
    stages: dict[str, list[float]] = {}
    for name, labels, value in _samples(text):
        if name in {"adledger_inserts_total", "adledger_doubts_total"}:
            totals[name] = totals.get(name, 0.0) + value
        elif name.startswith("adledger_stage_duration_seconds_") and name.endswith(("_count", "_sum")):
            stages.setdefault(labels["stage"], [0.0, 0.0])[name.endswith("_sum")] += value
    return Metrics(
        totals.get("adledger_inserts_total", 0.0), totals.get("adledger_doubts_total", 0.0),
        {stage: (count, seconds) for stage, (count, seconds) in stages.items()},
    )  # fmt: skip


def _samples(text: str) -> Iterator[tuple[str, Mapping[str, str], float]]:
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


def _get(url: str) -> str | None:
    try:
        with urllib.request.urlopen(url, timeout=ANSWER_SECONDS_MAX) as answer:  # noqa: S310 - http, from a worker's log or a flag
            return str(answer.read().decode("utf-8", "replace"))
    except (OSError, ValueError):
        return None
