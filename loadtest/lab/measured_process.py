"""A process measured from outside: CPU, wall time, peak memory."""

import os
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from adledger.loadtest.lab.broker import end_with_parent
from adledger.pipeline.errors import AdledgerError

LOOK_SECONDS = 0.05
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class PeerFailed(AdledgerError):  # noqa: N818
    """A peer ended with an error, or did not end."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process took, its children that it waited for included. `memory_bytes` is its own peak."""

    cpu_seconds: float
    seconds: float
    memory_bytes: int


def measured(
    command: list[str], log: Path, *, seconds_max: float, env: Mapping[str, str] | None = None,
    cwd: Path | None = None, watch: Callable[[int], None] = lambda _: None, out: Path | None = None,
) -> Cost:  # fmt: skip
    """Run a command to its end; what it says goes to `log`, its stdout to `out` where that is given.

    `watch` is called with its pid twenty times a second.

    Raises PeerFailed: it ended with an error, or took longer than `seconds_max`.
    """
    begin = time.monotonic()
    with log.open("wb") as said, (out or Path(os.devnull)).open("wb") as answer:
        process = subprocess.Popen(  # noqa: S603 - our own scripts
            command, stdin=subprocess.DEVNULL, stdout=answer if out is not None else said, stderr=said, cwd=cwd,
            env={**os.environ, **(env or {})}, start_new_session=True, preexec_fn=end_with_parent,  # noqa: PLW1509
        )  # fmt: skip
    timer = threading.Timer(seconds_max, process.kill)
    timer.start()
    memory = 0
    try:
        while not _ended(process.pid):
            memory = max(memory, peak_memory(process.pid))
            watch(process.pid)
            time.sleep(LOOK_SECONDS)
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        raise
    finally:
        timer.cancel()
    seconds = time.monotonic() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = log.read_text("utf-8", "replace").strip()[-600:]
        raise PeerFailed(
            f"ended with {process.returncode} after {seconds:.0f} s: {last}", remedy=f"read {log}"
        )
    return Cost(usage.ru_utime + usage.ru_stime, seconds, memory)


def cpu_seconds(pid: int) -> float:
    """Return the CPU that a process took so far, all of its threads; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def peak_memory(pid: int) -> int:
    """Return the most memory (bytes) that a process held at once so far; 0 where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _ended(pid: int) -> bool:
    """Whether a child has ended; it can still be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
