"""Why a record is malformed, in words: which field, what was found in it, and what the contract allows.

The decoder decides (`decode_plain`); this explains its decision to operators, one record at a time.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

from adledger.pipeline.stages.field_rules import FIELDS
from adledger.pipeline.stages.json_text import Members, depth_of, parse
from adledger.pipeline.stages.rfc3339 import parse_ms
from adledger.pipeline.stages.slow_path import DecodeContext, decode_plain
from adledger.pipeline.stages.snippets import SentFloat, bytes_snippet, json_snippet, snippet
from adledger.schemas import wire
from adledger.schemas.wire import Malformed

_CONTEXT = DecodeContext(0, 1, (0, 1, 2), wire.currency_code("USD"))
_SECONDS_MAX = 10**11
"""A whole number below this that should be milliseconds since 2000 is in seconds; above 10^14, in microseconds."""
_MICROSECONDS_MIN, _NANOSECONDS_MIN = 10**14, 10**17
_PUBLISHER = re.compile(rb'"publisher_id"[ \t\r\n]*:[ \t\r\n]*(0|[1-9][0-9]{0,9})(?=[ \t\r\n]*[,}])')
_ONE_OBJECT = "one JSON object in UTF-8"


class MalformedReason(NamedTuple):
    """Why a record is malformed. `field` is "" where the reason is not about a field; `found` is bounded and escaped."""

    reason: int
    field: str
    found: str
    allowed: str

    def __str__(self) -> str:
        """Return it as a readable sentence."""
        text = Malformed(self.reason).name.lower().replace("_", " ")
        if self.found:
            text += f": {self.field} is {self.found}" if self.field else f": {self.found}"
        return f"{text}; allowed: {self.allowed}" if self.allowed else text


def refusal_of(value: bytes | None, topic_kind: int, log_time: int) -> MalformedReason | None:
    """Return why a record is malformed, or None where it is not. `topic_kind`: 1 impressions, 2 clicks, 0 both."""
    reason = decode_plain(value, None, topic_kind, log_time, _CONTEXT)
    if not isinstance(reason, Malformed):
        return None
    if reason in _OF_THE_RECORD:
        allowed, found = _OF_THE_RECORD[reason]
        return MalformedReason(reason, "", found(value or b""), allowed)
    tree = parse(value or b"", SentFloat)
    assert isinstance(tree, Members), "the reason is about its fields"
    if reason == Malformed.REPEATED_KEY:
        [(name, times)] = Counter(name for name, _ in tree).most_common(1)
        return MalformedReason(reason, snippet(name), f"there {times:,} times", "each key once")
    return _of_a_field(reason, dict(tree), topic_kind, log_time)


def publisher_of(value: bytes | None) -> int | None:
    """Return the publisher that a malformed record names, where it is readable: also in what is not whole JSON."""
    try:
        tree = parse(value or b"")
    except (ValueError, RecursionError):
        found = set(_PUBLISHER.findall(value or b""))
        publisher: object = int(found.pop()) if len(found) == 1 else None
    else:
        publisher = dict(tree).get("publisher_id") if isinstance(tree, Members) else None
    return publisher if type(publisher) is int and 0 <= publisher <= wire.UINT32_MAX else None


def _of_a_field(
    reason: Malformed, event: dict[str, object], topic_kind: int, log_time: int
) -> MalformedReason:
    """Return the first field that has the reason."""
    if reason == Malformed.WRONG_TOPIC:
        kind = {1: "impressions", 2: "clicks"}[topic_kind]
        return MalformedReason(
            reason, "event_type", json_snippet(event["event_type"]), f"only {kind} in this topic"
        )
    if reason == Malformed.FROM_THE_FUTURE:
        allowed = f"at most {wire.FUTURE_MS_MAX // 60_000} minutes after its log time"
        return MalformedReason(reason, "event_time", _ahead(event["event_time"], log_time), allowed)
    is_click = event.get("event_type") == "click"
    for name, rule in FIELDS.items():
        if name == "impression_id" and not is_click:
            continue
        if name not in event or (event[name] is None and not rule.required):
            if reason == Malformed.MISSING_FIELD and rule.required:
                return MalformedReason(reason, name, "absent", rule.allowed)
            continue
        value = event[name]
        has_type = type(value) in rule.types
        if reason == Malformed.WRONG_TYPE and not has_type:
            return MalformedReason(reason, name, json_snippet(value), rule.allowed)
        if reason == Malformed.OUT_OF_RANGE and has_type and not rule.fits(value):
            return MalformedReason(reason, name, json_snippet(value) + _remark(name, value), rule.allowed)
    return MalformedReason(reason, "", "", "")


def _no_json(value: bytes) -> str:
    """Return where a text stops being JSON, and what is there."""
    what, at = "not JSON", 0
    try:
        parse(value)
    except UnicodeDecodeError as error:
        what, at = "not UTF-8", error.start
    except json.JSONDecodeError as error:
        what, at = (
            error.msg[0].lower() + error.msg[1:].removesuffix(" at").removesuffix(" starting"),
            len(error.doc[: error.pos].encode()),
        )
    except (ValueError, RecursionError) as error:  # a constant; brackets that are never closed, at any depth
        return snippet(str(error)) if isinstance(error, ValueError) else "brackets that don't match"
    rest = bytes_snippet(value[at:])
    return f"{what} at byte {at:,}: {rest}" if rest else f"{what} at its end"


def _ahead(event_time: object, log_time: int) -> str:
    ms = parse_ms(event_time) if isinstance(event_time, str) else event_time
    assert isinstance(ms, int), "else it would be out of range"
    return f"{json_snippet(event_time)}, {(ms - log_time) / 1000:,.3f} s after its log time"


def _remark(name: str, value: object) -> str:
    """Return what the snippet of a value does not tell: the unit of a time, that a text is not valid Unicode."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return " (half of a surrogate pair)"
        return ""
    if name != "event_time" or not isinstance(value, int):
        return ""
    if wire.EVENT_TIME_MS_MIN // 1000 <= value < _SECONDS_MAX:
        return " (seconds)"
    if value >= _NANOSECONDS_MIN:
        return " (nanoseconds)"
    return " (microseconds)" if value >= _MICROSECONDS_MIN else ""


_OF_THE_RECORD: Mapping[Malformed, tuple[str, Callable[[bytes], str]]] = {
    Malformed.TOMBSTONE: (_ONE_OBJECT, lambda _: "empty"),
    Malformed.TOO_LARGE: (f"at most {wire.RECORD_BYTES_MAX:,} bytes", lambda value: f"{len(value):,} bytes"),
    Malformed.NOT_JSON: (_ONE_OBJECT, _no_json),
    Malformed.TOO_DEEP: (
        f"objects and arrays nested at most {wire.NESTING_DEPTH_MAX} deep",
        lambda value: f"nested {depth_of(value):,} deep",
    ),
    Malformed.NOT_AN_OBJECT: (_ONE_OBJECT, lambda value: json_snippet(parse(value, SentFloat))),
}
"""Reasons that are not about a field: what is allowed, and how to show what was found."""
