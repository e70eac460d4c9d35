"""Import files: examine them, then parse, partition, stamp and append, in the files' order or by time, or at a pace."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from adledger.pipeline.errors import AdledgerError, LogError
from adledger.pipeline.importing.appending import PROBLEMS_MAX, Appender
from adledger.pipeline.importing.checking import RecordCheck
from adledger.pipeline.importing.examining import EXAMINING, Examination, Progress, examine
from adledger.pipeline.importing.formats import FormatChoice
from adledger.pipeline.importing.ordering import SortedPieces
from adledger.pipeline.importing.pacing import Pacer, ReplayPace, ahead
from adledger.pipeline.importing.reading import CachedPieces, FilePieces, Piece, Pieces
from adledger.pipeline.importing.refusing import Limits, check_heads, refusal
from adledger.pipeline.importing.spooling import spooled
from adledger.pipeline.importing.stamping import LogClock
from adledger.pipeline.importing.summary import ImportSummary, would_be
from adledger.pipeline.importing.target import (
    FilesTarget,
    ImportTarget,
    LogWriter,
    OpenedTarget,
    TargetView,
    open_log,
)
from adledger.schemas.wire import FUTURE_MS_MAX, TOPIC_CLICKS, TOPIC_IMPRESSIONS

__all__ = [
    "PROBLEMS_MAX", "ImportInterrupted", "ImportOptions", "ImportSummary", "import_file", "import_files", "import_into",
    "open_log",
]  # fmt: skip

FLUSH_CHUNKS = 16
"""Pieces between two flushes: what an interrupted import may lose, and how long readers wait."""
CACHED_BYTES_MAX = 64 * 1024 * 1024
"""Records up to this size are read once; larger files are read twice, to examine and to write them."""

_AGAIN = "import the whole file again: lines that are in the log already bill nothing"


class ImportInterrupted(AdledgerError):  # noqa: N818 - an outcome
    """The operator stopped the import."""

    exit_code = 130


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """How files are imported. `by_time`: in the order of event times; `dry_run`: examine, but write nothing."""

    limits: Limits = field(default_factory=Limits)
    by_time: bool = False
    pace: ReplayPace | None = None
    brokers_stamp: bool = False
    dry_run: bool = False


def import_file(
    path: Path,
    format_name: str,
    log: Path,
    *,
    started_at_ms: int,
    id_prefix: str | None = None,
    partitions: int | None = None,
    topics: Sequence[str] = (TOPIC_IMPRESSIONS, TOPIC_CLICKS),
    progress: Callable[[int, int], None] = lambda _done, _of: None,
    options: ImportOptions | None = None,
) -> ImportSummary:
    """Append a file's records to the log in a folder, which is created if missing, and make them durable.

    `partitions` and `topics` (impressions and clicks, or one for both) are those of a new log.
    Raises UsageError (for the file, the format, or a number of partitions that the log does not have), LogError.
    """
    return import_files(
        [path],
        FormatChoice(name=format_name, id_prefix=id_prefix),
        FilesTarget(log, partitions, topics),
        started_at_ms=started_at_ms,
        options=options or ImportOptions(),
        progress=_of_writing(progress),
    )


def import_into(
    paths: Sequence[Path],
    format_name: str,
    open_writer: Callable[[], LogWriter],
    *,
    started_at_ms: int,
    id_prefix: str | None = None,
    progress: Callable[[int, int], None] = lambda _done, _of: None,
    pace: ReplayPace | None = None,
    options: ImportOptions | None = None,
) -> ImportSummary:
    """Append files' records to any log that can be opened."""
    return import_files(
        paths,
        FormatChoice(name=format_name, id_prefix=id_prefix),
        OpenedTarget(open_writer),
        started_at_ms=started_at_ms,
        options=options or ImportOptions(pace=pace),
        progress=_of_writing(progress),
    )


def _of_writing(progress: Callable[[int, int], None]) -> Progress:
    return lambda what, done, of: None if what == EXAMINING else progress(done, of)


def import_files(
    paths: Sequence[Path],
    choice: FormatChoice,
    target: ImportTarget,
    *,
    started_at_ms: int,
    options: ImportOptions,
    progress: Progress = lambda _what, _done, _of: None,
) -> ImportSummary:
    """Examine files, then append their records to a log and make them durable.

    Nothing is written, and no log is created, if a file is not of its format or would lose events silently.
    Raises UsageError, `ImportRefused` (what was found, and the options), LogError and ImportInterrupted; the last two say
    how many records had been written.
    """
    limits = options.limits
    latest_ms = started_at_ms + FUTURE_MS_MAX
    if limits.not_after_ms is not None:
        latest_ms = min(latest_ms, limits.not_after_ms)
    with ExitStack() as stack:
        named = paths
        if options.pace is None:
            paths = [stack.enter_context(spooled(path, progress)) for path in paths]
        check = RecordCheck(latest_ms)
        source = FilePieces(paths, choice, check)
        check_heads(paths, named, choice, limits, latest_ms)
        view = target.view()
        if isinstance(target, OpenedTarget):
            stack.callback(target.close)
        pieces: Pieces = CachedPieces(source, CACHED_BYTES_MAX)
        if options.by_time:
            pieces = stack.enter_context(SortedPieces(source))
        examined = None
        if options.pace is None or options.dry_run:
            examined = _examined(pieces, view, latest_ms, options, progress)
            refused = refusal(
                examined, limits, view, named, by_time=options.by_time, brokers_stamp=options.brokers_stamp
            )
            if options.dry_run:
                return would_be(examined, view, named, refused)
            if refused is not None:
                raise refused
        return _written(pieces, target, view, examined, latest_ms, options, named, progress)


def _examined(
    pieces: Pieces, view: TargetView, latest_ms: int, options: ImportOptions, progress: Progress
) -> Examination:
    try:
        return examine(
            pieces,
            view,
            latest_ms=latest_ms,
            lateness_ms=options.limits.lateness_ms,
            brokers_stamp=options.brokers_stamp,
            progress=progress,
        )
    except KeyboardInterrupt:
        raise ImportInterrupted("interrupted: nothing was written") from None


def _written(
    pieces: Pieces, target: ImportTarget, view: TargetView, examined: Examination | None, latest_ms: int,
    options: ImportOptions, named: Sequence[Path], progress: Progress,
) -> ImportSummary:  # fmt: skip
    """Append everything, and return the summary."""
    with target.open() as writer:
        if [writer.log_time_max(p) for p in range(view.topology.partitions)] != list(view.lane_log_times):
            raise LogError(
                "another import wrote to the log while the files were examined; nothing was written",
                remedy="Import again when the other one has ended.",
            )
        first_times = [] if examined is None else examined.first_times
        importer = Appender(writer, LogClock(view.lane_log_times, latest_ms, first_times), named)
        try:
            if options.pace is None:
                for number, piece in enumerate(pieces, 1):
                    importer.append(piece.records)
                    if number % FLUSH_CHUNKS == 0:
                        importer.flush()
                    progress("writing", piece.bytes_done, piece.bytes_of)
            else:
                _replay(iter(pieces), importer, options.pace, latest_ms, progress)
            importer.flush()
        except LogError as error:
            raise LogError(
                f"{error.message}\n  {importer.written()} before",
                remedy=f"{error.remedy}; then {_AGAIN}" if error.remedy else _AGAIN,
            ) from error
        except KeyboardInterrupt:
            raise ImportInterrupted(f"interrupted: {importer.written()} before", remedy=_AGAIN) from None
        return importer.summary(examined)


def _replay(
    pieces: Iterator[Piece], importer: Appender, pace: ReplayPace, latest_ms: int, progress: Progress
) -> None:
    """Append each record when it is due; the next piece is read meanwhile."""
    pacer = Pacer(pace, latest_ms=latest_ms)
    for piece in ahead(pieces):
        for records in pacer.due(piece.records):
            importer.append(records)
            if pace.flushed:
                importer.flush()
            importer.replay = pacer.replayed()
        progress("replaying", piece.bytes_done, piece.bytes_of)
