"""Import one file: parse, place, stamp, append, in the file's own order."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from pipeline.errors import AdledgerError, LogError, UsageError
from pipeline.importing.formats import line_format
from pipeline.importing.lines import file_bytes, read_chunks
from pipeline.importing.records import ParsedRecord
from pipeline.importing.stamping import LogClock
from pipeline.kernels.hashing import hash_all
from pipeline.log.files.manifest import BOTH, CLICKS, IMPRESSIONS, MANIFEST, Manifest
from pipeline.log.files.writer import FilesLogWriter
from pipeline.log.record_block import Record, RecordBlock
from pipeline.log.source import READ_AHEAD_BYTES, Topology
from schemas.wire import TOPIC_CLICKS, TOPIC_IMPRESSIONS, EventType

FLUSH_CHUNKS = 16
"""How many chunks are appended between two flushes: what an import that is cut off may lose, and readers wait for."""

_AGAIN = "import the whole file again: what is there already bills nothing"

Progress = Callable[[int, int], None]
"""Told how many bytes of the file were read, of how many (0: unknown)."""


class LogWriter(AbstractContextManager["LogWriter"], Protocol):
    """A log that is written to. Leaving its context flushes and closes it."""

    @property
    def topology(self) -> Topology:
        """Its topics, their kinds and width."""

    def append(self, topic: int, partition: int, block: RecordBlock) -> object:
        """Append records, in order; durable and visible after `flush`. Raises LogError."""

    def log_time_max(self, partition: int) -> int:
        """Return the largest log time (ms) that a lane held before, over all its topics; -1 when it was empty."""

    def flush(self) -> None:
        """Make everything appended durable and visible. Raises LogError."""

    def records_written(self) -> int:
        """Return how many records of this writer are certainly durable, also after a failure."""


class ImportInterrupted(AdledgerError):  # noqa: N818 - an outcome
    """A person stopped the import."""

    exit_code = 130


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import wrote: records in all, by topic, and those of lines that could not be read (among both)."""

    records: int
    by_topic: dict[str, int]
    unreadable: int
    partitions: int


def import_file(
    path: Path,
    format_name: str,
    log: Path,
    *,
    started_at_ms: int,
    id_prefix: str | None = None,
    partitions: int | None = None,
    topics: Sequence[str] = (TOPIC_IMPRESSIONS, TOPIC_CLICKS),
    progress: Progress = lambda _done, _of: None,
) -> ImportSummary:
    """Append a file's records to the log in a folder, which is made if there is none, and make them durable.

    `partitions` and `topics` (impressions and clicks, or one for both) are those of a log that is yet to be made.
    Raises UsageError (the file, the format, other partitions than the log has), LogError.
    """
    return import_into(
        path,
        format_name,
        lambda: open_log(log, partitions, topics),
        started_at_ms=started_at_ms,
        id_prefix=id_prefix,
        progress=progress,
    )


def import_into(
    path: Path,
    format_name: str,
    open_writer: Callable[[], LogWriter],
    *,
    started_at_ms: int,
    id_prefix: str | None = None,
    progress: Progress = lambda _done, _of: None,
) -> ImportSummary:
    """Append a file's records to a log and make them durable. The log is opened when the file proved to be readable.

    Raises UsageError (the file, the format), LogError and ImportInterrupted, which say what was written before.
    """
    reader = line_format(format_name, id_prefix)
    size = file_bytes(path)
    parsed = ((reader.parse(c.lines, c.first_line), c.bytes_done) for c in read_chunks(path))
    first = next(
        parsed, ([], 0)
    )  # a file that is not what it should be is refused before a log is made of it
    with open_writer() as writer:
        importer = _Importer(writer, started_at_ms)
        try:
            for number, (records, bytes_done) in enumerate(chain([first], parsed), 1):
                importer.append(records)
                if number % FLUSH_CHUNKS == 0:
                    importer.flush()
                progress(bytes_done, size)
            importer.flush()
        except LogError as error:
            raise LogError(
                f"{error.message}\n  {importer.written()} before",
                remedy=f"{error.remedy}; then {_AGAIN}" if error.remedy else _AGAIN,
            ) from error
        except KeyboardInterrupt:
            raise ImportInterrupted(f"interrupted: {importer.written()} before", remedy=_AGAIN) from None
        return importer.summary()


def open_log(
    log: Path, partitions: int | None = None, topics: Sequence[str] = (TOPIC_IMPRESSIONS, TOPIC_CLICKS)
) -> FilesLogWriter:
    """Open the log in a folder for writing, or make one. Raises UsageError, LogError."""
    if not (log / MANIFEST).exists():
        kinds = (IMPRESSIONS, CLICKS) if len(topics) == 2 else (BOTH,)
        named = tuple(zip(topics, kinds, strict=True))
        return FilesLogWriter.create(
            log, Manifest.new(topics=named) if partitions is None else Manifest.new(partitions, named)
        )
    writer = FilesLogWriter(log)
    has = writer.manifest.partitions
    if partitions not in {None, has}:
        writer.close()
        raise UsageError(
            f"the log {log} has {has} partitions, not {partitions}",
            remedy="Leave --partitions out, or name another folder: the number is fixed when a log is made.",
        )
    return writer


class _Importer:
    """Appends parsed records to a log, each to its topic and partition, with its log time."""

    def __init__(self, writer: LogWriter, started_at_ms: int) -> None:
        self._writer = writer
        self._topology = writer.topology
        self._partitions = self._topology.partitions
        self._clock = LogClock([writer.log_time_max(p) for p in range(self._partitions)], started_at_ms)
        kinds = self._topology.kinds
        self._topic_of = {
            event_type: next(i for i, kind in enumerate(kinds) if kind in {BOTH, event_type})
            for event_type in EventType
        }
        self._counts = [0] * len(kinds)
        self._unreadable = 0

    def append(self, records: Sequence[ParsedRecord]) -> None:
        """Append the next records of the file."""
        blocks: dict[tuple[int, int], list[Record]] = {}
        for record, partition in zip(records, _partitions_of(records, self._partitions), strict=True):
            stamped = (self._clock.stamp(partition, record.event_time), record.key, record.value)
            blocks.setdefault((self._topic_of[record.event_type], partition), []).append(stamped)
            self._unreadable += record.key is None
        for (topic, partition), block in blocks.items():
            self._writer.append(topic, partition, RecordBlock.of(block))
            self._counts[topic] += len(block)

    def flush(self) -> None:
        """Make durable what was appended."""
        self._writer.flush()

    def written(self) -> str:
        """Return what is certainly in the log."""
        return f"at least {self._writer.records_written():,} records were written"

    def summary(self) -> ImportSummary:
        """Return what was appended."""
        by_topic = dict(zip(self._topology.topics, self._counts, strict=True))
        return ImportSummary(sum(self._counts), by_topic, self._unreadable, self._partitions)


def _partitions_of(records: Sequence[ParsedRecord], partitions: int) -> list[int]:
    """Return each record's partition: its key's by Java's default partitioner, 0 without a key."""
    keys = [record.key or b"" for record in records]
    lengths = np.fromiter(map(len, keys), np.int64, len(keys))
    buffer = np.frombuffer(b"".join(keys) + bytes(READ_AHEAD_BYTES), np.uint8)
    addresses = buffer.ctypes.data + np.cumsum(lengths) - lengths
    hashes, found = np.empty(len(keys), np.uint64), np.empty(len(keys), np.uint64)
    hash_all(addresses, lengths, np.uint64(partitions), hashes, found)
    found[lengths == 0] = 0
    placed: list[int] = found.tolist()
    return placed
