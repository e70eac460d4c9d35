"""The senders of a run as processes: starts them, and reads their reports as they arrive."""

import json
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from adledger.loadtest.lab.processes import Process
from adledger.loadtest.runner.sender import SenderReport, Task
from adledger.pipeline.errors import AdledgerError
from adledger.sinks.embedded.launch import search_path

READY_SECONDS_MAX = 120
END_SECONDS_MAX = 150
"""A producer gives up a silent broker after 120 s."""


@dataclass(slots=True)
class SenderProcess:
    """One sender. `reports` fill as it works; `failure` is why it could not deliver, "" where it could."""

    task: Task
    process: Process
    reports: "SimpleQueue[SenderReport]" = field(default_factory=SimpleQueue)
    ready: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)
    failure: str = ""
    sent_until_ms: int = 0

    @classmethod
    def start(cls, task: Task, log: Path) -> "SenderProcess":
        """Start it and give it its task."""
        process = Process(
            [sys.executable, "-m", "adledger.loadtest.runner.sender"], log, env={"PYTHONPATH": search_path()},
            piped=True,
        )  # fmt: skip
        sender = cls(task, process, sent_until_ms=task.schedule.start_ms)
        threading.Thread(target=sender._read, name="sender", daemon=True).start()
        sender._send(task.to_json())
        return sender

    def go(self, go_ms: int) -> None:
        """Begin the load at a time."""
        self._send(f"go {go_ms}")

    def stop(self) -> None:
        """Stop it early."""
        self._send("stop")

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        assert self.process.popen.stdin is not None
        self.process.popen.stdin.close()

    def _send(self, line: str) -> None:
        assert self.process.popen.stdin is not None
        try:
            self.process.popen.stdin.write(line.encode() + b"\n")
            self.process.popen.stdin.flush()
        except OSError:  # it has ended, as `ended` shows
            return

    def _read(self) -> None:
        assert self.process.popen.stdout is not None
        reported_end = False
        for line in self.process.popen.stdout:
            message: dict[str, Any] = json.loads(line)
            if "report" in message:
                report = SenderReport(**message["report"])
                self.sent_until_ms = report.sent_until_ms
                self.reports.put(report)
            elif "ready" in message:
                self.ready.set()
            else:
                reported_end, self.failure = True, message["failure"] or ""
        if not reported_end:
            code = self.process.popen.wait()
            self.failure = f"a sender ended with {code}: read {self.process.log}"
        self.ready.set()
        self.ended.set()


def wait_until_ready(senders: list[SenderProcess]) -> None:
    """Return when all have their first records in hand. Raises AdledgerError: one could not, or it took too long."""
    last = time.monotonic() + READY_SECONDS_MAX
    for sender in senders:
        sender.ready.wait(max(0.0, last - time.monotonic()))
        if sender.failure or not sender.ready.is_set():
            raise AdledgerError(
                sender.failure or f"a sender was not ready after {READY_SECONDS_MAX} s",
                remedy=f"read {sender.process.log}",
            )
