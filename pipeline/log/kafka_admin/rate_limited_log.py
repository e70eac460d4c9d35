"""aiokafka's log records, and our lines about brokers, as single lines: no tracebacks, and no line storms."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

REPEAT_SECONDS_MIN, REPEAT_SECONDS_MAX = 5.0, 600.0
"""The longest pause between two lines of one kind; the pause doubles up to it while such lines keep coming."""
KINDS_REMEMBERED_MAX = 256

NORMAL = (
    "Group Coordinator Request failed: %s",
    "Heartbeat failed for group %s because it is rebalancing",
    "Marking the coordinator dead (node %s)for group %s.",
)
"""aiokafka's warnings of events in every first start, rebalance or restart; if they last, we log them ourselves."""


@contextmanager
def silent() -> Iterator[None]:
    """Silence aiokafka within the block: errors there are raised, and reported once, with a remedy."""
    log = logging.getLogger("aiokafka")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


@dataclass(slots=True)
class _Repeated:
    """One kind of line: when it may be written again, the pause after that, and how many were suppressed."""

    due: float
    pause: float
    left_out: int = 0


class RateLimitedLog(logging.Handler):
    """Writes lines, repeated ones less and less often; takes over aiokafka's log while it is open.

    Lines are of one kind if they are equal, or come from the same log statement of aiokafka, whichever broker they name:
    while brokers are away it would repeat three of them every few seconds.
    """

    def __init__(self, write: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`write` receives one line at a time; `clock` is in seconds."""
        super().__init__(logging.WARNING)
        self._write, self._clock = write, clock
        self._repeated: dict[str, _Repeated] = {}
        self._log = logging.getLogger("aiokafka")

    def open(self) -> None:
        """Begin to receive aiokafka's records."""
        self._log.propagate = False
        self._log.addHandler(self)

    def close(self) -> None:
        """Release aiokafka's log, once the last one is closed."""
        self._log.removeHandler(self)
        self._log.propagate = not any(isinstance(handler, RateLimitedLog) for handler in self._log.handlers)
        super().close()

    def say(self, line: str, kind: str = "") -> None:
        """Write a line, unless one of its kind (default: the same line) was written recently."""
        kind, now = kind or line, self._clock()
        before = self._repeated.get(kind)
        if before is not None and now < before.due:
            before.left_out += 1
            return
        if len(self._repeated) >= KINDS_REMEMBERED_MAX:
            self._repeated.clear()
        if before is None or now >= before.due + before.pause:  # none came for long
            self._repeated[kind] = _Repeated(now + REPEAT_SECONDS_MIN, REPEAT_SECONDS_MIN)
            self._write(line)
            return
        pause = min(2 * before.pause, REPEAT_SECONDS_MAX)
        self._repeated[kind] = _Repeated(now + pause, pause)
        self._write(f"{line} ({before.left_out} like it were left out)" if before.left_out else line)

    def emit(self, record: logging.LogRecord) -> None:
        """Write one of aiokafka's records, with its exception in short."""
        if record.msg in NORMAL:
            return
        line = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            line += f": {record.exc_info[1]!r}"
        self.say(f"kafka: {' '.join(line.split())}", str(record.msg))
