"""The wire format itself: one JSON object per line, written as it is."""

from collections.abc import Sequence

import orjson

from adledger.pipeline.importing.records import ParsedRecord, unreadable
from adledger.pipeline.stages.rfc3339 import parse_ms
from adledger.schemas.wire import EventType

_UNKEYED = "event_type, user_id or ip can't be read, so it has no topic or key"
_EVENT_TYPES = {"impression": EventType.IMPRESSION, "click": EventType.CLICK}


class Wire:
    """Reads the topic, key and event time of each line, and nothing else: the pipeline evaluates the rest."""

    def parse(self, lines: Sequence[bytes], first_line: int) -> list[ParsedRecord]:
        """Return a record for each line that is not blank; its value is the line."""
        return [
            _record(line, number)
            for number, line in enumerate(lines, first_line)
            if line and not line.isspace()
        ]


def _record(line: bytes, number: int) -> ParsedRecord:
    try:
        event = orjson.loads(line)
        event_type = _EVENT_TYPES[event["event_type"]]
        key = event["user_id"] or event["ip"]
        if not key or event["user_id"].__class__ is not str:
            return unreadable(line, number, _UNKEYED)
        event_time = _event_time(event.get("event_time"))
        return ParsedRecord(event_type, key.encode(), event_time, line, line=number)
    except orjson.JSONDecodeError:
        return unreadable(line, number, "not JSON")
    except (KeyError, TypeError, AttributeError):  # not of this shape
        return unreadable(line, number, _UNKEYED)


def _event_time(value: object) -> int | None:
    if type(value) is int:
        return value
    return parse_ms(value) if type(value) is str else None
