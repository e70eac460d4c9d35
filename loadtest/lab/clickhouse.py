"""The embedded ClickHouse as a server that tests own: one process that can be killed, and restarted on its data."""

import os
import signal
from pathlib import Path
from types import TracebackType
from typing import Self

from adledger.pipeline.addresses import ServerAddress
from adledger.sinks.embedded.launch import EmbeddedServer

KILL_SECONDS_MAX = 10


class LocalClickHouse:
    """A server with its data in `directory`. `start` after `kill` or `stop` uses the same ports and data."""

    def __init__(self, directory: Path) -> None:
        """Start it and return when it answers. Raises SinkError."""
        self._server = EmbeddedServer.start(directory)
        self.address = ServerAddress(self._server.host, self._server.port, self._server.http_port)

    @property
    def pid(self) -> int:
        """The id of its current or last process."""
        return self._server.pid

    def start(self) -> Self:
        """Start it again on the same ports and data. Raises SinkError."""
        old = self._server
        old.stop()
        self._server = EmbeddedServer.start(old.directory, port=old.port, http_port=old.http_port)
        return self

    def kill(self) -> None:
        """Kill it (SIGKILL) and wait for its end. Raises TimeoutError."""
        os.kill(self.pid, signal.SIGKILL)
        self._server.wait(KILL_SECONDS_MAX)

    def stop(self) -> None:
        """Shut it down: running queries finish. Does nothing where it has ended."""
        self._server.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None
    ) -> None:
        self.stop()
