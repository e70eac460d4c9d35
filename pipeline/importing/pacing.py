"""A replay: imported records are written at the pace of their own times, or so many times faster.

The loop is open. When a record is due follows from the files and the moment of the start alone; what the log does not take
in time is written late, and nothing that follows moves. How late it came to be is told.
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
"""What is due within so long is written together, at its end: as a producer with linger.ms does."""
SPEED_MIN, SPEED_MAX = 0.001, 1_000_000.0
WAIT_SECONDS_MAX = 1.0
"""A wait is made in such pieces, so that a machine that was asleep goes on at the right place."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPace:
    """How a file is replayed: `speed` ms of the events' own time pass in a ms.

    `as_of_now`: event times are moved to when their turn is, so that a live deployment takes them as new. `flushed`: after
    each tick what was written is made durable, where readers see nothing else.
    """

    speed: float
    as_of_now: bool = False
    flushed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PacedReplay:
    """How a replay went: seconds that passed, seconds of the events' own time, and how late a tick was at most."""

    seconds: float
    log_seconds: float
    late_ms_max: int


def speed_of(text: str) -> float:
    """Return the speed that `10`, `10x` or `0.5` says. Raises UsageError."""
    try:
        speed = float(text.removesuffix("x").replace("_", ""))
    except ValueError:
        speed = 0.0
    if not SPEED_MIN <= speed <= SPEED_MAX:
        raise UsageError(
            f"--speed {text} is no speed",
            remedy=f"1 is the events' own timing, 10 ten times as fast; {SPEED_MIN:g} to {SPEED_MAX:,.0f}",
        )
    return speed


class Pacer:
    """Gives records when they are due; the replay begins with the first call of `due`."""

    def __init__(
        self,
        pace: ReplayPace,
        *,
        latest_ms: int,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`latest_ms`: a later event time can't be, and sets no pace; `clock` gives seconds since the epoch."""
        self._pace, self._latest_ms = pace, latest_ms
        self._clock, self._sleep = clock, sleep
        self._begin: float | None = None
        self._first_ms = self._at_ms = 0
        self._late_seconds = 0.0

    def due(self, records: Sequence[ParsedRecord]) -> Iterator[Sequence[ParsedRecord]]:
        """Yield the next records in parts, in order, each when it is due."""
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
        """Return how it went so far."""
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
        """Return a record whose event happens now; one that can't be read, or is of the far future, stays as it is."""
        if record.key is None or record.event_time is None or record.event_time > self._latest_ms:
            return record
        assert self._begin is not None, "the first call set it"
        moved = round(self._begin * 1_000 + (record.event_time - self._first_ms) / self._pace.speed)
        event = orjson.loads(record.value)
        event["event_time"] = moved
        return record._replace(event_time=moved, value=orjson.dumps(event))


def ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield what an iterator yields; the next item is made in a thread meanwhile."""
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as pool:
        upcoming = pool.submit(_next, items)
        while found := upcoming.result():
            upcoming = pool.submit(_next, items)
            yield found[0]


def _next(items: Iterator[T]) -> tuple[T] | None:
    for item in items:
        return (item,)
    return None
