"""Appending parsed records to a log, each to its topic and partition, with its log time."""

from collections.abc import Sequence
from pathlib import Path

from adledger.pipeline.importing.examining import Examination, LineProblem, in_words
from adledger.pipeline.importing.pacing import PacedReplay
from adledger.pipeline.importing.records import ParsedRecord
from adledger.pipeline.importing.stamping import LogClock
from adledger.pipeline.importing.summary import ImportSummary
from adledger.pipeline.importing.target import LogWriter, partitions_of
from adledger.pipeline.log.files.manifest import BOTH
from adledger.pipeline.log.record_block import Record, RecordBlock
from adledger.schemas.wire import EventType

PROBLEMS_MAX = 5
"""The most unreadable lines that are named; all are counted."""


class Appender:
    """Appends parsed records to a log, each to its topic and partition, with its log time."""

    def __init__(self, writer: LogWriter, clock: LogClock, paths: Sequence[Path]) -> None:
        self._writer, self._clock, self._paths = writer, clock, paths
        self._topology = writer.topology
        self._partitions = self._topology.partitions
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
        for record, partition in zip(records, partitions_of(records, self._partitions), strict=True):
            stamped = (self._clock.stamp(partition, record.event_time), record.key, record.value)
            blocks.setdefault((self._topic_of[record.event_type], partition), []).append(stamped)
            if record.problem:
                self._unreadable += 1
                if len(self._problems) < PROBLEMS_MAX:
                    self._problems.append(
                        in_words(LineProblem(record.file, record.line, record.problem), self._paths)
                    )
        for (topic, partition), block in blocks.items():
            self._writer.append(topic, partition, RecordBlock.of(block))
            self._counts[topic] += len(block)

    def flush(self) -> None:
        """Make the appended records durable."""
        self._writer.flush()

    def written(self) -> str:
        """Return how many records are certainly in the log, as a clause."""
        return f"at least {self._writer.records_written():,} records were written"

    def summary(self, examined: Examination | None) -> ImportSummary:
        """Return what was appended."""
        return ImportSummary(
            sum(self._counts),
            dict(zip(self._topology.topics, self._counts, strict=True)),
            self._unreadable,
            self._partitions,
            tuple(self._problems),
            self.replay,
            examined,
        )
