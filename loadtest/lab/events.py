"""A worker's lane events, followed in its event log (docs/operations.md) while it runs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event. `at`: seconds since the epoch; `name` and `fields` as in adledger.pipeline.lanes.events."""

    at: float
    name: str
    fields: Mapping[str, Any]


def parse_event(line: bytes) -> LoggedEvent:
    """Return the event of a line of an event log."""
    fields = json.loads(line)
    return LoggedEvent(fields.pop("at"), fields.pop("event"), fields)


def events_of(log: Path, name: str) -> Iterator[LoggedEvent]:
    """Yield the events with a name, from all of the worker's processes; none without a log. Skips an incomplete last line."""
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    for line in lines:
        if line.endswith(b"\n") and name.encode() in line and (event := parse_event(line)).name == name:
            yield event


class EventTail:
    """The events that are logged after its creation."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read_to = log.stat().st_size if log.exists() else 0
        self._seen: list[LoggedEvent] = []

    def seen(self) -> list[LoggedEvent]:
        """Return all events since then, oldest first."""
        if self._log.exists():
            with self._log.open("rb") as log:
                log.seek(self._read_to)
                new = log.read()
            whole = new.rfind(b"\n") + 1
            self._seen.extend(map(parse_event, new[:whole].splitlines()))
            self._read_to += whole
        return self._seen

    def named(self, *names: str) -> list[LoggedEvent]:
        """Return the events with these names."""
        return [event for event in self.seen() if event.name in names]
