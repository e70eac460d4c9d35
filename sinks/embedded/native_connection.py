"""A connection of the native protocol: sending, and watching the client meanwhile."""

import select
import socket
import struct
import threading
from contextlib import suppress

from adledger.sinks.embedded import packets
from adledger.sinks.embedded.blocks import BLOCK_INFO
from adledger.sinks.embedded.buffers import SocketInbound
from adledger.sinks.embedded.compression import frames
from adledger.sinks.embedded.engine import Session
from adledger.sinks.embedded.running import Figures, Register, Running

SEND_TIMEOUT_SECONDS = 300
"""A client that reads nothing for this long has gone away."""


class NativeConnection:
    """One connection: its socket, its session of the engine, and the state of its client.

    One thread serves it; `close`, `interrupt`, `progress` and `gone` are called from others.
    """

    def __init__(self, sock: socket.socket, register: Register) -> None:
        self._socket = sock
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

    def release(self) -> None:
        """Release the session and the socket, at the end of the serving thread."""
        if self.session is not None:
            self.session.close()
        self._socket.close()

    def close(self) -> None:
        """Wake the serving thread, and make it end. May be called from any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def interrupt(self) -> None:
        """Wake the thread where it waits for the client; it can still answer. From any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def send(self, *parts: bytes) -> None:
        """Send the parts without anything in between."""
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
        """Send the client its query's progress; the watch calls this. Nothing is sent while a block is being sent."""
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
            pass  # the serving thread finds out
        finally:
            self._sending.release()

    def _writable(self) -> bool:
        """Whether a small packet can be sent without blocking: the watch must not wait for one slow client."""
        poll = select.poll()
        poll.register(self._socket, select.POLLOUT)
        return bool(poll.poll(0))

    def gone(self) -> bool:
        """Whether the client went away or cancels its query; the watch checks it while the engine works."""
        try:
            peeked = self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True
        self.cancelled = peeked == bytes([packets.CANCEL])
        return self.cancelled or not peeked

    def leave_engine(self, query: Running) -> None:
        """Record that the engine is done; no more progress is sent."""
        with self._sending:
            query.in_engine = False
            self._reported = Figures()
