"""Workers as processes: started, killed, restarted; their reports and their pages."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from adledger.loadtest.lab.processes import Process, memory_bytes
from adledger.loadtest.lab.worker_log import WorkerLog
from adledger.loadtest.lab.worker_pages import is_ready, metric_of
from adledger.pipeline.errors import AdledgerError
from adledger.sinks.embedded.launch import search_path

ADLEDGER = (sys.executable, "-m", "adledger")
READY_SECONDS_MAX = 120
POLL_SECONDS = 0.1


class WorkerProcess:
    """`adledger run` with the settings of `config`, or another `program` that takes the same arguments.

    On Kafka its pages report when it is ready. On a `files:` log it is ready when `lock`, the group's lock file, names it.
    """

    def __init__(
        self,
        name: str,
        config: Path,
        log: Path,
        *,
        program: Sequence[str] = ADLEDGER,
        lock: Path | None = None,
    ) -> None:
        self.name, self.log = name, WorkerLog(log)
        self._command = [*program, "run", "--config", str(config)]
        self._lock = lock
        self._process: Process | None = None
        self._end_expected = False
        self.url = ""
        """The URL of its pages; "" until it has reported it."""

    @property
    def pid(self) -> int:
        """The id of its process."""
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def started(self) -> bool:
        """Whether it was ever started."""
        return self._process is not None

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return self._process is not None and self._process.exit_code is None

    @property
    def exit_code(self) -> int | None:
        """Its process's exit code; None where it runs or was not started."""
        return None if self._process is None else self._process.exit_code

    @property
    def died(self) -> bool:
        """Whether its process ended without `kill` or `stop`."""
        return self.exit_code is not None and not self._end_expected

    def start(self, *arguments: str) -> None:
        """Start it, with more arguments for `run`; `ready` is true once it works."""
        self.log.restart()
        self.url = ""
        level = ("--loglevel", "info") if self._lock is None else ()
        self._process = Process(
            [*self._command, *level, *arguments],
            self.log.path,
            env={"PYTHONPATH": search_path(), "ADLEDGER_EVENT_LOG": str(self.log.events_path)},
        )
        self._end_expected = False  # last: another thread may ask `died` while the old process is still known

    def ready(self) -> bool | None:
        """Whether it works on its lanes; None where it does not answer."""
        if self._lock is not None:
            # Read only: trying the lock could get in the way of the worker that is about to take it.
            return self._lock.is_file() and self._lock.read_text("ascii").strip() == str(self.pid)
        self.url = self.url or self.log.pages()
        return is_ready(self.url) if self.url else None

    def lanes(self) -> frozenset[int]:
        """Return the lanes that it owns, as it last reported; none where it has ended."""
        return self.log.lanes() if self.alive else frozenset()

    def metric(self, name: str) -> float:
        """Return one of its counters, summed over labels; 0 where it does not answer."""
        self.url = self.url or self.log.pages()
        return metric_of(self.url, name) if self.url else 0.0

    def memory_bytes(self) -> int:
        """Return its resident memory; 0 where it has ended."""
        return memory_bytes(self.pid)

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait for its end."""
        assert self._process is not None, "not started"
        self._end_expected = True
        self._process.kill()

    def stop(self) -> bool:
        """Terminate it (SIGTERM); returns False where it had to be killed."""
        self._end_expected = True
        return self._process is None or self._process.stop()

    def wait(self, seconds_max: float) -> int:
        """Wait for its end and return the exit code. Raises subprocess.TimeoutExpired."""
        assert self._process is not None, "not started"
        self._end_expected = True
        return self._process.popen.wait(seconds_max)


def wait_until_ready(
    workers: list[WorkerProcess], urls: list[str], seconds_max: float = READY_SECONDS_MAX
) -> None:
    """Return when workers, and those with pages at `urls`, are ready. Raises AdledgerError: one ended, or it took too long."""
    last = time.monotonic() + seconds_max
    while True:
        for worker in workers:
            if worker.died:
                raise AdledgerError(
                    f"{worker.name} ended with {worker.exit_code} at its start: {worker.log.text()[-600:].strip()}",
                    remedy=f"read {worker.log.path}",
                )
        waiting = [w.name for w in workers if not w.ready()] + [u for u in urls if not is_ready(u)]
        if not waiting:
            return
        if time.monotonic() > last:
            raise AdledgerError(
                f"{', '.join(waiting)}: not ready after {seconds_max:.0f} s",
                remedy="read the workers' logs in the run's folder; /readyz names the halted lane",
            )
        time.sleep(POLL_SECONDS)
