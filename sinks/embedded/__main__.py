"""The server's process: `python -m adledger.sinks.embedded DIR [--port P] [--http-port H] [--owner-pipe]`.

The first line on stdout is one JSON object: where it listens, or the error that kept it from starting. It ends on
SIGTERM and SIGINT; with `--owner-pipe` also when stdin ends, as it does when the process at its other end dies.
"""

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from adledger.pipeline.errors import AdledgerError
from adledger.sinks.embedded.process import NOTICE, serve


def main() -> int:
    """Serve until a signal or the owner's end. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m adledger.sinks.embedded", description=NOTICE)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, default=9000, help="native protocol; 0 takes a free one")
    parser.add_argument("--http-port", type=int, default=8123, help="0 takes a free one")
    parser.add_argument("--owner-pipe", action="store_true", help="end when stdin does")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this parent's main thread does")
    given = parser.parse_args()
    owner_pipe = sys.stdin.fileno() if given.owner_pipe else None
    try:
        serve(
            given.directory,
            given.port,
            given.http_port,
            lambda listening: _say(asdict(listening)),
            owner_pipe=owner_pipe,
            parent=given.parent,
        )
    except AdledgerError as e:
        _say({"error": e.message, "remedy": e.remedy})
        return e.exit_code
    return 0


def _say(what: dict[str, object]) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
