"""Reading a partition's segments: which file has an offset, where in it, and complete batches from there.

Everything here is below the partition's durable end, so any defect is damage and raises LogError.
"""

import os
from bisect import bisect_right
from pathlib import Path

import numpy as np
import numpy.typing as npt

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.files.durable import not_read
from adledger.pipeline.records.batch_format import HEADER_BYTES
from adledger.pipeline.records.encoded import READ_AHEAD_BYTES, EncodedBatch
from adledger.pipeline.records.record_batch import BatchHeader, checksum_matches, encoded_batch, parse_header

U8 = npt.NDArray[np.uint8]

SEGMENT_SUFFIX = ".log"
INDEX_INTERVAL_BYTES = 64 * 1024
"""Minimum bytes between two entries of the sparse index; from an entry the search goes from header to header."""

_DAMAGE = "The log is damaged; restore the partition from its source."


def segment_name(base_offset: int) -> str:
    """Return the file name of the segment that begins at an offset."""
    return f"{base_offset:020d}{SEGMENT_SUFFIX}"


def segment_bases(folder: Path) -> list[int]:
    """Return the base offsets of a partition's segments, ascending. Raises LogError."""
    try:
        names = os.listdir(folder)  # noqa: PTH208 - names are all that is wanted
    except OSError as error:
        raise not_read(folder, error) from error
    stems = (name.removesuffix(SEGMENT_SUFFIX) for name in names if name.endswith(SEGMENT_SUFFIX))
    return sorted(int(stem) for stem in stems if stem.isdecimal())


class SegmentFile:
    """One open segment with a sparse offset index, which grows as the segment is searched."""

    def __init__(self, folder: Path, base_offset: int) -> None:
        self.path = folder / segment_name(base_offset)
        self.base_offset = base_offset
        self.where = f"{folder.name} ({self.path.name})"
        try:
            self._fd = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise not_read(self.path, error) from error
        self._offsets = [base_offset]
        self._positions = [0]

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    def size_bytes(self) -> int:
        """Return the file's size."""
        return os.fstat(self._fd).st_size

    def header(self, position: int, limit: int) -> BatchHeader:
        """Return the header of the batch at a position; the batch must end at `limit` or before."""
        header = parse_header(self._read(HEADER_BYTES, position, limit), 0, self.where)
        if position + header.size_bytes > limit:
            raise self.damaged(position, "a record batch extends beyond the durable end")
        return header

    def locate(self, offset: int, limit: int) -> int:
        """Return the position of the first batch that ends after `offset`, or `limit` if none does."""
        entry = bisect_right(self._offsets, offset) - 1
        position = self._positions[entry]
        while position < limit:
            header = self.header(position, limit)
            self._remember(header.base_offset, position)
            if header.next_offset > offset:
                return position
            position += header.size_bytes
        return limit

    def read_batches(
        self, position: int, limit: int, bytes_max: int
    ) -> tuple[list[BatchHeader], list[EncodedBatch]]:
        """Return the headers and records of the batches from a position on, at least one, checksums checked.

        Control batches are among the headers only. `limit` is where the last durable batch ends, `position`
        below it. A damaged batch ends the answer; LogError where it is the first.
        """
        first = self.header(position, limit).size_bytes
        wanted = min(max(bytes_max, first), limit - position)
        slab = self._read(wanted, position, limit)
        headers: list[BatchHeader] = []
        batches: list[EncodedBatch] = []
        at = 0
        while at + HEADER_BYTES <= wanted:
            try:
                header = parse_header(slab, at, self.where)
                if at + header.size_bytes > wanted:
                    break
                self._check(slab, at, position, header, headers[-1].next_offset if headers else None)
            except LogError:
                if headers:
                    break
                raise
            self._remember(header.base_offset, position + at)
            headers.append(header)
            if not header.is_control:
                batches.append(encoded_batch(slab, at, header, self.where))
            at += header.size_bytes
        return headers, batches

    def _check(self, slab: U8, at: int, position: int, header: BatchHeader, follows: int | None) -> None:
        """Raise LogError for a batch, `at` in what was read from a position, that is damaged or not the one that follows."""
        if not checksum_matches(slab, at, header):
            raise self.damaged(
                position + at, f"the record batch at offset {header.base_offset} fails its checksum"
            )
        if follows is not None and header.base_offset != follows:
            raise self.damaged(position + at, f"offset {header.base_offset} follows {follows - 1}")

    def _remember(self, offset: int, position: int) -> None:
        if position >= self._positions[-1] + INDEX_INTERVAL_BYTES:
            self._offsets.append(offset)
            self._positions.append(position)

    def _read(self, size: int, position: int, limit: int) -> U8:
        """Return `size` bytes at a position, followed by READ_AHEAD_BYTES of padding."""
        if position + size > limit:
            raise self.damaged(position, "the last record batch is cut off")
        slab = np.empty(size + READ_AHEAD_BYTES, np.uint8)
        view, got = slab.data[:size], 0
        while got < size:
            try:
                count = os.preadv(self._fd, [view[got:]], position + got)
            except OSError as error:
                raise not_read(self.path, error) from error
            if count == 0:
                raise self.damaged(position, f"it ends at byte {position + got}, before its durable end")
            got += count
        return slab

    def damaged(self, position: int, reason: str) -> LogError:
        """Return the error for bytes that no writer would have left there."""
        return LogError(f"{self.where}, byte {position}: {reason}", remedy=_DAMAGE)
