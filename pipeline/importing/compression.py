"""Decompressing a file by its content, not its name: gzip, bzip2, xz, zstd, also nested."""

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, cast

import zstandard

LAYERS_MAX = 3
"""Layers of compression that are removed; a file with more is read as it then is."""
ZSTD_WINDOW_BYTES_MAX = 128 * 1024 * 1024
"""Files made with `zstd --long=28` or more need a larger window, and are refused."""
ZSTD_READ_BYTES = 4 * 1024
"""Bytes that are decompressed at a time: bounds the memory for a file that expands a thousandfold."""

_SKIPPABLE = tuple(bytes([0x50 + n]) + b"\x2a\x4d\x18" for n in range(16))

DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError)
"""What decompressing raises for a damaged file; bzip2 raises OSError without an errno too."""


class _Zstd(io.RawIOBase):
    """A zstd stream of one or more frames. A file that ends within a frame is an error."""

    def __init__(self, packed: BinaryIO) -> None:
        self._packed = packed
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW_BYTES_MAX)
        self._frame = self._decompressor.decompressobj()
        self._begun = False
        self._out = b""
        self._in = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes; 0 at the end. Raises EOFError, zstandard.ZstdError."""
        while not self._out:
            data = self._in or self._packed.read(ZSTD_READ_BYTES)
            self._in = b""
            if not data:
                if self._begun:
                    raise EOFError("it ends in the middle of a zstd frame")
                return 0
            self._begun = True
            self._out = self._frame.decompress(data)
            if self._frame.eof:
                self._in = self._frame.unused_data
                self._frame = self._decompressor.decompressobj()
                self._begun = False
        n = min(len(buffer), len(self._out))
        buffer[:n] = self._out[:n]
        self._out = self._out[n:]
        return n


def _xz(packed: BinaryIO) -> BinaryIO:
    return cast("BinaryIO", lzma.LZMAFile(packed))


_OPENERS: tuple[tuple[tuple[bytes, ...], Callable[[BinaryIO], BinaryIO]], ...] = (
    ((b"\x1f\x8b",), lambda packed: cast("BinaryIO", gzip.GzipFile(fileobj=packed))),
    ((b"BZh",), lambda packed: cast("BinaryIO", bz2.BZ2File(packed))),
    ((b"\xfd7zXZ\x00",), _xz),
    ((b"\x28\xb5\x2f\xfd", *_SKIPPABLE), lambda packed: cast("BinaryIO", _Zstd(packed))),
)


def decompressed(stream: io.BufferedReader) -> io.BufferedReader:
    """Return a stream's decompressed bytes, or the stream itself if its compression is unknown or none."""
    for _ in range(LAYERS_MAX):
        start = stream.peek(16)
        opener = next((open_ for magics, open_ in _OPENERS if start.startswith(magics)), None)
        if opener is None:
            break
        stream = io.BufferedReader(cast("io.RawIOBase", opener(stream)), 1 << 16)
    return stream
