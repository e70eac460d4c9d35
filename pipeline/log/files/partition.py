"""One topic's partition as its reader sees it: offsets in, record batches out, one open segment at a time."""

import threading
from bisect import bisect_right
from pathlib import Path

from adledger.pipeline.errors import LogError, OffsetOutOfRange
from adledger.pipeline.log.files.ends import End
from adledger.pipeline.log.files.segments import SegmentFile, segment_bases
from adledger.pipeline.records.encoded import EncodedBatch


class PartitionReader:
    """Reads a partition below a durable end that the caller gives. Safe to call from several threads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bases: list[int] = []
        self._segment: SegmentFile | None = None
        self._cursor = (-1, 0)  # the offset after the last read, and its position in the open segment
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the open segment."""
        with self._lock:
            if self._segment is not None:
                self._segment.close()
                self._segment = None

    def first_offset(self, end: End) -> int:
        """Return the first offset that the partition still has. Raises LogError."""
        with self._lock:
            return self._list(end)[0] if end.offset else 0

    def read(self, offset: int, end: End, bytes_max: int) -> tuple[int, list[EncodedBatch]]:
        """Return the next offset to read, and the batches beginning with the one that has `offset`.

        At most `bytes_max` bytes, but at least one batch where there is one, and from one segment only.
        Raises OffsetOutOfRange when the offset is not between the first and the end, LogError on damage.
        """
        with self._lock:
            if offset == end.offset:
                return offset, []
            if offset > end.offset:
                raise self._out_of_range(offset, f"the log ends at {end.offset}")
            bases = self._list(end)
            if offset < bases[0]:
                raise self._out_of_range(offset, f"the log begins at {bases[0]}")
            segment = self._open(bases[bisect_right(bases, offset) - 1])
            limit = end.position if segment.base_offset == end.segment else segment.size_bytes()
            position = self._cursor[1] if self._cursor[0] == offset else segment.locate(offset, limit)
            if position >= limit:
                raise segment.damaged(limit, f"it ends before offset {offset}")
            headers, batches = segment.read_batches(position, limit, bytes_max)
            if headers[0].base_offset > offset:
                raise segment.damaged(position, f"found offset {headers[0].base_offset} instead of {offset}")
            self._cursor = headers[-1].next_offset, position + sum(h.size_bytes for h in headers)
            return headers[-1].next_offset, batches

    def end_of_unreadable(self, offset: int, end: End) -> int:
        """Return the offset after a batch that `read` refused: its header's, else the next segment's, else the next."""
        with self._lock:
            try:
                segment = self._open(self._bases[bisect_right(self._bases, offset) - 1])
                limit = end.position if segment.base_offset == end.segment else segment.size_bytes()
                return segment.header(segment.locate(offset, limit), limit).next_offset
            except (LogError, IndexError):
                return next((base for base in self._bases if base > offset), offset + 1)

    def _list(self, end: End) -> list[int]:
        """Return the segments' base offsets, listed again when the end is in a segment that is not listed yet."""
        if not self._bases or self._bases[-1] < end.segment:
            self._bases = [base for base in segment_bases(self._folder) if base <= end.segment]
        if not self._bases or self._bases[-1] != end.segment:
            raise LogError(
                f"{self._folder.name}: the segment that begins at offset {end.segment} is missing",
                remedy="A log's files must not be moved or removed by hand; restore the partition from its source.",
            )
        return self._bases

    def _open(self, base: int) -> SegmentFile:
        if self._segment is None or self._segment.base_offset != base:
            if self._segment is not None:
                self._segment.close()
                self._segment = None
            self._cursor = (-1, 0)
            self._segment = SegmentFile(self._folder, base)
        return self._segment

    def _out_of_range(self, offset: int, reason: str) -> OffsetOutOfRange:
        return OffsetOutOfRange(
            f"{self._folder.name}: offset {offset} is not in the log, {reason}",
            remedy="The log was truncated or recreated since the offset was committed; restore it from its source.",
        )
