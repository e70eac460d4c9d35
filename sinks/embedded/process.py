"""The server's process: it owns the folder, listens, and ends on a signal or with its owner."""

import ctypes
import os
import select
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from adledger.sinks.embedded.owner import Listening, Ownership

NOTICE = "embedded ClickHouse: one process on the loopback, without passwords, for demos and tests"
_PR_SET_PDEATHSIG = 1


def serve(
    directory: Path,
    port: int,
    http_port: int,
    ready: Callable[[Listening], None],
    *,
    owner_pipe: int | None = None,
    parent: int | None = None,
) -> None:
    """Serve a folder until SIGTERM or SIGINT; `ready` is called once clients are answered. Call it in the main thread.

    It also ends when `owner_pipe`, a file descriptor, reaches its end, and when the main thread of the process `parent`
    ends. Raises SinkError where it can't start: another process serves the folder, a port is taken.
    """
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _noted)
    directory = directory.absolute()
    ownership = Ownership(directory)
    try:
        print(NOTICE, file=sys.stderr, flush=True)  # noqa: T201
        from adledger.sinks.embedded.server import HOST, LoopbackServer  # noqa: PLC0415 - loads chDB, half a gigabyte

        server = LoopbackServer(directory, port, http_port)
        server.start()
        listening = Listening(os.getpid(), HOST, server.port, server.http_port)
        ownership.publish(listening)
        ready(listening)
        _wait(wake_read, owner_pipe, parent)
        ownership.withdraw()
        server.stop()
    finally:
        ownership.release()


def _noted(*_: object) -> None:
    """Do nothing: the wake-up pipe reports the signal."""


def _wait(wake_read: int, owner_pipe: int | None, parent: int | None) -> None:
    """Return when a signal came or the owner is gone."""
    if parent is not None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            return
    select.select([wake_read, *([] if owner_pipe is None else [owner_pipe])], [], [])
