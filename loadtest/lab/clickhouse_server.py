"""ClickHouse's own server on this machine, on the loopback: its native and HTTP handlers over its own engine.

For tests and load tests. It is clickhouse-local with its ports opened (`SYSTEM START LISTEN`). That differs from
clickhouse-server in three ways: only users.xml defines its users; it has neither Keeper nor a DDL queue; and an error
that escapes a connection's thread (a failed login, a connection reset at the wrong moment) ends the process. However it
ends, it is restarted on the same ports and data, as a supervisor would do.
"""

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from os import SEEK_END
from pathlib import Path
from socket import create_server
from types import TracebackType
from typing import Self

from adledger.loadtest.lab import clickhouse_host
from adledger.loadtest.lab.clickhouse_library import clickhouse_library
from adledger.pipeline.errors import AdledgerError

HOST = "127.0.0.1"
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
LOOK_SECONDS = 0.02
FATAL_LOOK_SECONDS = 0.2
FATAL = b"<Fatal>"
START_TRIES = 3
LOG = "server.log"

OPEN_USERS = (
    "<clickhouse><profiles><default/></profiles><quotas><default/></quotas><users><default><password/>"
    "<networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>"
    "</default></users></clickhouse>"
)
"""users.xml with one user, without a password and with all rights."""

# clickhouse-local ignores <logger><level>: it logs at its option `log-level`, and by default everything, traces included.
_CONFIG = """<clickhouse>
<users_config>{users}</users_config>
<log-level>information</log-level>
<logger><console>1</console></logger>
<shutdown_wait_unfinished>1</shutdown_wait_unfinished>
{more}
</clickhouse>
"""
_SERVE = "SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; SELECT * FROM file('stdin', 'LineAsString') FORMAT Null"
"""The last query reads the pipe that the owner holds: the server ends when the owner does, however that ends."""


class ClickHouseFailed(AdledgerError):  # noqa: N818
    """The server did not start."""


class ClickHouseServer:
    """A server that this process started and owns, alive until `stop`, `kill`, or this process's end."""

    def __init__(self, directory: Path, ports: tuple[int, int]) -> None:
        self.directory = directory.absolute()
        self.host = HOST
        self.port, self.http_port = ports
        self._process: subprocess.Popen[bytes] | None = None
        self._changing = threading.Lock()
        self._given_up = False

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        port: int = 0,
        http_port: int = 0,
        files: Mapping[str, str] | None = None,
        more: str = "",
    ) -> Self:
        """Start the server of a folder, and return when it answers. Port 0 takes a free one.

        `files` are written into the folder: `users.xml` replaces OPEN_USERS (its user `default` must have no password,
        since the server itself uses it). `more` is additional configuration (XML).
        Raises ClickHouseMissing, ClickHouseFailed.
        """
        library = clickhouse_library()
        chosen = bool(port or http_port)
        for _ in range(START_TRIES):
            server = cls(directory, (port or _free_port(), http_port or _free_port()))
            server._configure({"users.xml": OPEN_USERS, **(files or {})}, more)
            if server._run(library):
                threading.Thread(target=server._keep, args=[library], name="clickhouse", daemon=True).start()
                return server
            server.kill()
            if chosen or "Address already in use" not in server.logged():
                break  # else another process took a port between our choosing it and the server's start
        raise ClickHouseFailed(
            f"ClickHouse did not start within {START_SECONDS_MAX} s: {server.logged().strip()[-300:]}",
            remedy=f"read {server.directory / LOG}",
        )

    @property
    def pid(self) -> int:
        """The process's id, which changes with a restart."""
        assert self._process is not None, "not started"
        return self._process.pid

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def logged(self) -> str:
        """Return its log since its first start."""
        return (self.directory / LOG).read_text("utf-8", "replace")

    def await_restart(self, pid: int) -> None:
        """Return when the process `pid` has ended and its successor answers. Raises ClickHouseFailed."""
        last = time.monotonic() + START_SECONDS_MAX
        while self.pid == pid or not self.alive() or not self._answers():
            if time.monotonic() > last:
                raise ClickHouseFailed("ClickHouse did not come back", remedy=f"read {self.directory / LOG}")
            time.sleep(LOOK_SECONDS)

    def stop(self) -> None:
        """End it gracefully: the engine is closed. Does nothing where it has ended."""
        with self._changing:
            self._given_up = True
            if self._process is None:
                return
            assert self._process.stdin is not None
            with suppress(OSError):
                self._process.stdin.close()
            try:
                self._process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def kill(self) -> None:
        """End it at once (SIGKILL), for good."""
        with self._changing:
            self._given_up = True
            if self._process is not None:
                self._process.kill()
                self._process.wait()
                assert self._process.stdin is not None
                self._process.stdin.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.stop()

    def _configure(self, files: Mapping[str, str], more: str) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        files = {**files, "config.xml": _CONFIG.format(users=self.directory / "users.xml", more=more)}
        for name, text in files.items():
            (self.directory / name).write_text(text)

    def _run(self, library: Path) -> bool:
        """Start the process, and return whether it answers."""
        command = [
            sys.executable, "-I", clickhouse_host.__file__, str(library),
            "--config-file", str(self.directory / "config.xml"), "--path", str(self.directory / "data"),
            "--listen_host", HOST, "--tcp_port", str(self.port), "--http_port", str(self.http_port), "--query", _SERVE,
        ]  # fmt: skip
        with (self.directory / LOG).open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603
                command,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=self.directory,
                start_new_session=True,
            )
        last = time.monotonic() + START_SECONDS_MAX
        while self.alive() and time.monotonic() < last:
            if self._answers():
                return True
            time.sleep(LOOK_SECONDS)
        return False

    def _answers(self) -> bool:
        connection = HTTPConnection(self.host, self.http_port, timeout=START_SECONDS_MAX)
        try:
            connection.request("GET", "/ping")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    def _keep(self, library: Path) -> None:
        """Restart the process whenever it ends, until `stop` or `kill`."""
        while not self._given_up:
            assert self._process is not None
            self._wait_for_end(self._process)
            with self._changing:
                if not self._given_up:
                    assert self._process.stdin is not None
                    self._process.stdin.close()
                    self._run(library)

    def _wait_for_end(self, process: "subprocess.Popen[bytes]") -> None:
        """Return when the process has ended. One that reports a fatal error is killed: its own end may take minutes."""
        with (self.directory / LOG).open("rb") as log:
            log.seek(0, SEEK_END)
            while process.poll() is None:
                if FATAL in log.read():
                    process.kill()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(FATAL_LOOK_SECONDS)


def _free_port() -> int:
    with create_server((HOST, 0)) as taken:
        return int(taken.getsockname()[1])
