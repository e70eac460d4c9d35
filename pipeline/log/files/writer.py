"""Appending to a `files:` log: one writer at a time; records are durable and visible once `flush` has returned."""

import os
from pathlib import Path
from types import TracebackType
from typing import Self

from adledger.pipeline.errors import LogError, UsageError
from adledger.pipeline.log.files.durable import not_written, sync_folder, write_all, write_whole
from adledger.pipeline.log.files.ends import ENDS, NO_LOG_TIME, End, Ends, EndsFile, no_ends, write_ends
from adledger.pipeline.log.files.lock import FileLock
from adledger.pipeline.log.files.manifest import (
    MANIFEST,
    WRITER_LOCK,
    Manifest,
    partition_folder,
    read_manifest,
)
from adledger.pipeline.log.files.recovery import recover
from adledger.pipeline.log.files.segments import segment_name
from adledger.pipeline.log.record_block import RecordBlock, encode_batches
from adledger.pipeline.log.source import Topology

SEGMENT_BYTES_MAX = 256 * 1024 * 1024
"""A new segment begins before a batch that would make this one larger (under Kafka's 2^31)."""


class PartitionWriter:
    """The end of one partition, and its open segment. `end` counts everything written, durable or not."""

    def __init__(self, folder: Path, end: End, segment_bytes_max: int) -> None:
        self.end = end
        self._folder = folder
        self._segment_bytes_max = segment_bytes_max
        self._fd = -1
        self._written = False
        self._file_made = False

    def append(self, block: RecordBlock) -> None:
        """Write the block's records as batches at the end. Raises OSError, after which a part may be written."""
        for batch in encode_batches(block, self.end.offset):
            if self.end.position and self.end.position + len(batch.data) > self._segment_bytes_max:
                self._roll()
            self._open()
            write_all(self._fd, batch.data.data, self.end.position)
            self._written = True
            self.end = End(
                batch.next_offset,
                self.end.segment,
                self.end.position + len(batch.data),
                max(self.end.log_time_max, batch.max_timestamp),
            )

    def sync(self) -> None:
        """Flush everything written to the disk. Raises OSError."""
        if self._written:
            os.fdatasync(self._fd)
            self._written = False
        if self._file_made:
            sync_folder(self._folder)
            self._file_made = False

    def close(self) -> None:
        """Close the open segment without syncing it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _roll(self) -> None:
        """Finish the segment: the next batch begins a new one, named after its offset."""
        self.sync()
        self.close()
        self.end = End(self.end.offset, self.end.offset, 0, self.end.log_time_max)

    def _open(self) -> None:
        if self._fd < 0:
            path = self._folder / segment_name(self.end.segment)
            self._file_made = not path.exists()
            self._fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)


class FilesLogWriter:
    """The one writer of a log. Use it as a context manager: leaving it flushes and closes."""

    def __init__(self, log: Path, *, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> None:
        """Open an existing log for appending; a torn batch of an earlier writer is cut off (and logged).

        Raises LogError: not a log, damaged below its durable end, or in use by another writer (named).
        """
        self.manifest = read_manifest(log)
        self._log = log
        self._broken = False
        self._lock = FileLock.acquire(log / WRITER_LOCK, f"the log {log}, for writing,")
        try:
            self._durable = EndsFile(log, self.manifest).refresh()
            self._partitions = tuple(
                tuple(self._partition(topic, p, segment_bytes_max) for p in range(self.manifest.partitions))
                for topic in range(len(self.manifest.topics))
            )
            self.flush()
            self._records_before = _records(self._durable)
        except BaseException:
            self._lock.release()
            raise

    @classmethod
    def create(cls, log: Path, manifest: Manifest, *, segment_bytes_max: int = SEGMENT_BYTES_MAX) -> Self:
        """Create a log in a folder that is empty or does not exist, and open it.

        Raises UsageError when the folder has other content, LogError when it can't be written.
        """
        folders = {
            partition_folder(log, topic.name, p).name
            for topic in manifest.topics
            for p in range(manifest.partitions)
        }
        try:
            log.mkdir(parents=True, exist_ok=True)
            lock = FileLock.acquire(log / WRITER_LOCK, f"the log {log}, for writing,")
            try:
                # The manifest is written last, so that an interrupted attempt can be repeated on the same folder.
                found = {entry.name for entry in log.iterdir()}
                if MANIFEST in found:
                    raise UsageError(f"{log} is a log already", remedy="Open it, or name another folder.")
                if found - folders - {WRITER_LOCK, ENDS}:
                    raise UsageError(
                        f"{log} is neither empty nor a log",
                        remedy="Name a new or empty folder, or a log.",
                    )
                for name in sorted(folders):
                    (log / name).mkdir(exist_ok=True)
                write_ends(log, manifest, no_ends(manifest))
                write_whole(log / MANIFEST, manifest.to_json())
            finally:
                lock.release()
        except OSError as error:
            raise not_written(log, error) from error
        return cls(log, segment_bytes_max=segment_bytes_max)

    @property
    def topology(self) -> Topology:
        """The log's topics and partitions."""
        return self.manifest.topology

    def append(self, topic: int, partition: int, block: RecordBlock) -> int:
        """Append records, in order, and return the first one's offset. Durable and visible after `flush`.

        Raises LogError when the write fails. The writer is unusable then; the next one to open the log finds out which of
        the unflushed records were written.
        """
        self._usable()
        writer = self._partitions[topic][partition]
        first = writer.end.offset
        try:
            writer.append(block)
        except OSError as error:
            self._broken = True
            raise not_written(self._folder(topic, partition), error) from error
        return first

    def log_time_max(self, partition: int) -> int:
        """Return the largest log time (ms) in a lane, over all its topics, or NO_LOG_TIME when it is empty."""
        return max((row[partition].end.log_time_max for row in self._partitions), default=NO_LOG_TIME)

    def flush(self) -> None:
        """Make everything appended durable, then visible to readers in all partitions at once. Raises LogError."""
        self._usable()
        ends = tuple(tuple(writer.end for writer in row) for row in self._partitions)
        if ends == self._durable:
            return
        try:
            for row in self._partitions:
                for writer in row:
                    writer.sync()
            write_ends(self._log, self.manifest, ends)
        except OSError as error:
            self._broken = True
            raise not_written(self._log, error) from error
        self._durable = ends

    def records_written(self) -> int:
        """Return how many records of this writer are durable: those that `flush` has returned for."""
        return _records(self._durable) - self._records_before

    def close(self) -> None:
        """Flush, unless a write has failed, and release the log to the next writer. Raises LogError."""
        try:
            if not self._broken:
                self.flush()
        finally:
            for row in self._partitions:
                for writer in row:
                    writer.close()
            self._lock.release()
            self._broken = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _folder(self, topic: int, partition: int) -> Path:
        return partition_folder(self._log, self.manifest.topics[topic].name, partition)

    def _partition(self, topic: int, partition: int, segment_bytes_max: int) -> PartitionWriter:
        folder = self._folder(topic, partition)
        return PartitionWriter(folder, recover(folder, self._durable[topic][partition]), segment_bytes_max)

    def _usable(self) -> None:
        if self._broken:
            raise LogError(
                f"the writer of {self._log} is closed, or a write to it failed", remedy="Open the log again."
            )


def _records(ends: Ends) -> int:
    return sum(end.offset for row in ends for end in row)
