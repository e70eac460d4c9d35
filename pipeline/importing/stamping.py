"""Which log time an imported record gets, so that old events are evaluated as they would have been then."""

from collections.abc import Sequence

from adledger.schemas.wire import EVENT_TIME_MS_MIN, FUTURE_MS_MAX


class LogClock:
    """Stamps records in a file's order (events.md, "Identity and time").

    A record gets the running maximum of event times over all topics of its lane, continued from what the log
    holds. One whose event time is over 5 minutes past the import's start gets that start, and is so malformed;
    one whose time can't be read gets the log time of the one before it in the file.
    """

    def __init__(self, lane_log_times: Sequence[int], started_at_ms: int) -> None:
        """Continue from the largest log time that each lane holds (ms; -1 where it is empty)."""
        # No event of the contract is older, so a line that comes before any readable one never makes one late.
        self._lanes = [max(time, EVENT_TIME_MS_MIN) for time in lane_log_times]
        self._before = EVENT_TIME_MS_MIN
        self._started_at_ms = started_at_ms
        self._latest = started_at_ms + FUTURE_MS_MAX

    def stamp(self, lane: int, event_time: int | None) -> int:
        """Return the log time (ms) of the next record."""
        if event_time is None:
            log_time = self._before
        elif event_time > self._latest:
            log_time = self._started_at_ms
        else:
            log_time = max(self._lanes[lane], event_time)
        self._lanes[lane] = max(self._lanes[lane], log_time)
        self._before = log_time
        return log_time
