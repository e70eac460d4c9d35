"""Starts the embedded ClickHouse as a separate process, which ends with its owner."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from select import select
from types import TracebackType
from typing import Any, Self

import adledger
from adledger.pipeline.errors import SinkError
from adledger.pipeline.extras import require
from adledger.sinks.embedded.folder import refuse_other_folder
from adledger.sinks.embedded.owner import Listening, find

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
LOG = "server.log"

__all__ = ["EmbeddedServer", "find"]


class EmbeddedServer:
    """A server that this process started and owns. It ends with `stop`, or when this process ends, even by SIGKILL."""

    def __init__(self, process: "subprocess.Popen[bytes]", listening: Listening, directory: Path) -> None:
        self._process = process
        self.directory = directory
        self.pid = listening.pid
        self.host = listening.host
        self.port = listening.port
        self.http_port = listening.http_port

    @classmethod
    def start(cls, directory: Path, *, port: int = 0, http_port: int = 0) -> "EmbeddedServer":
        """Start the server of a folder, and return when it answers. Port 0 takes a free one.

        Its output goes to DIR/server.log. Raises SinkError: a second owner, a port in use, a folder that is missing or has
        other content; UsageError: no chDB.
        """
        require("embedded", "the embedded ClickHouse")
        directory = directory.absolute()
        refuse_other_folder(directory)
        if (owner := find(directory)) is None:
            _make(directory)
        log = directory / LOG
        with log.open("wb" if owner is None else "ab") as errors:
            process = subprocess.Popen(  # noqa: S603 - our own module
                _command(directory, port, http_port),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C goes to its owner only, which may have a batch to finish
                env=os.environ | {"PYTHONPATH": search_path()},
            )
        try:
            listening = Listening(**_first_line(process, log))
        except BaseException:
            process.kill()
            _close(process)
            raise
        return cls(process, listening, directory)

    def alive(self) -> bool:
        """Whether the server is running."""
        return self._process.poll() is None

    def wait(self, timeout_seconds: float | None = None) -> int:
        """Wait for the server's end and return its exit code. Raises TimeoutError."""
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"the embedded ClickHouse, process {self.pid}, still runs") from None

    def stop(self) -> None:
        """End it: running queries finish, the engine is closed. Does nothing where it has ended."""
        if self.alive():
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
        _close(self._process)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.stop()


def _command(directory: Path, port: int, http_port: int) -> list[str]:
    """Return the command. The parent's end is that of the thread that forked, so only the main thread passes --parent."""
    command = [
        sys.executable, "-m", "adledger.sinks.embedded", str(directory),
        "--port", str(port), "--http-port", str(http_port), "--owner-pipe",
    ]  # fmt: skip
    if threading.current_thread() is threading.main_thread():
        command += ["--parent", str(os.getpid())]
    return command


def search_path() -> str:
    """Return PYTHONPATH with the folder of `adledger` in front."""
    own = str(Path(adledger.__file__).resolve().parents[1])
    inherited = os.environ.get("PYTHONPATH")
    return f"{own}{os.pathsep}{inherited}" if inherited else own


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise SinkError(
            f"the embedded ClickHouse can't use {directory}: {e.strerror}",
            remedy="name a writable folder",
        ) from None


def _first_line(process: "subprocess.Popen[bytes]", log: Path) -> dict[str, Any]:
    """Return where the server listens. Raises SinkError with the error that it reports instead."""
    assert process.stdout is not None
    ready, _, _ = select([process.stdout], [], [], START_SECONDS_MAX)
    line = process.stdout.readline() if ready else b""
    if not line:
        raise SinkError(
            "the embedded ClickHouse did not start"
            + (f" within {START_SECONDS_MAX} s" if not ready else f": exit code {process.wait()}"),
            remedy=f"look at {log}",
        )
    reported: dict[str, Any] = json.loads(line)
    if "error" in reported:
        raise SinkError(str(reported["error"]), remedy=str(reported["remedy"]))
    return reported


def _close(process: "subprocess.Popen[bytes]") -> None:
    """Reap the process and close its pipes."""
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
