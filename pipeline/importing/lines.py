"""Reading a file of lines, plain, gzip or bzip2, in pieces of bounded size."""

import bz2
import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO, cast

from adledger.pipeline.errors import UsageError

CHUNK_BYTES = 4 * 1024 * 1024
"""So much is read, parsed and appended at a time: it bounds the importer's memory."""
LINE_BYTES_MAX = 16 * 1024 * 1024
"""A longer line (the contract's limit is 16 KiB) means that the file is not one of lines; the import ends with it."""

_GZIP_MAGIC, _BZIP2_MAGIC = b"\x1f\x8b", b"BZh"


@dataclass(frozen=True, slots=True)
class LineChunk:
    """Consecutive lines without their ends (LF or CRLF); the first has number `first_line`, from 1.

    `bytes_done` of the file's bytes, as they lie on the disk, have been read so far (0: not known).
    """

    lines: list[bytes]
    first_line: int
    bytes_done: int


def read_chunks(path: Path) -> Iterator[LineChunk]:
    """Yield a file's lines. Raises UsageError: it is not there, not readable, damaged, or not one of lines."""
    try:
        with path.open("rb") as raw:
            yield from _chunks(path, raw, _unpacked(raw))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno is None:  # bzip2's way to say so
            raise _damaged(path, error) from error
        raise UsageError(
            f"{path} can't be read: {error.strerror}", remedy="Name a file that this user may read."
        ) from error


def _unpacked(raw: BufferedReader) -> BinaryIO:
    start = raw.peek(len(_BZIP2_MAGIC))
    if start.startswith(_GZIP_MAGIC):
        return cast("BinaryIO", gzip.GzipFile(fileobj=raw))
    if start.startswith(_BZIP2_MAGIC):
        return cast("BinaryIO", bz2.BZ2File(raw))
    return raw


def _damaged(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"{path} is a damaged packed file: {error}",
        remedy="Fetch or pack it again and import it again; what was written before bills once all the same.",
    )


def file_bytes(path: Path) -> int:
    """Return a file's size, or 0 when it has none that is known (a pipe, or it is not there)."""
    try:
        return os.stat(path).st_size  # noqa: PTH116 - follows /dev/stdin too
    except OSError:
        return 0


def _chunks(path: Path, raw: BinaryIO, stream: BinaryIO) -> Iterator[LineChunk]:
    number, rest = 1, b""
    while data := stream.read(CHUNK_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > LINE_BYTES_MAX:
            raise UsageError(
                f"{path}, line {number + len(lines)} is longer than {LINE_BYTES_MAX:,} bytes",
                remedy="Name a file of lines; archives packed otherwise than by gzip or bzip2 must be unpacked first.",
            )
        if lines:
            yield LineChunk([line.removesuffix(b"\r") for line in lines], number, _place(raw))
        number += len(lines)
    if rest:
        yield LineChunk([rest.removesuffix(b"\r")], number, _place(raw))


def _place(raw: BinaryIO) -> int:
    return raw.tell() if raw.seekable() else 0  # a pipe has no place
