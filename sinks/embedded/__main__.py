"""The server's process: `python -m sinks.embedded DIR [--port P] [--http-port H] [--owner-pipe]`.

The first line on stdout is one JSON object: where it listens, or the error that kept it from starting. It ends on
SIGTERM and SIGINT; with `--owner-pipe` also when stdin ends, that is when the process that holds the other end does.
"""

import argparse
import ctypes
import json
import os
import select
import signal
import sys
from dataclasses import asdict
from pathlib import Path

from pipeline.errors import AdledgerError
from sinks.embedded.owner import Listening, Ownership

NOTICE = "embedded ClickHouse: one process on the loopback, without passwords, for demos and tests"
_PR_SET_PDEATHSIG = 1


def main() -> int:
    """Serve until told to end. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sinks.embedded", description=NOTICE)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=9000, help="native protocol; 0 takes a free one")
    parser.add_argument("--http-port", type=int, default=8123, help="0 takes a free one")
    parser.add_argument("--owner-pipe", action="store_true", help="end when stdin does")
    parser.add_argument("--die-with", type=int, metavar="PID", help="end when this parent's main thread does")
    arguments = parser.parse_args()
    try:
        serve(arguments)
    except AdledgerError as e:
        _say({"error": e.message, "remedy": e.remedy})
        return e.exit_code
    return 0


def serve(arguments: argparse.Namespace) -> None:
    """Serve until told to end. Raises SinkError where it can't be started."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)  # the wake-up pipe tells
    directory = arguments.directory.absolute()
    ownership = Ownership(directory)
    print(NOTICE, file=sys.stderr, flush=True)  # noqa: T201
    from sinks.embedded.server import HOST, Server  # loads chDB: 0.5 GB, after all that can be refused before

    server = Server(directory, arguments.port, arguments.http_port)
    server.start()
    listening = Listening(os.getpid(), HOST, server.port, server.http_port)
    ownership.tell(listening)
    _say(asdict(listening))
    _wait(wake_read, owner_pipe=arguments.owner_pipe, parent=arguments.die_with)
    server.stop()
    ownership.release()


def _wait(wake_read: int, *, owner_pipe: bool, parent: int | None) -> None:
    """Return when a signal came or the owner is gone."""
    if parent is not None and sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            return
    sources = [wake_read, *([sys.stdin.fileno()] if owner_pipe else [])]
    select.select(sources, [], [])


def _say(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
