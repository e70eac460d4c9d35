"""From files to parsed records, in pieces: one file in its own order, several merged by their events' times."""

import heapq
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.formats import FORMATS, line_format
from adledger.pipeline.importing.lines import file_bytes, read_chunks
from adledger.pipeline.importing.records import LineFormat, ParsedRecord
from adledger.schemas.wire import EVENT_TIME_MS_MIN

MERGED_RECORDS = 16_384
"""Records of several files are handed on in pieces of so many."""


class Piece(NamedTuple):
    """Consecutive records. `bytes_done` of the files' `bytes_of` have been read so far (0: not known)."""

    records: list[ParsedRecord]
    bytes_done: int
    bytes_of: int


def running_time(at: int, event_time: int | None, latest: int) -> int:
    """Return the running maximum of event times after one more; what can't be read, or is later than can be, leaves it."""
    return at if event_time is None or event_time > latest else max(at, event_time)


def read_files(
    paths: Sequence[Path], format_name: str, id_prefix: str | None, *, latest_ms: int
) -> Iterator[Piece]:
    """Return the records of one file in its order, or of several, merged by the running maximum of their event times.

    The iterator raises UsageError where a file can't be read or is not of this format. This call does where the format is not
    known, or where it gives ids by rows: those of several files would be the same.
    """
    readers = [line_format(format_name, id_prefix) for _ in paths]
    if len(paths) > 1 and not FORMATS[format_name].own_ids:
        raise UsageError(
            f"{len(paths)} files: {format_name} has ids by row, which are the same in each file",
            remedy="Import them one by one, each with an --id-prefix of its own.",
        )
    if len(paths) == 1:
        size = file_bytes(paths[0])
        return (Piece(records, done, size) for records, done in _parsed(paths[0], readers[0], ""))
    return _merged(paths, readers, latest_ms)


def _parsed(path: Path, reader: LineFormat, name: str) -> Iterator[tuple[list[ParsedRecord], int]]:
    for chunk in read_chunks(path):
        records = reader.parse(chunk.lines, chunk.first_line)
        if name:
            records = [r._replace(problem=f"{name}, {r.problem}") if r.problem else r for r in records]
        yield records, chunk.bytes_done


def _merged(paths: Sequence[Path], readers: Sequence[LineFormat], latest_ms: int) -> Iterator[Piece]:
    done = [0] * len(paths)
    sizes = list(map(file_bytes, paths))
    size = sum(sizes) if all(sizes) else 0

    def timed(number: int) -> Iterator[tuple[int, int, ParsedRecord]]:
        at = EVENT_TIME_MS_MIN
        for records, bytes_done in _parsed(paths[number], readers[number], str(paths[number])):
            done[number] = bytes_done
            for record in records:
                at = running_time(at, record.event_time, latest_ms)
                yield at, number, record

    merged = heapq.merge(*map(timed, range(len(paths))), key=lambda item: item[:2])
    while part := [record for _, _, record in islice(merged, MERGED_RECORDS)]:
        yield Piece(part, sum(done), size)
