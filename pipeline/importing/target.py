"""Where an import goes: a log that is inspected first, and opened for writing once the files have been examined."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.records import ParsedRecord
from adledger.pipeline.kernels.hashing import hash_all
from adledger.pipeline.log.files.ends import EndsFile
from adledger.pipeline.log.files.manifest import BOTH, CLICKS, IMPRESSIONS, MANIFEST, Manifest, read_manifest
from adledger.pipeline.log.files.writer import FilesLogWriter
from adledger.pipeline.log.record_block import RecordBlock
from adledger.pipeline.log.source import Topology
from adledger.pipeline.records.encoded import READ_AHEAD_BYTES
from adledger.schemas.wire import TOPIC_CLICKS, TOPIC_IMPRESSIONS


class LogWriter(AbstractContextManager["LogWriter"], Protocol):
    """A log that is written to. Leaving its context flushes and closes it."""

    @property
    def topology(self) -> Topology:
        """Its topics, their kinds and width."""

    def append(self, topic: int, partition: int, block: RecordBlock) -> object:
        """Append records, in order; durable and visible after `flush`. Raises LogError."""

    def log_time_max(self, partition: int) -> int:
        """Return the largest log time (ms) that a lane had before, over all its topics; -1 if it was empty."""

    def flush(self) -> None:
        """Make everything appended durable and visible. Raises LogError."""

    def records_written(self) -> int:
        """Return how many records of this writer are certainly durable, even after a failure."""


@dataclass(frozen=True, slots=True)
class TargetView:
    """What an import must know of a log: its topology, and the largest log time (ms) of each lane, -1 if empty.

    `folder` is that of an existing `files:` log, whose records can be compared with a file's.
    """

    topology: Topology
    lane_log_times: tuple[int, ...]
    folder: Path | None = None


class ImportTarget(Protocol):
    """A log that records are written to."""

    def view(self) -> TargetView:
        """Return the log's state, and create nothing. Raises UsageError, LogError."""

    def open(self) -> LogWriter:
        """Open the log for writing; a folder is created if missing. Raises UsageError, LogError."""


@dataclass(frozen=True, slots=True)
class FilesTarget:
    """The log in a folder; `partitions` and `topics` are those of a new one."""

    folder: Path
    partitions: int | None = None
    topics: Sequence[str] = (TOPIC_IMPRESSIONS, TOPIC_CLICKS)

    def view(self) -> TargetView:
        """Return the log's state, or that of the log that would be created."""
        if not (self.folder / MANIFEST).exists():
            planned = _planned(self.partitions, self.topics)
            return TargetView(planned.topology, (-1,) * planned.partitions)
        manifest = read_manifest(self.folder)
        _check_width(self.folder, manifest.partitions, self.partitions)
        ends = EndsFile(self.folder, manifest).refresh()
        lanes = range(manifest.partitions)
        return TargetView(
            manifest.topology, tuple(max(row[p].log_time_max for row in ends) for p in lanes), self.folder
        )

    def open(self) -> LogWriter:
        """Open the log, or create it."""
        return open_log(self.folder, self.partitions, self.topics)


class OpenedTarget:
    """A log that must be opened to be inspected, such as Kafka's."""

    def __init__(self, open_writer: Callable[[], LogWriter]) -> None:
        self._open_writer = open_writer
        self._writer: LogWriter | None = None

    def view(self) -> TargetView:
        """Open the log, and return its state."""
        writer = self.open()
        lanes = range(writer.topology.partitions)
        return TargetView(writer.topology, tuple(map(writer.log_time_max, lanes)))

    def open(self) -> LogWriter:
        """Return the one writer."""
        if self._writer is None:
            self._writer = self._open_writer()
        return self._writer

    def close(self) -> None:
        """Close the log if it was opened."""
        if self._writer is not None:
            self._writer.__exit__(None, None, None)


def open_log(
    log: Path, partitions: int | None = None, topics: Sequence[str] = (TOPIC_IMPRESSIONS, TOPIC_CLICKS)
) -> FilesLogWriter:
    """Open the log in a folder for writing, or create one. Raises UsageError, LogError."""
    if not (log / MANIFEST).exists():
        return FilesLogWriter.create(log, _planned(partitions, topics))
    writer = FilesLogWriter(log)
    try:
        _check_width(log, writer.manifest.partitions, partitions)
    except UsageError:
        writer.close()
        raise
    return writer


def _planned(partitions: int | None, topics: Sequence[str]) -> Manifest:
    kinds = (IMPRESSIONS, CLICKS) if len(topics) == 2 else (BOTH,)
    named = tuple(zip(topics, kinds, strict=True))
    return Manifest.new(topics=named) if partitions is None else Manifest.new(partitions, named)


def _check_width(log: Path, has: int, partitions: int | None) -> None:
    if partitions not in {None, has}:
        raise UsageError(
            f"the log {log} has {has} partitions, not {partitions}",
            remedy="Remove --partitions, or name another folder: the number is fixed when a log is created.",
        )


def partitions_of(records: Sequence[ParsedRecord], partitions: int) -> list[int]:
    """Return each record's partition: by Java's default partitioner from its key, 0 without a key."""
    keys = [record.key or b"" for record in records]
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    buffer = np.frombuffer(b"".join(keys) + bytes(READ_AHEAD_BYTES), np.uint8)
    addresses = buffer.ctypes.data + np.cumsum(lengths) - lengths
    hashes, found = np.empty(len(keys), np.uint64), np.empty(len(keys), np.uint64)
    hash_all(addresses, lengths, np.uint64(partitions), hashes, found)
    found[lengths == 0] = 0
    partition_of_each: list[int] = found.tolist()
    return partition_of_each
