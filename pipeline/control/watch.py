"""What the agent does with `ad.rollups`, and what the live page shows: the publisher monitor, and how far back it reads."""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from adledger.pipeline.control.logs import APP
from adledger.pipeline.control.monitor import PublisherMonitor
from adledger.pipeline.control.recent import RECENT_SECONDS
from adledger.pipeline.control.rollups_message import COLUMNS, RollupsMessageError, decode, encode, split
from adledger.schemas.wire import EVENT_TIME_MS_MIN

UNREADABLE_LOG_SECONDS = 60
"""Unreadable messages are counted, and logged at most this often."""


class PublisherWatch:
    """Reads messages into the monitor. `clock` returns seconds since the epoch."""

    def __init__(self, monitor: PublisherMonitor, clock: Callable[[], float] = time.time) -> None:
        self.monitor = monitor
        self.unreadable = 0
        self._clock = clock
        self._since = clock() - RECENT_SECONDS
        self._logged_at = 0.0

    def take(self, message: bytes | None) -> None:
        """Absorb a message, or count it as unreadable; raising would not help, since Faust acknowledges it in any case."""
        try:
            self.monitor.absorb(decode(message or b""))
        except RollupsMessageError as error:
            self.unreadable += 1
            if self._clock() >= self._logged_at + UNREADABLE_LOG_SECONDS:
                self._logged_at = self._clock()
                APP.error("%d messages of ad.rollups could not be read; the last: %s", self.unreadable, error)

    def live(self, publisher_id: int) -> dict[str, Any]:
        """Return a publisher's last minutes, as JSON values; `read_since`: older minutes may lack records."""
        since = datetime.fromtimestamp(self._since, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return {**self.monitor.live(publisher_id), "read_since": since}


def compile_monitor() -> None:
    """Run the monitor once on a dummy message: compiles its kernels, or loads compiled ones."""
    row = {name: [1] for name in COLUMNS} | {"minute": [EVENT_TIME_MS_MIN // 1000]}
    monitor = PublisherMonitor()
    for part in split("", 0, 0, EVENT_TIME_MS_MIN, row):
        assert monitor.absorb(decode(encode(part))), "the first message is no repeat"
    monitor.live(1)
