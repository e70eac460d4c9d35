"""Reading a file of lines, compressed or not, in chunks of bounded size."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.compression import DAMAGED, decompressed

CHUNK_BYTES = 4 * 1024 * 1024
"""Bytes that are read, parsed and appended at a time: bounds the importer's memory."""
LINE_BYTES_MAX = 256 * 1024
"""Longer lines are truncated to this. No event is longer than 16 KiB, so such a line is a dead letter either way."""

_UTF8_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class LineChunk:
    """Consecutive lines without their ends (LF or CRLF); the first has number `first_line`, from 1.

    `bytes_done` of the file's bytes, as stored on disk, have been read so far (0: unknown). If `cut_from` is not 0, the
    chunk is one truncated line, and `cut_from` is its full length.
    """

    lines: list[bytes]
    first_line: int
    bytes_done: int
    cut_from: int = 0


def read_chunks(path: Path) -> Iterator[LineChunk]:
    """Yield a file's lines. Raises UsageError if it is missing, unreadable or damaged."""
    with _opened(path) as raw:
        yield from _Lines(raw).chunks(decompressed(raw))


def read_head(path: Path, size: int) -> bytes:
    """Return a file's first bytes, decompressed. Raises UsageError as `read_chunks` does."""
    with _opened(path) as raw:
        return decompressed(raw).read(size)


@contextmanager
def _opened(path: Path) -> Iterator[BufferedReader]:
    try:
        with path.open("rb") as raw:
            yield raw
    except DAMAGED as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno is None:  # how bzip2 reports damage
            raise _damaged(path, error) from error
        raise UsageError(
            f"cannot read {path}: {error.strerror}", remedy="Name a file that this user may read."
        ) from error


def _damaged(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{path} is a damaged compressed file: {error}",
        remedy="Fetch or compress it again. After an import, import it again: lines that are in the log already bill nothing.",
    )


def file_bytes(path: Path) -> int:
    """Return a file's size, or 0 if it is unknown (a pipe, a missing file)."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - follows /dev/stdin too
    except OSError:
        return 0


class _Lines:
    """Splits a stream into lines, each truncated to `LINE_BYTES_MAX`."""

    def __init__(self, raw: BufferedReader) -> None:
        self._raw = raw
        self._number = 1
        self._rest = b""
        self._skipped = 0  # bytes of the line in `_rest` that were read and dropped

    def chunks(self, stream: BinaryIO) -> Iterator[LineChunk]:
        """Yield the stream's lines; a byte order mark at its start is skipped."""
        start = stream.read(len(_UTF8_BOM))
        data = start.removeprefix(_UTF8_BOM) + stream.read(CHUNK_BYTES)
        while data:
            *lines, rest = self._after_cut(data) if self._skipped else (self._rest + data).split(b"\n")
            yield from self._whole(lines)
            self._keep(rest)
            data = stream.read(CHUNK_BYTES)
        if self._rest:
            yield from self._whole([self._rest])

    def _after_cut(self, data: bytes) -> list[bytes]:
        """Return the lines of `data`, whose first is the end of the long line in `_rest`."""
        tail, newline, more = data.partition(b"\n")
        self._skipped += len(tail)
        return [self._rest, *more.split(b"\n")] if newline else [self._rest]

    def _keep(self, rest: bytes) -> None:
        if len(rest) > LINE_BYTES_MAX:
            self._skipped += len(rest) - LINE_BYTES_MAX
            rest = rest[:LINE_BYTES_MAX]
        self._rest = rest

    def _whole(self, lines: list[bytes]) -> Iterator[LineChunk]:
        """Yield complete lines; one that is too long gets its own chunk."""
        begin = 0
        for at, line in enumerate(lines):
            skipped, self._skipped = self._skipped, 0
            if len(line) + skipped <= LINE_BYTES_MAX:
                continue
            if at > begin:
                yield self._chunk(lines[begin:at])
            yield self._chunk([line[:LINE_BYTES_MAX]], cut_from=len(line) + skipped)
            begin = at + 1
        if begin < len(lines):
            yield self._chunk(lines[begin:])

    def _chunk(self, lines: list[bytes], cut_from: int = 0) -> LineChunk:
        first, self._number = self._number, self._number + len(lines)
        done = self._raw.tell() if self._raw.seekable() else 0  # a pipe has no position
        return LineChunk([line.removesuffix(b"\r") for line in lines], first, done, cut_from)
