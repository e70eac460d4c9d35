"""How far back the windows reach: bounded memory, and no verdict depends on what happened to fit.

A lane remembers at most `events_max` events of its windows, besides those of the current minute. In a minute before
which more events are within the horizon, the windows reach back fewer whole minutes; a rule that looks further is not
evaluated for the events of that minute, and that is counted. The reach of a minute is a function of the events
within the horizon before it, so a restarted worker finds the same; and since it grows by at most a minute each
minute, what a later minute needs was never dropped.
"""

from collections import deque
from collections.abc import Iterator

import numpy as np

from adledger.pipeline.records.columns import I64, Bool

MINUTE_MS = 60_000
UNBOUNDED_MS = 1 << 62
"""The reach when nothing had to be left out."""


class Reach:
    """Counts a lane's events by minute of log time, within the horizon."""

    def __init__(self, horizon_ms: int, events_max: int) -> None:
        self._minutes_max = -(-horizon_ms // MINUTE_MS) + 1
        self._events_max = events_max
        self._counts: deque[tuple[int, int]] = deque()  # (minute, events), rising
        self._total = 0

    def segments(self, clocks: I64, counted: Bool) -> Iterator[tuple[slice, int]]:
        """Yield (rows, reach in ms) of n rows in lane order, for all rows; counts the `counted` ones (bool[n])."""
        n = len(clocks)
        minutes = clocks // MINUTE_MS
        starts = np.flatnonzero(np.diff(minutes, prepend=minutes[:1] - 1))
        counts = np.add.reduceat(counted.astype(np.int64), starts) if n else np.zeros(0, np.int64)
        begun, before = 0, 0
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
            reach = self._reach(int(minutes[start]))
            self._count(int(minutes[start]), count)
            if start and reach != before:
                yield slice(begun, start), before
                begun = start
            before = reach
        if n:
            yield slice(begun, n), before

    def _reach(self, minute: int) -> int:
        """Return how far back (ms) events of a minute may look: to the begin of the first minute that fits."""
        while self._counts and minute - self._counts[0][0] > self._minutes_max:
            self._total -= self._counts.popleft()[1]
        if self._total <= self._events_max:
            return UNBOUNDED_MS
        held = 0
        for at, count in reversed(self._counts):
            if at < minute:
                held += count
            if held > self._events_max:
                return (minute - at - 1) * MINUTE_MS
        return UNBOUNDED_MS

    def _count(self, minute: int, count: int) -> None:
        before = self._counts.pop()[1] if self._counts and self._counts[-1][0] == minute else 0
        self._counts.append((minute, before + count))
        self._total += count
