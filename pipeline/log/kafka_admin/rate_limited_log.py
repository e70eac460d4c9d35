"""What aiokafka logs, and what we have to say of it, as lines for people: no tracebacks, no storms of one line."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

REPEAT_SECONDS_MIN = 5.0
"""The same line is not said again for so long: sixteen lanes see the same broker go."""
LINES_REMEMBERED_MAX = 256

NORMAL = (
    "Group Coordinator Request failed: %s",
    "Heartbeat failed for group %s because it is rebalancing",
    "Marking the coordinator dead (node %s)for group %s.",
)
"""aiokafka's warnings of what happens in any first start, rebalance or restart; where it lasts, we say so ourselves."""


@contextmanager
def silent() -> Iterator[None]:
    """Let aiokafka log nothing within the block: what goes wrong there is raised, and told once, with its remedy."""
    log = logging.getLogger("aiokafka")
    before = log.level
    log.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        log.setLevel(before)


class RateLimitedLog(logging.Handler):
    """Says lines, each at most once in REPEAT_SECONDS_MIN; takes over aiokafka's log while it is open."""

    def __init__(self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        """`say` is given one line at a time; `clock` is in seconds."""
        super().__init__(logging.WARNING)
        self._say_line, self._clock = say, clock
        self._said: dict[str, float] = {}
        self._log = logging.getLogger("aiokafka")

    def open(self) -> None:
        """Begin to hear aiokafka."""
        self._log.propagate = False
        self._log.addHandler(self)

    def close(self) -> None:
        """Leave aiokafka's log alone, when the last one has been closed."""
        self._log.removeHandler(self)
        self._log.propagate = not any(isinstance(handler, RateLimitedLog) for handler in self._log.handlers)
        super().close()

    def say(self, line: str) -> None:
        """Say a line, unless it was said just now."""
        now = self._clock()
        if now - self._said.get(line, -REPEAT_SECONDS_MIN) < REPEAT_SECONDS_MIN:
            return
        if len(self._said) >= LINES_REMEMBERED_MAX:
            self._said.clear()
        self._said[line] = now
        self._say_line(line)

    def emit(self, record: logging.LogRecord) -> None:
        """Say one of aiokafka's records, with what raised it in short."""
        if record.msg in NORMAL:
            return
        line = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            line += f": {record.exc_info[1]!r}"
        self.say(f"kafka: {' '.join(line.split())}")
