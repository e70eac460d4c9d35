"""What a worker tells of its lanes, followed in its event log (docs/operations.md) while it runs."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Told:
    """An event. `at`: seconds since the epoch; `name` and `fields` as adledger.pipeline.lanes.events has them."""

    at: float
    name: str
    fields: Mapping[str, Any]


def told(line: bytes) -> Told:
    """Return the event of a line of an event log."""
    fields = json.loads(line)
    return Told(fields.pop("at"), fields.pop("event"), fields)


def events_of(log: Path, name: str) -> Iterator[Told]:
    """Yield those of a name, of all its lives; nothing where there is no log. A line that is being written is left out."""
    lines = log.read_bytes().splitlines(keepends=True) if log.exists() else []
    for line in lines:
        if line.endswith(b"\n") and name.encode() in line and (event := told(line)).name == name:
            yield event


class EventTail:
    """The events that come after it was made, as they come."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._read_to = log.stat().st_size if log.exists() else 0
        self._seen: list[Told] = []

    def seen(self) -> list[Told]:
        """Return all events since, oldest first."""
        if self._log.exists():
            with self._log.open("rb") as log:
                log.seek(self._read_to)
                new = log.read()
            whole = new.rfind(b"\n") + 1
            self._seen.extend(map(told, new[:whole].splitlines()))
            self._read_to += whole
        return self._seen

    def named(self, *names: str) -> list[Told]:
        """Return those of these names."""
        return [event for event in self.seen() if event.name in names]
