"""What a client does when it can't connect to ClickHouse."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import SinkUnavailable
from adledger.sinks import connection

HOST = "127.0.0.1"


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ports that were probed."""
    found: list[int] = []
    monkeypatch.setattr(connection, "probed", lambda _, port: found.append(port))
    return found


@contextmanager
def closing_port() -> Iterator[int]:
    """Yield a port whose server closes each connection at once."""
    with socket.create_server((HOST, 0)) as server:

        def serve() -> None:
            while True:
                try:
                    accepted, _ = server.accept()
                except OSError:
                    return
                accepted.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield int(server.getsockname()[1])
        server.shutdown(socket.SHUT_RDWR)
        thread.join()


def connect_to(port: int) -> None:
    with connection.connect(ServerAddress(HOST, port, 1)) as client:
        client.execute("SELECT 1")


def test_where_nothing_listens_no_tls_is_tried(probes: list[int]) -> None:
    """A server that starts meanwhile would otherwise log an error for each worker that waits for it."""
    with socket.create_server((HOST, 0)) as taken:
        port = int(taken.getsockname()[1])
    with pytest.raises(SinkUnavailable, match="Connection refused"):
        connect_to(port)
    assert probes == []


def test_a_server_that_closes_connections_may_expect_tls(probes: list[int]) -> None:
    """It is probed, to name the cause."""
    with closing_port() as port:
        with pytest.raises(SinkUnavailable, match="no connection"):
            connect_to(port)
        assert probes
        assert set(probes) == {port}
