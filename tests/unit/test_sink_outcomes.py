"""From how an insert failed to its outcome, without anything guessed."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from clickhouse_driver.errors import (
    NetworkError,
    ServerException,
    SocketTimeoutError,
    UnexpectedPacketFromServerError,
)

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import InsertRefused, InsertUnknown, SinkUnavailable
from adledger.schemas.tables import ROLLUP_MINUTE
from adledger.sinks.clickhouse import ClickHouseSink
from adledger.sinks.connection import connect
from adledger.sinks.outcomes import OUTCOME_UNKNOWN, insert_outcome
from adledger.sinks.refused import query_refused
from adledger.sinks.sink import Stamp

LATE = (
    "DB::Exception: Constraint `in_time` for table db.events (0af) is violated at row 1. Expression: "
    "(toUnixTimestamp(nowInBlock()) <= send_by). Column values: send_by = 1. Stack trace:\n\nframes"
)


def test_the_deadlines_constraint_is_late() -> None:
    """Code 469 with our constraint is a refusal because of the deadline."""
    error = insert_outcome("events", ServerException(LATE, 469))
    assert isinstance(error, InsertRefused)
    assert (error.late, error.code) == (True, 469)
    assert "frames" not in str(error)


def test_another_constraint_is_not_late() -> None:
    """Code 469 of a constraint that somebody added is a refusal, but says nothing about time."""
    error = insert_outcome("events", ServerException(LATE.replace("in_time", "at_night"), 469))
    assert isinstance(error, InsertRefused)
    assert not error.late


def test_a_query_of_a_server_that_shuts_down_is_tried_again() -> None:
    """Code 236 makes reading SinkUnavailable, so that a restart of ClickHouse is waited for, and starts no lane again."""
    error = query_refused(ServerException("DB::Exception: The server is shutting down", 236))
    assert isinstance(error, SinkUnavailable)
    assert not error.refused
    assert not isinstance(query_refused(ServerException("DB::Exception: Syntax error", 62)), SinkUnavailable)


@pytest.mark.parametrize("code", sorted(OUTCOME_UNKNOWN))
def test_exceptions_that_may_come_after_the_part_are_unknown(code: int) -> None:
    """The server does not say whether the rows are stored, so the outcome is unknown."""
    assert isinstance(insert_outcome("events", ServerException("x", code)), InsertUnknown)


@pytest.mark.parametrize("code", [16, 60, 62, 241, 242, 243, 252, 285, 497])
def test_other_exceptions_are_refusals_with_their_code(code: int) -> None:
    """Missing column or table, syntax, memory, read-only, disk full, too many parts, replicas and access are refusals."""
    error = insert_outcome("events", ServerException("x", code))
    assert isinstance(error, InsertRefused)
    assert (error.late, error.code) == (False, code)


@pytest.mark.parametrize(
    "error",
    [EOFError("Unexpected EOF while reading bytes"), ConnectionResetError(), BrokenPipeError(), TimeoutError(),
     NetworkError("x"), SocketTimeoutError("x"), UnexpectedPacketFromServerError("x")],
)  # fmt: skip
def test_no_answer_is_unknown(error: Exception) -> None:
    """Whatever the network does after sending began leaves the outcome open."""
    assert isinstance(insert_outcome("events", error), InsertUnknown)


def test_a_bug_is_not_an_outcome() -> None:
    """An exception that is neither the server's nor the network's propagates."""
    with pytest.raises(KeyError):
        insert_outcome("events", KeyError("x"))


@contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[ServerAddress]:
    """Serve one connection on the loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            connection, _ = server.accept()
            with connection:
                serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        yield ServerAddress("127.0.0.1", server.getsockname()[1], 0, password="secret")
        thread.join()


def varint(number: int) -> bytes:
    return bytes([number]) if number < 128 else bytes([number & 127 | 128]) + varint(number >> 7)


def text(value: str) -> bytes:
    return varint(len(value)) + value.encode()


HELLO = b"\x00" + text("ClickHouse") + b"\x18\x01" + varint(54_423) + text("UTC") + text("here") + b"\x01"
REFUSED_HELLO = (
    b"\x02" + (516).to_bytes(4, "little") + text("DB::Exception") + text("default: Authentication failed: password")
    + text("") + b"\x00"
)  # fmt: skip


async def _insert(address: ServerAddress) -> None:
    sink = ClickHouseSink(address)
    try:
        columns = {name: [0] for name in ROLLUP_MINUTE}
        await sink.insert("rollup_minute", columns, Stamp(1, 1, 2**32 - 1))
    finally:
        await sink.close()


async def test_connection_refused_is_unavailable() -> None:
    """Nothing was sent, and the error names the address, without the password."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SinkUnavailable, match=f"127.0.0.1:{port}") as e:
        await _insert(ServerAddress("127.0.0.1", port, 0, password="secret"))
    assert "secret" not in str(e.value)
    assert e.value.remedy


async def test_a_name_that_does_not_resolve_is_unavailable() -> None:
    """DNS fails, so nothing was sent."""
    with pytest.raises(SinkUnavailable, match="nowhere"):
        await _insert(ServerAddress("nowhere.invalid", 9000, 0))


async def test_a_wrong_password_is_unavailable() -> None:
    """The server refuses the hello, so nothing of the insert was sent."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(REFUSED_HELLO)

    with listening(serve) as address:
        with pytest.raises(SinkUnavailable, match="Authentication failed") as e:
            await _insert(address)
        assert "password in the address" in e.value.remedy


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n"])
async def test_a_server_of_another_kind_is_unavailable(answer: bytes) -> None:
    """It closes at the hello, or speaks HTTP, so nothing of the insert was sent."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(answer)

    with listening(serve) as address, pytest.raises(SinkUnavailable):
        await _insert(address)


async def test_a_connection_lost_after_the_hello_is_unknown() -> None:
    """The query was on its way when the connection closed."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(HELLO)
        connection.recv(65_536)

    with listening(serve) as address, pytest.raises(InsertUnknown):
        await _insert(address)


def test_an_aborted_client_sends_nothing_more() -> None:
    """abort() also counts before there is a connection: the insert of a cancelled task is never sent."""

    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        connection.sendall(HELLO)
        assert connection.recv(65_536) == b""

    with listening(serve) as address, connect(address) as client:
        client.abort()
        with pytest.raises(SinkUnavailable, match="given up"):
            client.execute("SELECT 1")
