"""The two faults of processes that all tests share: down and started again, paused and resumed.

Load tests apply them to a worker, broker or ClickHouse on a schedule; chaos waits for a chosen moment first. The process
table shows whether the fault took effect.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from adledger.loadtest.lab.processes import gone, pause, resume


class Restartable(Protocol):
    """A worker, broker or ClickHouse of ours."""

    @property
    def pid(self) -> int:
        """The id of its process."""

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait for its end."""

    def stop(self) -> Any:
        """Shut it down (SIGTERM)."""

    def start(self) -> Any:
        """Start it again, on its data."""


@dataclass(slots=True)
class Down:
    """A process that is down within the block. `restart_seconds` is set after it."""

    pid: int
    took_effect: bool
    restart_seconds: float = 0.0

    def __str__(self) -> str:
        return f"process {self.pid} {'was' if self.took_effect else 'was not'} gone"


@dataclass(slots=True)
class Pause:
    """A process that is paused within the block. `resumed` is set after it."""

    pid: int
    stopped: bool
    resumed: bool = False

    @property
    def took_effect(self) -> bool:
        """Whether it was seen stopped, and running again afterwards."""
        return self.stopped and self.resumed

    def __str__(self) -> str:
        stopped = "was stopped" if self.stopped else "did not stop"
        return f"process {self.pid} {stopped} and {'resumed' if self.resumed else 'did not resume'}"


@contextmanager
def down(target: Restartable, *, gracefully: bool = False) -> Iterator[Down]:
    """Kill a process, or shut it down `gracefully`; start it again when the block ends, however it ends."""
    pid = target.pid
    if gracefully:
        target.stop()
    else:
        target.kill()
    done = Down(pid, gone(pid))
    try:
        yield done
    finally:
        began = time.monotonic()
        target.start()
        done.restart_seconds = time.monotonic() - began


@contextmanager
def paused(pid: int) -> Iterator[Pause]:
    """Pause a process, or keep it paused; resume it when the block ends, however it ends."""
    done = Pause(pid, pause(pid))
    try:
        yield done
    finally:
        done.resumed = resume(pid)
