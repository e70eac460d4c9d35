"""A client of the native protocol: one connection, one thread, one session of the engine."""

import select
import socket
import struct
import threading
from contextlib import suppress

from adledger.sinks.embedded import packets
from adledger.sinks.embedded.blocks import BLOCK_INFO
from adledger.sinks.embedded.buffers import Disconnected, SocketInbound
from adledger.sinks.embedded.compression import frames
from adledger.sinks.embedded.engine import Engine, Session
from adledger.sinks.embedded.errors import ServerError
from adledger.sinks.embedded.native_query import answer
from adledger.sinks.embedded.running import Figures, Register, Running

SEND_TIMEOUT_SECONDS = 300
"""A client that reads nothing for so long has gone away."""

HTTP_FIRST_BYTES = b"GPHOD"
_HTTP_HINT = (
    b"HTTP/1.0 400 Bad Request\r\n\r\nThis port is for clickhouse-client and drivers of the native protocol. "
    b"HTTP is on port %d.\r\n"
)


class NativeClient:
    """One connection. `serve` returns when it is closed, from either side."""

    def __init__(self, sock: socket.socket, engine: Engine, register: Register, http_port: int) -> None:
        self._socket = sock
        self._engine = engine
        self._http_port = http_port
        self._sending = threading.Lock()
        self._reported = Figures()
        self.register = register
        self.inbound = SocketInbound(sock)
        self.session: Session | None = None
        self.user = "default"
        self.revision = packets.REVISION
        self.cancelled = False
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_TIMEOUT_SECONDS, 0))

    def serve(self) -> None:
        """Answer until the client goes away or is told to."""
        try:
            self._greet()
            while True:
                self._packet()
                self.inbound.release()
        except (Disconnected, OSError):
            pass  # nobody is left to be told
        finally:
            if self.session is not None:
                self.session.close()
            self._socket.close()

    def close(self) -> None:
        """Wake the thread that serves, and have it end. May be called from any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def interrupt(self) -> None:
        """Wake the thread where it waits for more of the client; it can still answer. From any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def send(self, *parts: bytes) -> None:
        """Send bytes, nothing in between."""
        with self._sending:
            self._socket.sendall(parts[0] if len(parts) == 1 else b"".join(parts))

    def send_block(self, block: bytes, compression: int | None) -> None:
        """Send a block that is in Native format."""
        if compression is None:
            with self._sending:
                self._socket.sendall(packets.DATA_HEAD + BLOCK_INFO + block[:1400])
                self._socket.sendall(memoryview(block)[1400:])
        else:
            self.send(packets.DATA_HEAD, *frames(BLOCK_INFO + block, compression))

    def progress(self, query: Running, figures: Figures) -> None:
        """Tell the client how far its query is; the watch calls it. Nothing is sent while a block is."""
        if not self._sending.acquire(blocking=False):
            return
        try:
            if query.in_engine and self._writable():
                since, self._reported = self._reported, figures
                read = (
                    max(0, figures.read_rows - since.read_rows),
                    max(0, figures.read_bytes - since.read_bytes),
                )
                written = (
                    max(0, figures.written_rows - since.written_rows),
                    max(0, figures.written_bytes - since.written_bytes),
                )
                to_read = max(0, figures.rows_to_read - since.rows_to_read)
                self._socket.sendall(packets.progress(read, to_read, written))
        except OSError:
            pass  # the thread that serves finds out
        finally:
            self._sending.release()

    def _writable(self) -> bool:
        """Whether a small packet can be sent without waiting: the watch must not wait for one slow client."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(0))

    def gone(self) -> bool:
        """Whether the client went away or cancels its query; the watch asks while the engine works."""
        try:
            peeked = self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.cancelled = peeked == bytes([packets.CANCEL])
        return self.cancelled or not peeked

    def leave_engine(self, query: Running) -> None:
        """Note that the engine has done; no progress is sent from here on."""
        with self._sending:
            query.in_engine = False
            self._reported = Figures()

    def _greet(self) -> None:
        first = self.inbound.byte()
        if first in HTTP_FIRST_BYTES:
            self.send(_HTTP_HINT % self._http_port)
        if first != packets.HELLO:
            raise Disconnected("not the native protocol")
        hello = packets.read_hello(self.inbound)
        self.inbound.release()
        self.user, self.revision = hello.user.decode("utf-8", "replace") or "default", hello.revision
        try:
            packets.check_revision(hello.revision)
            self.session = self._engine.session(hello.database)
        except ServerError as e:
            self.send(packets.exception(e))
            raise Disconnected("refused") from None
        self.send(packets.hello(self._engine.version, self._engine.timezone, b"adledger embedded"))

    def _packet(self) -> None:
        kind = self.inbound.varint()
        if kind == packets.QUERY:
            answer(self, packets.read_query(self.inbound, self.revision))
        elif kind == packets.PING:
            self.send(packets.PONG)
        elif kind != packets.CANCEL:  # one that comes after its query has ended means nothing
            raise Disconnected(f"unexpected packet {kind}")
