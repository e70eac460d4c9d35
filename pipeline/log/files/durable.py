"""Files that survive a crash: written whole or not at all, and on the disk when the call returns."""

import os
from pathlib import Path

from adledger.pipeline.errors import LogError


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries (files created, renamed, removed) to the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file's content atomically: readers see the old or the new content, also after a crash. Raises OSError."""
    fresh = path.with_name(path.name + ".new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        write_all(fd, data, 0)
        os.fsync(fd)
    finally:
        os.close(fd)
    fresh.replace(path)
    sync_folder(path.parent)


def write_all(fd: int, data: bytes | memoryview, position: int) -> None:
    """Write all bytes at a position of a file. Raises OSError (a part may have been written)."""
    view = memoryview(data)
    while view:
        written = os.pwrite(fd, view, position)
        view, position = view[written:], position + written


def not_written(path: Path, error: OSError) -> LogError:
    """Return the error for a write to a log's file that failed."""
    return LogError(
        f"{path} can't be written: {error.strerror}",
        remedy="Free disk space or restore the folder's permissions, then run the command again; acknowledged records are safe.",
    )


def not_read(path: Path, error: OSError) -> LogError:
    """Return the error for a read of a log's file that failed."""
    return LogError(
        f"{path} can't be read: {error.strerror}",
        remedy="Restore the folder or its permissions; a log's files must not be moved or removed by hand.",
    )
