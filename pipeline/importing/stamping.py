"""The log time of an imported record, so that old events are evaluated as they would have been at the time."""

from collections.abc import Sequence

from adledger.schemas.wire import EVENT_TIME_MS_MIN, FUTURE_MS_MAX


class LogClock:
    """Stamps records in a file's order (docs/events.md, "Identity and time").

    A record gets the running maximum of event times over all topics of its lane, continued from the log's last log time. A
    record that will be malformed, by its time or otherwise, gets the lane's current log time, and does not move it. A time
    after `latest_ms` (5 minutes past the import's start, or the operator's limit) is invalid: its record gets a log time at
    least 5 minutes before, and so is malformed.
    """

    def __init__(
        self, lane_log_times: Sequence[int], latest_ms: int, first_times: Sequence[int | None] = ()
    ) -> None:
        """Continue from the largest log time of each lane (ms; -1 if it is empty).

        `latest_ms` is the latest valid event time. `first_times`: the first valid event time that each lane will get, which
        is also the log time of malformed records at the head of an empty lane.
        """
        first = first_times or [None] * len(lane_log_times)
        self._lanes = [
            max(log_time, EVENT_TIME_MS_MIN) if log_time >= 0 else first_time or EVENT_TIME_MS_MIN
            for log_time, first_time in zip(lane_log_times, first, strict=True)
        ]
        self._latest_ms = latest_ms

    def stamp(self, lane: int, event_time: int | None) -> int:
        """Return the log time (ms) of the next record; `event_time` is None if it will be malformed."""
        if event_time is None or event_time > self._latest_ms:
            return min(self._lanes[lane], self._latest_ms - FUTURE_MS_MAX)
        self._lanes[lane] = max(self._lanes[lane], event_time)
        return self._lanes[lane]
