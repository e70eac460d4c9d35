"""One owner at a time: an advisory lock, which the system releases when the owner dies."""

import fcntl
import os
import time
from contextlib import suppress
from pathlib import Path

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.files.durable import not_written, write_all

_TRIES, _TRY_AGAIN_SECONDS = 5, 0.02
"""`held_by` takes a lock for some microseconds to see whether it is free: that is not an owner, so acquiring waits this long."""


class FileLock:
    """An exclusive lock on a file, whose content is the holder's process id."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    @classmethod
    def acquire(cls, path: Path, what: str) -> "FileLock":
        """Take the lock. Raises LogError, naming `what` and the process that holds it, if it stays held for a tenth of a second."""
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise not_written(path, error) from error
        try:
            _lock(fd)
        except OSError as error:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip()
            os.close(fd)
            raise LogError(
                f"{what} is in use by process {holder or '(starting)'}",
                remedy="Wait until it ends or stop it; one process at a time may use it.",
            ) from error
        try:
            os.ftruncate(fd, 0)
            write_all(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(fd)
            raise not_written(path, error) from error
        return cls(fd)

    def release(self) -> None:
        """Release the lock. A second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _lock(fd: int) -> None:
    """Lock a file exclusively. Raises OSError when another process holds the lock."""
    for _ in range(_TRIES - 1):
        with suppress(BlockingIOError):
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(_TRY_AGAIN_SECONDS)
    return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def held_by(path: Path) -> int | None:
    """Return the process that holds a lock, or None. Takes the lock for a moment, shared with other callers of this."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        text = os.pread(fd, 32, 0).strip()
        return int(text) if text.isdigit() else None  # else its new holder has not written its id yet
    else:
        return None
    finally:
        os.close(fd)
