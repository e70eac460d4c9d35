"""Processes that tests start, kill, pause and resume. Each effect is observed in the process table, not assumed."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

STOP_SECONDS_MAX = 30
EFFECT_SECONDS_MAX = 5
POLL_SECONDS = 0.01
KERNEL_CACHE = "ADLEDGER_KERNEL_CACHE"
"""No setting: without it a process would compile its kernels again."""

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None


class Process:
    """A child process whose output goes to a file. It ends with the thread that started it (Linux)."""

    def __init__(
        self, command: Sequence[str], log: Path, *, env: Mapping[str, str] | None = None, cwd: Path | None = None,
        out: Path | None = None, piped: bool = False,
    ) -> None:  # fmt: skip
        """Start it. stdout goes to `log`, or to a new file `out`; `piped` makes stdin and stdout pipes instead."""
        with log.open("ab") as output, (out or Path(os.devnull)).open("wb") as answer:
            self.popen = subprocess.Popen(  # noqa: S603 - our own commands
                command, stdin=subprocess.PIPE if piped else subprocess.DEVNULL,
                stdout=subprocess.PIPE if piped else output if out is None else answer, stderr=output, cwd=cwd,
                env=_without_settings() | dict(env or {}), start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509 - one system call
            )  # fmt: skip
        self.pid = self.popen.pid
        self.log = log

    @property
    def exit_code(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self.popen.poll()

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait for its end."""
        with suppress(ProcessLookupError):
            self.popen.kill()
        self.popen.wait(EFFECT_SECONDS_MAX)

    def stop(self, seconds_max: float = STOP_SECONDS_MAX) -> bool:
        """Terminate it (SIGTERM); returns False where it had to be killed."""
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


def pause(pid: int) -> bool:
    """Pause a process (SIGSTOP); returns whether it was seen stopped."""
    os.kill(pid, signal.SIGSTOP)
    return seen(pid, psutil.STATUS_STOPPED)


def resume(pid: int) -> bool:
    """Resume a paused process (SIGCONT); returns whether it was seen running."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    return seen(pid, psutil.STATUS_STOPPED, is_so=False)


def seen(pid: int, status: str, *, is_so: bool = True) -> bool:
    """Poll a process until it has a status (or no longer has it); returns False where that takes too long."""
    last = time.monotonic() + EFFECT_SECONDS_MAX
    while time.monotonic() < last:
        try:
            if (psutil.Process(pid).status() == status) == is_so:
                return True
        except psutil.NoSuchProcess:
            return False
        time.sleep(POLL_SECONDS)
    return False


def gone(pid: int) -> bool:
    """Whether a process has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def memory_bytes(pid: int) -> int:
    """Return a process's resident memory; 0 where it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _without_settings() -> dict[str, str]:
    """Return the environment without ADLEDGER_ settings: a process has only those of its run."""
    return {
        name: value for name, value in os.environ.items()
        if not name.startswith("ADLEDGER_") or name == KERNEL_CACHE
    }  # fmt: skip


def _end_with_parent() -> None:
    """End this process when the thread that started it ends (a preexec_fn; a no-op outside Linux)."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
