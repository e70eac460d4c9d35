"""Records in the order of their event times: sorted in runs in a temporary folder, then merged."""

import heapq
import marshal
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

from adledger.pipeline.importing.reading import MERGED_RECORDS, Piece, Pieces, running_time
from adledger.pipeline.importing.records import ParsedRecord
from adledger.schemas.wire import EVENT_TIME_MS_MIN, EventType

RUN_BYTES = 32 * 1024 * 1024
"""The approximate size of a run that is sorted in memory."""
RUNS_MAX = 128
"""At this many runs they are merged into one: each is an open file."""
_SPILLED_RECORDS = 1_024

_Keyed = tuple[int, int, tuple[int, bytes | None, int | None, bytes, str, int, int], int]
"""Time, number in the files' order, the record's fields, why it is malformed (0: it is not)."""


class SortedPieces:
    """The records of other pieces by event time; equal times, and records without a time, keep the files' order.

    A context manager: leaving it removes the runs. The first iteration writes them.
    """

    def __init__(self, source: Pieces, run_bytes: int = RUN_BYTES) -> None:
        self._source, self._run_bytes = source, run_bytes
        self._folder: TemporaryDirectory[str] | None = None
        self._runs: list[Path] = []
        self._written_runs = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def __iter__(self) -> Iterator[Piece]:
        """Yield the records from the earliest."""
        if self._folder is None:
            self._folder = TemporaryDirectory(prefix="adledger-import-")
            self._spill(Path(self._folder.name))
        merged = heapq.merge(*map(_run, self._runs))
        while part := list(islice(merged, MERGED_RECORDS)):
            records = [ParsedRecord(EventType(fields[0]), *fields[1:]) for _, _, fields, _ in part]
            malformed = {i: reason for i, (_, _, _, reason) in enumerate(part) if reason}
            yield Piece(records, malformed, 0, 0)

    def _spill(self, folder: Path) -> None:
        run: list[_Keyed] = []
        size, number, at = 0, 0, EVENT_TIME_MS_MIN
        for piece in self._source:
            for i, record in enumerate(piece.records):
                at = running_time(at, record.event_time)
                time = at if record.event_time is None else record.event_time
                fields = (int(record.event_type), *record[1:])
                run.append((time, number, fields, piece.malformed.get(i, 0)))
                number += 1
                size += len(record.value)
            if size >= self._run_bytes:
                self._write(folder, run)
                size = 0
        if run:
            self._write(folder, run)

    def _write(self, folder: Path, run: list[_Keyed]) -> None:
        run.sort()
        self._runs.append(self._written(folder, iter(run)))
        run.clear()
        if len(self._runs) == RUNS_MAX:
            merged = self._written(folder, heapq.merge(*map(_run, self._runs)))
            for path in self._runs:
                path.unlink()
            self._runs = [merged]

    def _written(self, folder: Path, keyed: Iterator[_Keyed]) -> Path:
        self._written_runs += 1
        path = folder / f"run-{self._written_runs}"
        with path.open("wb") as file:
            while part := list(islice(keyed, _SPILLED_RECORDS)):
                marshal.dump(part, file)
        return path


def _run(path: Path) -> Iterator[_Keyed]:
    with path.open("rb") as file:
        while True:
            try:
                # This process wrote it a moment ago, in a folder that only it may read.
                part = marshal.load(file)  # noqa: S302
            except EOFError:
                return
            yield from part
