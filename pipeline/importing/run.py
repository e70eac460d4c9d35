"""Import a file: parse, place, stamp, append, in the file's own order; at its own pace, where that is asked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np

from adledger.pipeline.errors import AdledgerError, LogError, UsageError
from adledger.pipeline.importing.pacing import PacedReplay, Pacer, ReplayPace, ahead
from adledger.pipeline.importing.reading import Piece, read_files
from adledger.pipeline.importing.records import ParsedRecord
from adledger.pipeline.importing.stamping import LogClock
from adledger.pipeline.kernels.hashing import hash_all
from adledger.pipeline.log.files.manifest import BOTH, CLICKS, IMPRESSIONS, MANIFEST, Manifest
from adledger.pipeline.log.files.writer import FilesLogWriter
from adledger.pipeline.log.record_block import Record, RecordBlock
from adledger.pipeline.log.source import Topology
from adledger.pipeline.records.encoded import READ_AHEAD_BYTES
from adledger.schemas.wire import FUTURE_MS_MAX, TOPIC_CLICKS, TOPIC_IMPRESSIONS, EventType

FLUSH_CHUNKS = 16
"""How many chunks are appended between two flushes: what an import that is cut off may lose, and readers wait for."""

PROBLEMS_MAX = 5
"""So many lines that can't be read are named; all are counted."""

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
    """What an import wrote: records in all, by topic, and those of lines that could not be read (among both).

    `problems` says of the first of these where they are and why; `replay` how the pace was kept, where there was one.
    """

    records: int
    by_topic: dict[str, int]
    unreadable: int
    partitions: int
    problems: tuple[str, ...] = ()
    replay: PacedReplay | None = None


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
        [path],
        format_name,
        lambda: open_log(log, partitions, topics),
        started_at_ms=started_at_ms,
        id_prefix=id_prefix,
        progress=progress,
    )


def import_into(
    paths: Sequence[Path],
    format_name: str,
    open_writer: Callable[[], LogWriter],
    *,
    started_at_ms: int,
    id_prefix: str | None = None,
    progress: Progress = lambda _done, _of: None,
    pace: ReplayPace | None = None,
) -> ImportSummary:
    """Append files' records to a log and make them durable. The log is opened when each file proved to be readable.

    One file is read in its order, several are merged by time. `pace`: each record is appended when its turn is.
    Raises UsageError (a file, the format), LogError and ImportInterrupted, which say what was written before.
    """
    latest_ms = started_at_ms + FUTURE_MS_MAX
    pieces = read_files(paths, format_name, id_prefix, latest_ms=latest_ms)
    # A file that is not what it should be is refused before a log is made of it.
    first = next(pieces, Piece([], 0, 0))
    with open_writer() as writer:
        importer = _Importer(writer, started_at_ms)
        try:
            if pace is None:
                for number, piece in enumerate(chain([first], pieces), 1):
                    importer.append(piece.records)
                    if number % FLUSH_CHUNKS == 0:
                        importer.flush()
                    progress(piece.bytes_done, piece.bytes_of)
            else:
                _replay(chain([first], pieces), importer, pace, latest_ms, progress)
            importer.flush()
        except LogError as error:
            raise LogError(
                f"{error.message}\n  {importer.written()} before",
                remedy=f"{error.remedy}; then {_AGAIN}" if error.remedy else _AGAIN,
            ) from error
        except KeyboardInterrupt:
            raise ImportInterrupted(f"interrupted: {importer.written()} before", remedy=_AGAIN) from None
        return importer.summary()


def _replay(
    pieces: Iterator[Piece], importer: "_Importer", pace: ReplayPace, latest_ms: int, progress: Progress
) -> None:
    """Append everything when it is due; the next piece is read meanwhile."""
    pacer = Pacer(pace, latest_ms=latest_ms)
    for piece in ahead(pieces):
        for records in pacer.due(piece.records):
            importer.append(records)
            if pace.flushed:
                importer.flush()
            importer.replay = pacer.replayed()
        progress(piece.bytes_done, piece.bytes_of)


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
        self._problems: list[str] = []
        self.replay: PacedReplay | None = None

    def append(self, records: Sequence[ParsedRecord]) -> None:
        """Append the next records of the file."""
        blocks: dict[tuple[int, int], list[Record]] = {}
        for record, partition in zip(records, _partitions_of(records, self._partitions), strict=True):
            stamped = (self._clock.stamp(partition, record.event_time), record.key, record.value)
            blocks.setdefault((self._topic_of[record.event_type], partition), []).append(stamped)
            if record.key is None:
                self._unreadable += 1
                self._problems += [record.problem] if len(self._problems) < PROBLEMS_MAX else []
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
        return ImportSummary(
            sum(self._counts),
            by_topic,
            self._unreadable,
            self._partitions,
            tuple(self._problems),
            self.replay,
        )


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
