"""Processes that are started, killed, paused and let go on, on purpose; each effect is looked at, not believed."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from adledger.loadtest.lab.broker import end_with_parent

STOP_SECONDS_MAX = 30
EFFECT_SECONDS_MAX = 5
LOOK_SECONDS = 0.01


class Process:
    """A process of ours; what it says goes to a file. It ends with the thread that started it (Linux)."""

    def __init__(
        self, command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, piped: bool = False
    ) -> None:
        """Start it. `piped`: stdin and stdout are pipes; otherwise it reads nothing, and stdout is in the file too."""
        with log.open("ab") as out:
            self.popen = subprocess.Popen(  # noqa: S603 - our own modules
                command, stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else out, stderr=out,
                env=_without_settings() | dict(env or {}), start_new_session=True,
                preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call
            )  # fmt: skip
        self.pid = self.popen.pid
        self.log = log

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.popen.poll()

    def kill(self) -> None:
        """End it at once."""
        with suppress(ProcessLookupError):
            self.popen.kill()
        self.popen.wait(EFFECT_SECONDS_MAX)

    def stop(self, seconds_max: float = STOP_SECONDS_MAX) -> bool:
        """End it in order; False where it had to be killed."""
        if self.exit_code is not None:
            return True
        resume(self.pid)
        self.popen.terminate()
        try:
            self.popen.wait(seconds_max)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True


def _without_settings() -> dict[str, str]:
    """Return the environment without settings of ours: a process here has those of its run alone."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ADLEDGER_")}


def pause(pid: int) -> bool:
    """Stop a process (SIGSTOP); returns whether it was seen stopped."""
    os.kill(pid, signal.SIGSTOP)
    return seen(pid, psutil.STATUS_STOPPED)


def resume(pid: int) -> bool:
    """Let a stopped process go on; returns whether it was seen going on."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    return seen(pid, psutil.STATUS_STOPPED, is_so=False)


def seen(pid: int, status: str, *, is_so: bool = True) -> bool:
    """Look at a process until it has a status (or has it no more); False where it does not come to that in time."""
    last = time.monotonic() + EFFECT_SECONDS_MAX
    while time.monotonic() < last:
        try:
            if (psutil.Process(pid).status() == status) == is_so:
                return True
        except psutil.NoSuchProcess:
            return False
        time.sleep(LOOK_SECONDS)
    return False


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
