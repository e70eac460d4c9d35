"""Inspecting a lock never keeps its owner out."""

import fcntl
import os
import threading

import pytest

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.files.lock import FileLock, held_by


def test_inspecting_is_not_owning(tmp_path):
    """A lock that another process inspects can be taken as soon as the inspection is over."""
    path = tmp_path / "lock"
    path.touch()
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    over = threading.Timer(0.03, os.close, (looking,))
    over.start()
    lock = FileLock.acquire(path, "the log")
    over.join()
    assert held_by(path) == os.getpid()
    lock.release()
    assert held_by(path) is None


def test_an_owner_keeps_others_out(tmp_path):
    """While one process owns it, another one's error names the owner."""
    path = tmp_path / "lock"
    lock = FileLock.acquire(path, "the log")
    with pytest.raises(LogError, match=f"the log is in use by process {os.getpid()}"):
        FileLock.acquire(path, "the log")
    lock.release()
    FileLock.acquire(path, "the log").release()
