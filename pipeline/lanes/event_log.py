"""The event log: what happens in a worker's lanes as JSON, one object a line, for programs that follow a worker.

Setting `event_log` names the file. Each line has `at` (seconds since the epoch) and `event` (adledger.pipeline.lanes.events:
`batch_in_doubt` for BatchInDoubt), then the event's fields. A line is written whole before the lane goes on, so what
was written survives kill -9. Measurements are not in it: metrics have them.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import orjson

from adledger.pipeline.errors import UsageError
from adledger.pipeline.lanes.emit import Emit, Event, Measurement, ignore

_log = logging.getLogger("adledger.lanes")


@contextmanager
def event_log(path: Path | None, clock: Callable[[], float] = time.time) -> Iterator[Emit]:
    """Yield a function that appends events to a file (nowhere if `path` is None). Raises UsageError.

    `clock` gives seconds since the epoch.
    """
    if path is None:
        yield ignore
        return
    try:
        file = path.open("ab", buffering=0)
    except OSError as error:
        raise UsageError(
            f"event_log = {path} can't be written: {error.strerror}",
            remedy="name a file in an existing folder",
        ) from None
    with file:
        yield _Appender(file, clock).emit


class _Appender:
    """Writes events, from one event loop."""

    def __init__(self, file: BinaryIO, clock: Callable[[], float]) -> None:
        self._file, self._clock = file, clock
        self._broken = False

    def emit(self, event: Event) -> None:
        """Write an event. If that fails the log ends, with a log line: no lane waits for room on this disk."""
        if self._broken or isinstance(event, Measurement):
            return
        line = {"at": self._clock(), "event": event.name(), **event.fields()}
        try:
            self._file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))
        except OSError as error:
            self._broken = True
            _log.error("event_log = %s can't be written any more: %s", self._file.name, error.strerror)
