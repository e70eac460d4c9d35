"""How lanes report what happens: an event, and the one function that takes it.

A component that has something to report calls `emit`. Each listener (the log, metrics, readiness, the event log) picks the events
that concern it by their type (adledger.pipeline.lanes.events). There are two kinds:

- an `Event` is something that happened to a lane or a worker; it may have a log line, and the event log has it;
- a `Measurement` comes several times a batch, perhaps from a CPU thread, and is only counted.
"""

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `level` and `text` are its log line's; `text` formats the event as `e`, "" is no line."""

    level: ClassVar[int] = logging.INFO
    text: ClassVar[str] = ""

    @property
    def line(self) -> str:
        """Its log line, or ""."""
        return self.text.format(e=self)

    @classmethod
    def name(cls) -> str:
        """Return its name in the event log: batch_in_doubt for BatchInDoubt."""
        return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def fields(self) -> Mapping[str, object]:
        """Return its fields for the event log, as JSON values."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


Emit = Callable[[Event], None]
"""Takes an event. Cheap, and never raises: a lane must not fail because a report did."""


def ignore(_: Event) -> None:
    """Ignore an event."""


def fan_out(*listeners: Emit) -> Emit:
    """Return a function that passes an event to all of these, in this order."""

    def emit(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return emit


@dataclass(frozen=True, slots=True)
class Measurement(Event):
    """Something that is only counted."""


@dataclass(frozen=True, slots=True)
class LaneTrouble(Event):
    """An event of a lane that an error explains."""

    lane: int
    reason: str

    @property
    def why(self) -> str:
        """The error's message without the lane that it begins with, since the line names it.

        Errors of log and recovery name their lane: they may end a command. Those of ClickHouse know of no lane.
        """
        return re.sub(rf"^lane {self.lane}[:,] ", "", self.reason)


@dataclass(frozen=True, slots=True)
class Remediable(LaneTrouble):
    """An event that an operator can do something about."""

    remedy: str

    @property
    def advice(self) -> str:
        """The remedy as the end of a line, where there is one."""
        return f"\n  remedy: {self.remedy}" if self.remedy else ""
