"""Bytes from a client, kept contiguous for as long as they are needed.

`Inbound` is a window of a stream: `at` is the reader's position, and bytes before it stay until `release`. So a reader
that has stepped over a block has all of its bytes, without a copy.
"""

import socket

READ_BYTES = 256 * 1024
WINDOW_BYTES_MAX = 1 << 30
"""A block must fit; ClickHouse's own clients send a million rows a block at most."""

KEEP_BYTES = 32 << 20
"""A window that has grown beyond this is freed once it is empty."""


class Disconnected(Exception):  # noqa: N818 - an outcome
    """The client went away, or it does not speak the protocol."""


class Inbound:
    """A window of a stream of bytes; `_receive` brings more."""

    def __init__(self) -> None:
        self._data = bytearray(READ_BYTES)
        self._begin = 0  # of the window
        self._end = 0
        self.at = 0

    def need(self, size: int) -> int:
        """Make `size` bytes from `at` readable and return their index in `data`, which is `at`."""
        if self._end - self.at < size:
            self._make_room(size)
            while self._end - self.at < size:
                self._end += self._receive(self._data, self._end, size - (self._end - self.at))
        return self.at

    @property
    def data(self) -> bytearray:
        """The bytes; valid as far as the last `need` ensured, until its next call."""
        return self._data

    @property
    def received(self) -> int:
        """Index after the last byte that is available without waiting."""
        return self._end

    def take(self, size: int) -> bytes:
        """Return `size` bytes and step over them."""
        at = self.need(size)
        self.at = at + size
        return bytes(self._data[at : self.at])

    def skip(self, size: int) -> None:
        """Step over `size` bytes."""
        self.need(size)
        self.at += size

    def byte(self) -> int:
        """Return a byte and step over it."""
        at = self.need(1)
        self.at = at + 1
        return self._data[at]

    def varint(self) -> int:
        """Return an unsigned LEB128 number and step over it."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7
            if shift > 63:
                raise Disconnected("a number of more than 64 bits")

    def string(self) -> bytes:
        """Return a string with its length before it, and step over both."""
        return self.take(self.varint())

    def uint64(self) -> int:
        """Return a little-endian number of 8 bytes and step over it."""
        return int.from_bytes(self.take(8), "little")

    def mark(self) -> int:
        """Return the position of `at`, for `since`; nothing may be released until then."""
        return self.at - self._begin

    def since(self, mark: int) -> memoryview:
        """Return the bytes from a mark to `at`; the view must be dropped before anything else is read."""
        return memoryview(self._data)[self._begin + mark : self.at]

    def release(self) -> None:
        """Drop the bytes before `at`: this invalidates marks."""
        self._begin = self.at
        if self.at == self._end:
            self._begin = self._end = self.at = 0
            if len(self._data) > KEEP_BYTES:
                self._data = bytearray(READ_BYTES)

    def _make_room(self, size: int) -> None:
        """Make room for `size` bytes from `at` and one more read; indices move, marks stay valid."""
        kept = self._end - self._begin
        wanted = (self.at - self._begin) + size + READ_BYTES
        if wanted > WINDOW_BYTES_MAX:
            raise Disconnected(f"a block of more than {WINDOW_BYTES_MAX} bytes")
        if self._begin + wanted <= len(self._data):
            return
        if wanted <= len(self._data):
            self._data[:kept] = self._data[self._begin : self._end]
        else:
            grown = bytearray(max(wanted, 2 * kept))
            grown[:kept] = memoryview(self._data)[self._begin : self._end]
            self._data = grown
        self.at -= self._begin
        self._begin, self._end = 0, kept

    def _receive(self, data: bytearray, at: int, wanted: int) -> int:
        """Write at least one byte to data[at:], `wanted` if they are available; return how many."""
        raise NotImplementedError


class SocketInbound(Inbound):
    """The stream of a client's socket."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self._socket = sock

    def _receive(self, data: bytearray, at: int, wanted: int) -> int:  # noqa: ARG002 - takes what there is
        with memoryview(data) as view:
            count = self._socket.recv_into(view[at:])
        if count == 0:
            raise Disconnected("end of stream")
        return count


class BytesInbound(Inbound):
    """A stream over bytes in memory."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = bytearray(data)
        self._end = len(data)

    def _receive(self, data: bytearray, at: int, wanted: int) -> int:  # noqa: ARG002 - has no more
        raise Disconnected(f"{wanted} bytes more were to come")
