"""Faults on a schedule, under load: each one is applied, observed, undone and recorded."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from adledger.loadtest.lab.deployment import LabDeployment
from adledger.loadtest.lab.faults import Restartable, down, paused
from adledger.loadtest.lab.servers import Servers
from adledger.loadtest.lab.workers import WorkerProcess, wait_until_ready
from adledger.loadtest.profiles.profile import Fault
from adledger.loadtest.results.run_folder import FaultResult
from adledger.pipeline.errors import AdledgerError, UsageError

UNDO_SECONDS_MAX = 180
PAUSE_SECONDS = 5.0
"""Of a pause without a duration."""


@dataclass(frozen=True, slots=True)
class _Done:
    took_effect: bool
    seen: str


class Faults:
    """Applies the faults of a run, one after the other, in a thread.

    A restarted process ends with the thread that started it, so this thread lives as long as this process.
    """

    def __init__(self, faults: Sequence[Fault], deployment: LabDeployment[Servers]) -> None:
        """Check a run's faults. Raises UsageError for a fault in something that the run does not own."""
        self._faults = sorted(faults, key=lambda fault: fault.at_seconds)
        self._deployment = deployment
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="faults", daemon=True)
        self._load_at = 0.0
        self.results: list[FaultResult] = []
        self.finished = threading.Event()
        for fault in faults:
            self._require_possible(fault)

    def start(self, load_in_seconds: float) -> None:
        """Start the clock; the load begins `load_in_seconds` later."""
        self._load_at = time.monotonic() + load_in_seconds
        self._thread.start()

    def stop(self) -> None:
        """Start no further faults, and wait, in bounded time, until the current one is undone."""
        self._stopped.set()
        if self._thread.is_alive():
            self.finished.wait(UNDO_SECONDS_MAX)

    def _work(self) -> None:
        for fault in self._faults:
            if self._stopped.wait(max(0.0, self._load_at + fault.at_seconds - time.monotonic())):
                break
            self.results.append(self._do(fault))
        self.finished.set()
        threading.Event().wait()

    def _do(self, fault: Fault) -> FaultResult:
        started = time.monotonic() - self._load_at
        try:
            done = self._do_one(fault)
        except (AdledgerError, OSError) as error:
            done = _Done(took_effect=False, seen=str(error))
        return FaultResult(
            kind=fault.kind, at_seconds=fault.at_seconds, duration_seconds=fault.seconds,
            started_second=round(started, 3), ended_second=round(time.monotonic() - self._load_at, 3),
            took_effect=done.took_effect, seen=done.seen,
        )  # fmt: skip

    def _do_one(self, fault: Fault) -> _Done:
        verb, _, what = fault.kind.partition("-")
        target = self._target(what)
        if verb == "pause":
            seconds = fault.seconds or PAUSE_SECONDS
            with paused(target.pid) as pause:
                self._stopped.wait(seconds)
            return _Done(pause.took_effect, f"{pause} after {seconds:g} s")
        with down(target, gracefully=verb == "stop") as outage:
            self._stopped.wait(fault.seconds)
        if isinstance(target, WorkerProcess):
            began = time.monotonic()
            wait_until_ready([target], [])
            outage.restart_seconds += time.monotonic() - began
        return _Done(
            outage.took_effect,
            f"the {what}'s {outage}; started again, ready after {outage.restart_seconds:.1f} s",
        )

    def _target(self, what: str) -> Restartable:
        target = self._own()[what]
        assert target is not None, "checked"
        return target

    def _own(self) -> dict[str, Restartable | None]:
        workers, servers = self._deployment.workers, self._deployment.servers
        return {
            "worker": workers[0] if workers else None, "broker": servers.broker, "clickhouse": servers.server,
        }  # fmt: skip

    def _require_possible(self, fault: Fault) -> None:
        what = fault.kind.partition("-")[2]
        if self._own()[what] is None:
            raise UsageError(
                f"{fault.kind}: this run does not own the {what}",
                remedy="--target local starts a broker and a ClickHouse; --workers N starts workers",
            )
