"""ClickHouse's compressed frames: CityHash128 of what follows, method, both sizes, the compressed bytes."""

from struct import Struct

import lz4.block  # type: ignore[import-untyped]
import zstd  # type: ignore[import-untyped]
from clickhouse_cityhash.cityhash import CityHash128  # type: ignore[import-untyped]

from adledger.sinks.embedded.buffers import Disconnected, Inbound

LZ4, ZSTD, NONE = 0x82, 0x90, 0x02
FRAME_BYTES = 1 << 20
"""Data in a frame that we send, at most."""

FRAME_BYTES_MAX = 1 << 30

_HEADER = Struct("<BII")  # method, compressed size with this header, size of the data


def frames(data: bytes, method: int) -> list[bytes]:
    """Return the data as frames."""
    view = memoryview(data)
    return [frame(view[at : at + FRAME_BYTES], method) for at in range(0, len(view), FRAME_BYTES)]


def frame(data: bytes | memoryview, method: int) -> bytes:
    """Return one frame with the data."""
    packed = zstd.compress(bytes(data), 1) if method == ZSTD else lz4.block.compress(data, store_size=False)
    stated = _HEADER.pack(method, _HEADER.size + len(packed), len(data)) + packed
    return _checksum(stated) + stated


def unframed(method: int, packed: bytes | memoryview, size: int) -> bytes:
    """Return the data of a frame. Raises Disconnected for an invalid frame."""
    try:
        if method == LZ4:
            return bytes(lz4.block.decompress(packed, uncompressed_size=size))
        if method == ZSTD:
            return bytes(zstd.decompress(bytes(packed)))
    except (lz4.block.LZ4BlockError, zstd.Error) as e:
        raise Disconnected(f"a compressed frame that can't be read: {e}") from None
    if method == NONE:
        return bytes(packed)
    raise Disconnected(f"unknown compression method {method:#x}")


def _checksum(stated: bytes) -> bytes:
    """Return the hash as it is sent: its high half first, as clickhouse-driver and ClickHouse write it."""
    whole = CityHash128(stated)
    return (whole >> 64).to_bytes(8, "little") + (whole & (1 << 64) - 1).to_bytes(8, "little")


class FrameInbound(Inbound):
    """The data of another stream's compressed frames."""

    def __init__(self, outer: Inbound) -> None:
        super().__init__()
        self._outer = outer
        self._frame = memoryview(b"")

    def _receive(self, data: bytearray, at: int, wanted: int) -> int:  # noqa: ARG002 - takes what there is
        if not self._frame:
            self._frame = memoryview(self._next_frame())
        count = min(len(self._frame), len(data) - at)
        data[at : at + count] = self._frame[:count]
        self._frame = self._frame[count:]
        return count

    def _next_frame(self) -> bytes:
        checksum = self._outer.take(16)
        mark = self._outer.mark()
        method, stated_size, size = _HEADER.unpack(self._outer.take(_HEADER.size))
        if not _HEADER.size <= stated_size <= FRAME_BYTES_MAX or not 0 < size <= FRAME_BYTES_MAX:
            raise Disconnected(f"a compressed frame of {stated_size} bytes with {size} bytes of data")
        self._outer.skip(stated_size - _HEADER.size)
        with self._outer.since(mark) as stated:
            if _checksum(bytes(stated)) != checksum:
                raise Disconnected("a compressed frame whose checksum does not match")
            data = unframed(method, stated[_HEADER.size :], size)
        self._outer.release()
        return data
