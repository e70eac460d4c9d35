"""A client of the native protocol: one connection, one thread, one session of the engine."""

import socket

from adledger.sinks.embedded import packets
from adledger.sinks.embedded.buffers import Disconnected
from adledger.sinks.embedded.engine import Engine
from adledger.sinks.embedded.errors import ServerError
from adledger.sinks.embedded.native_connection import NativeConnection
from adledger.sinks.embedded.native_query import answer
from adledger.sinks.embedded.running import Register

HTTP_FIRST_BYTES = b"GPHOD"
_HTTP_HINT = (
    b"HTTP/1.0 400 Bad Request\r\n\r\nThis port is for clickhouse-client and drivers of the native protocol. "
    b"HTTP is on port %d.\r\n"
)


class NativeClient:
    """One connection. `serve` returns when either side closes it."""

    def __init__(self, sock: socket.socket, engine: Engine, register: Register, http_port: int) -> None:
        self._connection = NativeConnection(sock, register)
        self._engine = engine
        self._http_port = http_port

    def serve(self) -> None:
        """Answer until the client goes away, or until `close`."""
        try:
            self._greet()
            while True:
                self._packet()
                self._connection.inbound.release()
        except (Disconnected, OSError):
            pass  # the client is gone, and can't get the error
        finally:
            self._connection.release()

    def interrupt(self) -> None:
        """Wake the thread where it waits for the client; it can still answer. From any thread."""
        self._connection.interrupt()

    def close(self) -> None:
        """Wake the serving thread, and make it end. May be called from any thread."""
        self._connection.close()

    def _greet(self) -> None:
        connection = self._connection
        first = connection.inbound.byte()
        if first in HTTP_FIRST_BYTES:
            connection.send(_HTTP_HINT % self._http_port)
        if first != packets.HELLO:
            raise Disconnected("not the native protocol")
        hello = packets.read_hello(connection.inbound)
        connection.inbound.release()
        connection.user = hello.user.decode("utf-8", "replace") or "default"
        connection.revision = hello.revision
        try:
            packets.check_revision(hello.revision)
            connection.session = self._engine.session(hello.database)
        except ServerError as e:
            connection.send(packets.exception(e))
            raise Disconnected("refused") from None
        connection.send(packets.hello(self._engine.version, self._engine.timezone, b"adledger embedded"))

    def _packet(self) -> None:
        connection = self._connection
        kind = connection.inbound.varint()
        if kind == packets.QUERY:
            answer(connection, packets.read_query(connection.inbound, connection.revision))
        elif kind == packets.PING:
            connection.send(packets.PONG)
        elif kind != packets.CANCEL:  # a CANCEL after the end of its query is ignored
            raise Disconnected(f"unexpected packet {kind}")
