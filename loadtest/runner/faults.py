"""Faults on a schedule, while loaded: each done, looked at, undone, and written down."""

import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from adledger.loadtest.lab.deployment import RunDeployment
from adledger.loadtest.lab.processes import gone, pause, resume
from adledger.loadtest.lab.workers import WorkerProcess, wait_until_ready
from adledger.loadtest.profiles.profile import Fault
from adledger.loadtest.results.run_folder import FaultResult
from adledger.pipeline.errors import AdledgerError, UsageError
from adledger.sinks.embedded.launch import EmbeddedServer

UNDO_SECONDS_MAX = 180
PAUSE_SECONDS = 5.0
"""Of a fault that says no duration, and needs one."""


@dataclass(frozen=True, slots=True)
class _Done:
    took_effect: bool
    seen: str


class Faults:
    """Does the faults of a run, one after the other, in a thread of its own.

    Processes that it starts again end with the thread that started them, so the thread stays as long as this process.
    """

    def __init__(self, faults: Sequence[Fault], deployment: RunDeployment) -> None:
        """Take a run's faults. Raises UsageError for one in something that is not the run's own."""
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
        """Begin; the load begins so much later."""
        self._load_at = time.monotonic() + load_in_seconds
        self._thread.start()

    def stop(self) -> None:
        """Do no further faults, and wait, in bounded time, until what was done is undone."""
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
            done = self._harm(fault)
        except (AdledgerError, OSError) as error:
            done = _Done(took_effect=False, seen=str(error))
        return FaultResult(
            kind=fault.kind, at_seconds=fault.at_seconds, duration_seconds=fault.seconds,
            started_second=round(started, 3), ended_second=round(time.monotonic() - self._load_at, 3),
            took_effect=done.took_effect, seen=done.seen,
        )  # fmt: skip

    def _harm(self, fault: Fault) -> _Done:
        verb, _, what = fault.kind.partition("-")
        if verb == "pause":
            return self._pause(self._pid(what), fault.seconds or PAUSE_SECONDS)
        if what == "worker":
            return self._end_worker(self._deployment.workers[0], fault)
        if what == "broker":
            return self._kill_broker(fault)
        return self._kill_clickhouse(fault)

    def _pause(self, pid: int, seconds: float) -> _Done:
        stopped = pause(pid)
        try:
            self._stopped.wait(seconds)
        finally:
            went_on = resume(pid)
        return _Done(
            stopped and went_on,
            f"process {pid} {'stood still' if stopped else 'did not stop'}, and {'went on' if went_on else 'did not go on'} "
            f"after {seconds:g} s",
        )

    def _end_worker(self, worker: WorkerProcess, fault: Fault) -> _Done:
        assert worker.process is not None, "workers run while loaded"
        pid = worker.process.pid
        (worker.kill if fault.kind == "kill-worker" else worker.stop)()
        dead = gone(pid)
        self._stopped.wait(fault.seconds)

        def again() -> None:
            worker.start()
            wait_until_ready([worker], [])

        took = _timed(again)
        return _Done(dead, f"{worker.name}: {_gone(pid, dead=dead)}; started again, ready after {took:.1f} s")

    def _kill_broker(self, fault: Fault) -> _Done:
        broker = self._deployment.servers.broker
        assert broker is not None, "checked"
        pid = broker.pid
        broker.kill()
        dead = gone(pid)
        self._stopped.wait(fault.seconds)
        took = _timed(broker.start)
        return _Done(dead, f"{_gone(pid, dead=dead)}; started again on its data, serving after {took:.1f} s")

    def _kill_clickhouse(self, fault: Fault) -> _Done:
        servers = self._deployment.servers
        old = servers.server
        assert old is not None, "checked"
        os.kill(old.pid, signal.SIGKILL)
        old.stop()
        dead = gone(old.pid)
        self._stopped.wait(fault.seconds)

        def again() -> None:
            servers.server = EmbeddedServer.start(old.directory, port=old.port, http_port=old.http_port)

        took = _timed(again)
        return _Done(
            dead, f"{_gone(old.pid, dead=dead)}; started again on its data, serving after {took:.1f} s"
        )

    def _pid(self, what: str) -> int:
        servers = self._deployment.servers
        if what == "worker":
            process = self._deployment.workers[0].process
            assert process is not None, "workers run while loaded"
            return process.pid
        server = servers.broker if what == "broker" else servers.server
        assert server is not None, "checked"
        return server.pid

    def _require_possible(self, fault: Fault) -> None:
        what = fault.kind.partition("-")[2]
        servers = self._deployment.servers
        ours = {
            "worker": bool(self._deployment.workers),
            "broker": servers.broker is not None,
            "clickhouse": servers.server is not None,
        }
        if not ours[what]:
            raise UsageError(
                f"{fault.kind}: the {what} is not this run's own",
                remedy="--target local brings its own broker and ClickHouse; --workers N its own workers",
            )


def _gone(pid: int, *, dead: bool) -> str:
    return f"process {pid} was gone" if dead else f"process {pid} did not go"


def _timed(what: Callable[[], object]) -> float:
    began = time.monotonic()
    what()
    return time.monotonic() - began
