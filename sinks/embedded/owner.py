"""Ownership of a folder: one process at a time holds its lock as long as it lives, and writes its address into it."""

import fcntl
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from adledger.pipeline.errors import SinkError

LOCK = "server.lock"

NOTICING_SECONDS = 0.5
"""A server may take a moment to notice that its owner was killed."""

LEAVING_SECONDS_MAX = 20
"""A stopping server finishes its queries first; a starting one opens its tables."""

POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class Listening:
    """A running server: its process, and where it listens."""

    pid: int
    host: str
    port: int
    http_port: int


class Ownership:
    """The right to serve `directory`, held until `release` or the end of the process, even by SIGKILL."""

    def __init__(self, directory: Path) -> None:
        """Take it. Raises SinkError where another process has it, or where the folder can't be written."""
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._file = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as e:
            raise SinkError(
                f"the embedded ClickHouse can't use {directory}: {e.strerror}",
                remedy="name a writable folder",
            ) from None
        began = time.monotonic()
        while not _locked(self._file):
            owner = _read(self._file)
            if time.monotonic() - began > (LEAVING_SECONDS_MAX if owner is None else NOTICING_SECONDS):
                os.close(self._file)
                raise _taken(directory, owner)
            time.sleep(POLL_SECONDS)
        os.truncate(self._file, 0)

    def publish(self, listening: Listening) -> None:
        """Write into the lock where the server listens."""
        os.pwrite(self._file, json.dumps(asdict(listening)).encode(), 0)

    def withdraw(self) -> None:
        """Clear the address: the server is stopping."""
        os.truncate(self._file, 0)

    def release(self) -> None:
        """Release the folder to other processes."""
        os.truncate(self._file, 0)
        os.close(self._file)


def find(directory: Path) -> Listening | None:
    """Return the server that serves a folder now, None where none does or where it has not started yet."""
    try:
        file = os.open(directory / LOCK, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(file)
    finally:
        os.close(file)
    return None


def _locked(file: int) -> bool:
    """Take the lock if it is free."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: int) -> Listening | None:
    try:
        return Listening(**json.loads(os.pread(file, 4096, 0)))
    except (ValueError, TypeError):
        return None  # it is starting or stopping


def _taken(directory: Path, owner: Listening | None) -> SinkError:
    if owner is None:
        return SinkError(
            f"the embedded ClickHouse of {directory} is starting or stopping in another process",
            remedy="try again in a moment",
        )
    return SinkError(
        f"the embedded ClickHouse of {directory} is already run by process {owner.pid}",
        remedy=f"use that one, --clickhouse 'clickhouse://{owner.host}:{owner.port}/?http_port={owner.http_port}', "
        f"or end it: kill {owner.pid}",
    )
