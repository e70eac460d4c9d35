"""Which records would expire: those whose event time is further behind their lane's watermark than allowed."""

from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import xxhash

from adledger.pipeline.importing.records import ParsedRecord

TRACKED_MAX = 4_000_000
"""The most expiring records that are looked up in the log, to see whether it has them already: 8 bytes each."""
EXAMPLES_MAX = 3


class LinePosition(NamedTuple):
    """A line of an imported file; line 0 means a record that was in the log before."""

    file: int
    line: int


class Example(NamedTuple):
    """One record that would expire: its position, its event time, the watermark (ms), and the line that had set that."""

    position: LinePosition
    event_time: int
    watermark: int
    behind: LinePosition


@dataclass(slots=True)
class Expiring:
    """The records that would expire. `lag_ms_max`: how far behind the watermark the latest of them is.

    `causes` counts them by the line that had set their watermark. `cause_ms_min` is the earliest such watermark (None: no
    line of these files set one). `hashes` are the xxHash64 of the values of the first `TRACKED_MAX`.
    """

    count: int = 0
    lag_ms_max: int = 0
    cause_ms_min: int | None = None
    causes: Counter[LinePosition] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)
    hashes: "array[int]" = field(default_factory=lambda: array("Q"))

    @property
    def tracked(self) -> bool:
        """Whether `hashes` has all of them."""
        return len(self.hashes) == self.count


LOG = LinePosition(0, 0)


class Watermarks:
    """The lanes' watermarks while files are examined, and the line that set each."""

    def __init__(self, lane_log_times: Sequence[int], lateness_ms: int, now_ms: int | None) -> None:
        """`now_ms`: the present, if brokers stamp records with it, whatever their event times are; else None."""
        self._moves = now_ms is None
        self._lanes = [log_time if now_ms is None else now_ms for log_time in lane_log_times]
        self._set_by = [LOG] * len(lane_log_times)
        self._lateness_ms = lateness_ms
        self.expiring = Expiring()

    def add(self, record: ParsedRecord, lane: int) -> None:
        """Add the next record. One without an event time is malformed: it neither expires nor moves a watermark."""
        event_time = record.event_time
        if event_time is None:
            return
        watermark = self._lanes[lane]
        if event_time > watermark:
            if self._moves:
                self._lanes[lane] = event_time
                self._set_by[lane] = LinePosition(record.file, record.line)
        elif watermark - event_time > self._lateness_ms:
            self._expire(record, event_time, watermark, self._set_by[lane])

    def _expire(self, record: ParsedRecord, event_time: int, watermark: int, behind: LinePosition) -> None:
        found = self.expiring
        found.count += 1
        found.lag_ms_max = max(found.lag_ms_max, watermark - event_time)
        found.causes[behind] += 1
        if behind.line:
            found.cause_ms_min = min(watermark, found.cause_ms_min or watermark)
        if found.count <= TRACKED_MAX:
            found.hashes.append(xxhash.xxh64_intdigest(record.value))
        if found.causes[behind] == 1 and len(found.examples) < EXAMPLES_MAX:
            example = Example(LinePosition(record.file, record.line), event_time, watermark, behind)
            found.examples.append(example)
