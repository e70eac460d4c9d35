"""What an import would write: every record is stamped and decoded before any is written."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from adledger.pipeline.importing.expiring import Expiring, Watermarks
from adledger.pipeline.importing.reading import Pieces
from adledger.pipeline.importing.records import ParsedRecord
from adledger.pipeline.importing.target import TargetView, partitions_of
from adledger.pipeline.stages.malformed import MalformedReason, refusal_of
from adledger.schemas.wire import FUTURE_MS_MAX, EventType

EXAMPLES_MAX = 5
"""The most unreadable lines, and malformed ones, that are named; all are counted."""

EXAMINING = "examining"
Progress = Callable[[str, int, int], None]
"""Called with the current step, the bytes of the files that it has read, and their total (0: unknown)."""


@dataclass(frozen=True, slots=True)
class LineProblem:
    """A line that becomes a dead letter: its position and the reason."""

    file: int
    line: int
    why: str


@dataclass(slots=True)
class Examination:
    """What was found: counts of records, of unreadable lines, and of other records that will be malformed."""

    records: int = 0
    by_type: Counter[EventType] = field(default_factory=Counter)
    unreadable: int = 0
    problems: list[LineProblem] = field(default_factory=list)
    malformed: Counter[int] = field(default_factory=Counter)
    refusals: list[LineProblem] = field(default_factory=list)
    expiring: Expiring = field(default_factory=Expiring)
    first_times: list[int | None] = field(default_factory=list)
    time_min: int | None = None
    time_max: int | None = None
    samples: list[ParsedRecord] = field(default_factory=list)

    @property
    def billable(self) -> int:
        """How many records are neither dead letters nor expired. Duplicates and rules are not considered."""
        return self.records - self.unreadable - self.malformed.total() - self.expiring.count


def examine(
    pieces: Pieces,
    view: TargetView,
    *,
    latest_ms: int,
    lateness_ms: int | None,
    brokers_stamp: bool,
    progress: Progress,
) -> Examination:
    """Examine all records.

    `latest_ms`: the latest valid event time; `lateness_ms`: how far behind its lane's watermark an event may be, None
    if none expires; `brokers_stamp`: log times are the present. Raises UsageError if a file can't be read or has another
    format.
    """
    found = Examination(first_times=[None] * view.topology.partitions)
    marks = Watermarks(
        view.lane_log_times, lateness_ms or 0, latest_ms - FUTURE_MS_MAX if brokers_stamp else None
    )
    for piece in pieces:
        lanes = partitions_of(piece.records, view.topology.partitions)
        for i, (record, lane) in enumerate(zip(piece.records, lanes, strict=True)):
            if i in piece.malformed:
                _dead_letter(found, record, piece.malformed[i], latest_ms)
                continue
            assert record.event_time is not None, "a valid event has a time"
            if found.first_times[lane] is None:
                found.first_times[lane] = record.event_time
            if lateness_ms is not None:
                marks.add(record, lane)
        found.records += len(piece.records)
        found.by_type.update(record.event_type for record in piece.records)
        _times(found, piece.records)
        progress(EXAMINING, piece.bytes_done, piece.bytes_of)
    found.expiring = marks.expiring
    found.first_times = [found.time_min if time is None else time for time in found.first_times]
    return found


def _dead_letter(found: Examination, record: ParsedRecord, reason: int, latest_ms: int) -> None:
    if record.problem:
        found.unreadable += 1
        if len(found.problems) < EXAMPLES_MAX:
            found.problems.append(LineProblem(record.file, record.line, record.problem))
        return
    found.malformed[reason] += 1
    if len(found.refusals) < EXAMPLES_MAX:
        found.refusals.append(LineProblem(record.file, record.line, why_malformed(record, reason, latest_ms)))


def why_malformed(record: ParsedRecord, reason: int, latest_ms: int) -> str:
    """Return why a readable record will be malformed, in words."""
    refusal = refusal_of(record.value, int(record.event_type), latest_ms - FUTURE_MS_MAX)
    return str(refusal or MalformedReason(reason, "", "", ""))


def _times(found: Examination, records: Sequence[ParsedRecord]) -> None:
    times = [record.event_time for record in records if record.event_time is not None]
    if times:
        found.time_min = min(times) if found.time_min is None else min(found.time_min, *times)
        found.time_max = max(times) if found.time_max is None else max(found.time_max, *times)
    for record in records:
        if len(found.samples) >= EXAMPLES_MAX:
            return
        if record.event_time is not None:
            found.samples.append(record)


def in_words(problem: LineProblem, named: Sequence[Path]) -> str:
    """Format a problem with file, line and reason."""
    return f"{named[problem.file]}, line {problem.line:,}: {problem.why}"
