"""Billing periods: quarters of an hour of event time, and when each one closes.

A period closes `period_close_delay_minutes` after its end, by the lanes' watermarks. An event that a lane reads when its
watermark is past that moment is *after close*: it never counts in the period's final sums, whenever those are made.
docs/adr/0024-periods.md has the reasons.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

PERIOD_MINUTES = 15
"""Days of every time zone in use begin and end with a period: some are at :30 or :45, none elsewhere."""

PERIOD_MS = PERIOD_MINUTES * 60_000

CLOSE_DELAY_MINUTES = 15
"""`period_close_delay_minutes` where nothing else is set."""

_MINUTE_MS = 60_000


@dataclass(frozen=True, slots=True)
class CloseDelay:
    """How long after its end a period closes; for periods that begin at `from_ms` (ms since the epoch) or later."""

    from_ms: int
    delay_ms: int


@dataclass(frozen=True, slots=True)
class CloseDelays:
    """The delay of every period. Each step holds until the next one begins; the first begins before all periods."""

    steps: tuple[CloseDelay, ...]

    def __post_init__(self) -> None:
        begins = [step.from_ms for step in self.steps]
        assert begins, "every period has a delay"
        assert begins[0] == 0, "every period has a delay"
        assert begins == sorted(set(begins)), "each step begins after the one before"
        assert not any(begin % PERIOD_MS for begin in begins), "a delay holds for whole periods"

    @classmethod
    def same(cls, minutes: int) -> "CloseDelays":
        """Return one delay for all periods."""
        return cls((CloseDelay(0, minutes * _MINUTE_MS),))

    @property
    def latest_minutes(self) -> int:
        """The delay of periods to come: what the setting must be."""
        return self.steps[-1].delay_ms // _MINUTE_MS

    @property
    def arrays(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Where each step begins, and its delay, for the kernel."""
        steps = [(step.from_ms, step.delay_ms) for step in self.steps]
        begins, delays = np.array(steps, np.int64).T
        return np.ascontiguousarray(begins), np.ascontiguousarray(delays)

    def closes_at(self, event_time: int) -> int:
        """Return when the period of an event time closes: the watermark (ms) that no event in time is past."""
        begin = event_time // PERIOD_MS * PERIOD_MS
        delay = next(step.delay_ms for step in reversed(self.steps) if step.from_ms <= begin)
        return begin + PERIOD_MS + delay
