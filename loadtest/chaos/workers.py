"""The workers of a chaos run: processes that are started again after each death, and what they say."""

import re
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from adledger.loadtest.lab.processes import Process
from adledger.sinks.embedded.launch import search_path

ADLEDGER = (sys.executable, "-m", "adledger")
ANSWER_SECONDS_MAX = 2.0

_LINE = re.compile(r"^ts=(\S+) level=(\w+) ", re.MULTILINE)
_PAGES = re.compile(r"pages at (http://\S+?)[\"\s]")
_HELD = re.compile(r"now held: ([\d,]+|none)")
_DOUBT = re.compile(r"lane (\d+)[,:] batch (\d+)(?:: in doubt| was intended and is not in the ledger)")


@dataclass(frozen=True, slots=True)
class Doubt:
    """A worker said that a batch is in doubt. `at`: seconds since the epoch."""

    at: float
    lane: int
    batch_no: int


class ChaosWorker:
    """`adledger run`, or another `program` that takes the same arguments."""

    def __init__(self, name: str, config: Path, log: Path, *, program: Sequence[str] = ADLEDGER) -> None:
        self.name = name
        self.log = log
        self._command = [*program, "run", "--config", str(config)]
        self._process: Process | None = None
        self._from = 0
        self._said, self._said_to = "", 0

    @property
    def pid(self) -> int:
        """The process's id."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """How it ended."""
        return None if self._process is None else self._process.exit_code

    def start(self, *more: str) -> None:
        """Start it; it works when it holds lanes."""
        self._from = self._said_to = self.log.stat().st_size if self.log.exists() else 0
        self._said = ""
        self._process = Process([*self._command, *more], self.log, env={"PYTHONPATH": search_path()})

    def kill(self) -> None:
        """End it at once."""
        assert self._process is not None, "not started"
        self._process.kill()

    def stop(self) -> bool:
        """End it in order; False where it had to be killed."""
        return self._process is None or self._process.stop()

    def wait(self, seconds_max: float) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired."""
        assert self._process is not None, "not started"
        return self._process.popen.wait(seconds_max)

    def said(self) -> str:
        """Return what it said since its start."""
        with self.log.open("rb") as log:
            log.seek(self._said_to)
            new = log.read()
        whole = new.rfind(b"\n") + 1
        self._said += new[:whole].decode("utf-8", "replace")
        self._said_to += whole
        return self._said

    def lanes(self) -> frozenset[int]:
        """Return the lanes that it last said it holds; none where it has ended."""
        found = _HELD.findall(self.said()) if self.alive else []
        return frozenset(map(int, found[-1].split(","))) if found and found[-1] != "none" else frozenset()

    def ready(self) -> bool | None:
        """Ask its /readyz; None where it does not answer."""
        pages = _PAGES.search(self.said())
        if pages is None:
            return None
        try:
            with urllib.request.urlopen(f"{pages[1].rstrip('/')}/readyz", timeout=ANSWER_SECONDS_MAX):  # noqa: S310 - its own page
                return True
        except urllib.error.HTTPError as answer:
            answer.close()
            return False
        except OSError:
            return None

    def metric(self, name: str) -> float:
        """Return a counter of its /metrics, summed over labels; 0 where it does not answer."""
        pages = _PAGES.search(self.said())
        if pages is None:
            return 0.0
        try:
            url = f"{pages[1].rstrip('/')}/metrics"
            with urllib.request.urlopen(url, timeout=ANSWER_SECONDS_MAX) as answer:  # noqa: S310 - its own page
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0.0
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def memory_bytes(self) -> int:
        """Return its resident memory; 0 where it has ended."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0


def doubts_of(log: Path) -> Iterator[Doubt]:
    """Yield what a worker's log says of batches in doubt, of all its lives."""
    for line in log.read_text("utf-8", "replace").splitlines():
        if (at := _LINE.match(line)) and (of := _DOUBT.search(line)):
            yield Doubt(datetime.fromisoformat(at[1]).timestamp(), int(of[1]), int(of[2]))
