"""A replay: imported records are written at the pace of their own times, or at a multiple of it.

The loop is open. When a record is due depends only on the files and the start time. If the log accepts a record late, later
records keep their due times. The maximum lateness is reported.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import orjson

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.records import ParsedRecord

TICK_SECONDS = 0.05
"""Records that are due within this time are written together, at its end, like a producer's with linger.ms."""
SPEED_MIN, SPEED_MAX = 0.001, 1_000_000.0
WAIT_SECONDS_MAX = 1.0
"""The longest single sleep, so that a machine that was suspended continues at the right record."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPace:
    """How a file is replayed: `speed` ms of the events' own time pass in each ms.

    `as_of_now`: event times are set to when the events are due, so that a live deployment sees new events. `flushed`:
    flush after each tick, for logs whose readers only see flushed records.
    """

    speed: float
    as_of_now: bool = False
    flushed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedReplay:
    """The result of a replay: seconds elapsed, seconds of the events' own time, and the lateness of the latest tick."""

    seconds: float
    log_seconds: float
    late_ms_max: int


def speed_of(text: str) -> float:
    """Parse a speed, `10`, `10x` or `0.5`. Raises UsageError."""
    try:
        speed = float(text.removesuffix("x").replace("_", ""))
    except ValueError:
        speed = 0.0
    if not SPEED_MIN <= speed <= SPEED_MAX:
        raise UsageError(
            f"--speed {text} is not a speed",
            remedy=f"give {SPEED_MIN:g} to {SPEED_MAX:,.0f}: 1 is the events' own timing, 10 is ten times as fast",
        )
    return speed


class Pacer:
    """Yields records when they are due; the replay begins with the first call of `due`."""

    def __init__(
        self,
        pace: ReplayPace,
        *,
        latest_ms: int,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`latest_ms`: later event times are invalid, and set no pace; `clock` returns seconds since the epoch."""
        self._pace, self._latest_ms = pace, latest_ms
        self._clock, self._sleep = clock, sleep
        self._begin: float | None = None
        self._first_ms = self._at_ms = 0
        self._late_seconds = 0.0

    def due(self, records: Sequence[ParsedRecord]) -> Iterator[Sequence[ParsedRecord]]:
        """Yield the next records in parts, in order, each part when it is due."""
        if not records:
            return
        if self._begin is None:
            self._begin = self._clock()
            known = (r.event_time for r in records if r.event_time is not None)
            self._first_ms = next((t for t in known if t <= self._latest_ms), self._latest_ms)
            self._at_ms = self._first_ms
        ticks = self._ticks(records)
        borders = [0, *(np.flatnonzero(np.diff(ticks)) + 1).tolist(), len(records)]
        for begin, end in pairwise(borders):
            self._wait_until(self._begin + (int(ticks[begin]) + 1) * TICK_SECONDS)
            part = records[begin:end]
            yield [self._moved(record) for record in part] if self._pace.as_of_now else part

    def replayed(self) -> PacedReplay:
        """Return the result so far."""
        return PacedReplay(
            seconds=0.0 if self._begin is None else self._clock() - self._begin,
            log_seconds=(self._at_ms - self._first_ms) / 1_000,
            late_ms_max=round(self._late_seconds * 1_000),
        )

    def _ticks(self, records: Sequence[ParsedRecord]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Return the tick at whose end each record is due, by the running maximum of event times."""
        times = np.empty(len(records), np.int64)
        for i, record in enumerate(records):
            if record.event_time is not None and record.event_time <= self._latest_ms:
                self._at_ms = max(self._at_ms, record.event_time)
            times[i] = self._at_ms
        return ((times - self._first_ms) / (TICK_SECONDS * 1_000 * self._pace.speed)).astype(np.int64)

    def _wait_until(self, due: float) -> None:
        while (early := due - self._clock()) > 0:
            self._sleep(min(early, WAIT_SECONDS_MAX))
        self._late_seconds = max(self._late_seconds, -early)

    def _moved(self, record: ParsedRecord) -> ParsedRecord:
        """Return a record with its event time set to now; an unreadable one, or one of the far future, is unchanged."""
        if record.key is None or record.event_time is None or record.event_time > self._latest_ms:
            return record
        assert self._begin is not None, "the first call has set it"
        moved = round(self._begin * 1_000 + (record.event_time - self._first_ms) / self._pace.speed)
        event = orjson.loads(record.value)
        event["event_time"] = moved
        return record._replace(event_time=moved, value=orjson.dumps(event))


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield an iterator's items; a thread prepares the next one meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
        upcoming = pool.submit(_next, items)
        while found := upcoming.result():
            upcoming = pool.submit(_next, items)
            yield found[0]


def _next(items: Iterator[T]) -> tuple[T] | None:
    for item in items:
        return (item,)
    return None
