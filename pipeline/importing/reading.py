"""From files to parsed records, in pieces: one file in its own order, several merged by event time."""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple, Protocol

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.checking import RecordCheck
from adledger.pipeline.importing.formats import FORMATS, FormatChoice, reader_of
from adledger.pipeline.importing.lines import file_bytes, read_chunks
from adledger.pipeline.importing.records import ParsedRecord, unreadable
from adledger.schemas.wire import EVENT_TIME_MS_MIN

MERGED_RECORDS = 16_384
"""Records per piece when several files are merged."""


class Piece(NamedTuple):
    """Consecutive records, and which of them the pipeline will find malformed: index -> `Malformed`.

    `bytes_done` of the files' `bytes_of` have been read so far (0: unknown).
    """

    records: list[ParsedRecord]
    malformed: dict[int, int]
    bytes_done: int
    bytes_of: int


class Pieces(Protocol):
    """Records that can be iterated more than once."""

    def __iter__(self) -> Iterator[Piece]:
        """Yield them from the start. Raises UsageError if a file can't be read or is not of its format."""


def running_time(at: int, event_time: int | None) -> int:
    """Return the running maximum of event times after one more; an unreadable time (None) leaves it."""
    return at if event_time is None else max(at, event_time)


@dataclass(frozen=True, slots=True)
class FilePieces:
    """The records of one file in its order, or of several, merged by the running maximum of their event times.

    A record that the pipeline will find malformed has no event time here: it moves neither a watermark nor the merge.
    """

    paths: Sequence[Path]
    choice: FormatChoice
    check: RecordCheck

    def __post_init__(self) -> None:
        """Raise UsageError for an unknown format, options that don't apply to it, and ids that would collide."""
        reader_of(self.choice)
        if len(self.paths) > 1 and not FORMATS[self.choice.name].own_ids:
            raise UsageError(
                f"{len(self.paths)} files: {self.choice.name} has ids by row, which repeat in each file",
                remedy="Import them one by one, each with its own --id-prefix.",
            )

    def __iter__(self) -> Iterator[Piece]:
        """Read the files from their start."""
        if len(self.paths) > 1:
            return self._merged()
        size = file_bytes(self.paths[0])
        return (
            Piece(*self.check.checked(records), done, size) for records, done in self._parsed(self.paths[0])
        )

    def _parsed(self, path: Path) -> Iterator[tuple[list[ParsedRecord], int]]:
        reader = reader_of(self.choice)
        for chunk in read_chunks(path):
            records = reader.parse(chunk.lines, chunk.first_line)
            if chunk.cut_from:
                records = [_cut(chunk.lines[0], chunk.first_line, chunk.cut_from)]
            yield records, chunk.bytes_done

    def _merged(self) -> Iterator[Piece]:
        done = [0] * len(self.paths)
        sizes = list(map(file_bytes, self.paths))
        size = sum(sizes) if all(sizes) else 0

        def timed(number: int) -> Iterator[tuple[int, int, ParsedRecord, int]]:
            at = EVENT_TIME_MS_MIN
            for parsed, bytes_done in self._parsed(self.paths[number]):
                done[number] = bytes_done
                records, malformed = self.check.checked(parsed)
                for i, record in enumerate(records):
                    at = running_time(at, record.event_time)
                    yield at, number, record._replace(file=number), malformed.get(i, 0)

        merged = heapq.merge(*map(timed, range(len(self.paths))), key=lambda item: item[:2])
        while part := [(record, reason) for _, _, record, reason in islice(merged, MERGED_RECORDS)]:
            malformed = {i: reason for i, (_, reason) in enumerate(part) if reason}
            yield Piece([record for record, _ in part], malformed, sum(done), size)


def _cut(line: bytes, number: int, length: int) -> ParsedRecord:
    return unreadable(line, number, f"{length:,} bytes long; its first {len(line):,} are kept")


class CachedPieces:
    """Pieces that stay in memory after the first iteration if they are small enough; else they are read again."""

    def __init__(self, source: Pieces, bytes_max: int) -> None:
        self._source, self._bytes_max = source, bytes_max
        self._cached: list[Piece] | None = []
        self._whole = False

    def __iter__(self) -> Iterator[Piece]:
        """Yield them from the start."""
        if self._whole and self._cached is not None:
            yield from self._cached
            return
        size, cached = 0, []
        for piece in self._source:
            size += sum(len(record.value) for record in piece.records)
            if size <= self._bytes_max:
                cached.append(piece)
            else:
                cached.clear()
            yield piece
        self._cached = cached if size <= self._bytes_max else None
        self._whole = self._cached is not None
