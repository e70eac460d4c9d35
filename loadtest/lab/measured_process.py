"""A process measured from outside: CPU, wall time, peak memory."""

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from adledger.loadtest.lab.processes import Process
from adledger.pipeline.errors import AdledgerError

POLL_SECONDS = 0.05
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class ProcessFailed(AdledgerError):  # noqa: N818
    """A process ended with an error, or took too long."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a process used, including the children it waited for. `memory_bytes` is its own peak."""

    cpu_seconds: float
    seconds: float
    memory_bytes: int


def measured(
    command: list[str], log: Path, *, seconds_max: float, env: Mapping[str, str] | None = None,
    cwd: Path | None = None, watch: Callable[[int], None] = lambda _: None, out: Path | None = None,
) -> Cost:  # fmt: skip
    """Run a command to its end; its output goes to `log`, its stdout to `out` where that is given.

    `watch` is called with its pid twenty times a second.

    Raises ProcessFailed: it ended with an error, or took longer than `seconds_max`.
    """
    log.unlink(missing_ok=True)
    begin = time.monotonic()
    process = Process(command, log, env=env, cwd=cwd, out=out)
    timer = threading.Timer(seconds_max, process.popen.kill)
    timer.start()
    memory = 0
    try:
        while not _ended(process.pid):
            memory = max(memory, peak_memory(process.pid))
            watch(process.pid)
            time.sleep(POLL_SECONDS)
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        raise
    finally:
        timer.cancel()
    seconds = time.monotonic() - begin
    code = process.popen.returncode = os.waitstatus_to_exitcode(status)
    if code:
        last = log.read_text("utf-8", "replace").strip()[-600:]
        raise ProcessFailed(f"ended with {code} after {seconds:.0f} s: {last}", remedy=f"read {log}")
    return Cost(usage.ru_utime + usage.ru_stime, seconds, memory)


def cpu_seconds(pid: int) -> float:
    """Return the CPU seconds of all threads of a process so far; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def peak_memory(pid: int) -> int:
    """Return the peak resident memory (bytes) of a process so far; 0 where it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")), 0)


def _ended(pid: int) -> bool:
    """Whether a child has ended; it can still be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
