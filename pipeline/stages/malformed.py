"""Why a record is malformed, in words: the reason, the field, what was found there, and what the contract allows.

The decoder decides (`decode_plain`); this explains its decision to operators, one record at a time.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple

from adledger.pipeline.stages.rfc3339 import parse_ms
from adledger.pipeline.stages.slow_path import DecodeContext, decode_plain
from adledger.schemas import wire
from adledger.schemas.wire import Malformed

SHOWN_CHARS_MAX = 60
"""At most this much of a value is shown."""

INTEGER_DIGITS_MAX = 1_000

_CONTEXT = DecodeContext(0, 1, (0, 1, 2), wire.currency_code("USD"))
_SECONDS_MAX = 10**11
"""A whole number below this that should be milliseconds since 2000 is in seconds; above 10^14, in microseconds."""
_MICROSECONDS_MIN = 10**14


class MalformedReason(NamedTuple):
    """Why a record is malformed. `field`, `found` and `allowed` are "" where the reason is not about a field."""

    reason: int
    field: str
    found: str
    allowed: str

    def __str__(self) -> str:
        """Return it as a readable sentence."""
        reason = Malformed(self.reason).name.lower().replace("_", " ")
        if not self.field:
            return f"{reason}: {self.allowed}" if self.allowed else reason
        found = f" is {self.found}" if self.found else ""
        return f"{reason}: {self.field}{found}; allowed: {self.allowed}"


class _Field(NamedTuple):
    """The contract of a field: its JSON type, what it allows in words, and whether a value is in range."""

    types: tuple[type, ...]
    allowed: str
    fits: Callable[[Any], bool]
    required: bool = True


def _integer(most: int, *, required: bool = True) -> _Field:
    return _Field((int,), f"an integer from 0 to {most:,}", lambda value: 0 <= value <= most, required)


def _text(least: int, most: int) -> _Field:
    return _Field(
        (str,), f"a string of {least} to {most:,} bytes", lambda value: least <= len(value.encode()) <= most
    )


def _capitals(count: int, *, or_empty: bool) -> _Field:
    allowed = f"{count} capital letters" + (", or empty" if or_empty else "")

    def fits(value: str) -> bool:
        return (or_empty and not value) or (
            len(value) == count and value.isascii() and value.isalpha() and value.isupper()
        )

    return _Field((str,), allowed, fits, required=False)


def _is_time(value: int | str) -> bool:
    ms = parse_ms(value) if isinstance(value, str) else value
    return ms is not None and wire.EVENT_TIME_MS_MIN <= ms < wire.EVENT_TIME_MS_MAX


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


_BOOLEAN = _Field((bool,), "true or false", lambda _: True, required=False)

FIELDS: Mapping[str, _Field] = {
    "event_type": _Field((str,), '"impression" or "click"', lambda value: value in {"impression", "click"}),
    "event_id": _text(1, wire.EVENT_ID_BYTES_MAX),
    "event_time": _Field((int, str), "milliseconds since 1970 or RFC 3339 text, from 2000 to 2099", _is_time),
    **{
        name: _integer(wire.UINT32_MAX)
        for name in ("publisher_id", "site_id", "campaign_id", "creative_id", "advertiser_id")
    },
    "placement_id": _integer(wire.UINT32_MAX, required=False),
    "user_id": _text(0, wire.USER_ID_BYTES_MAX),
    "ip": _Field((str,), "an IPv4 or IPv6 address", _is_address),
    "user_agent": _text(0, wire.USER_AGENT_BYTES_MAX),
    "page_url": _text(0, wire.PAGE_URL_BYTES_MAX),
    "price_micros": _integer(wire.PRICE_MICROS_MAX),
    "impression_id": _text(1, wire.IMPRESSION_ID_BYTES_MAX),
    "currency": _capitals(3, or_empty=False),
    "country": _capitals(2, or_empty=True),
    "width": _integer(wire.UINT16_MAX, required=False),
    "height": _integer(wire.UINT16_MAX, required=False),
    "is_prefetch": _BOOLEAN,
    "is_test": _BOOLEAN,
}
"""The contract's fields, in the order in which they are checked."""

_WHOLE: Mapping[int, str] = {
    Malformed.TOMBSTONE: "a JSON object, not an empty value",
    Malformed.TOO_LARGE: f"at most {wire.RECORD_BYTES_MAX:,} bytes",
    Malformed.NOT_JSON: "one JSON object in UTF-8",
    Malformed.TOO_DEEP: f"objects and arrays nested at most {wire.NESTING_DEPTH_MAX} deep",
    Malformed.NOT_AN_OBJECT: "one JSON object",
}


def refusal_of(value: bytes | None, topic_kind: int, log_time: int) -> MalformedReason | None:
    """Return why a record is malformed, or None where it is not. `topic_kind`: 1 impressions, 2 clicks, 0 both."""
    reason = decode_plain(value, None, topic_kind, log_time, _CONTEXT)
    if not isinstance(reason, Malformed):
        return None
    if value is None or reason in _WHOLE:
        return MalformedReason(reason, "", "", _WHOLE.get(reason, ""))
    if reason == Malformed.REPEATED_KEY:
        members: list[tuple[str, Any]] = json.loads(value, object_pairs_hook=list, parse_int=_integer_of)
        names = Counter(name for name, _ in members)
        return MalformedReason(reason, _short(names.most_common(1)[0][0]), "repeated", "each key once")
    event: dict[str, Any] = json.loads(value, parse_int=_integer_of)
    if reason == Malformed.WRONG_TOPIC:
        kind = {1: "impressions", 2: "clicks"}[topic_kind]
        return MalformedReason(
            reason, "event_type", _shown(event["event_type"]), f"only {kind} in this topic"
        )
    if reason == Malformed.FROM_THE_FUTURE:
        allowed = f"at most {wire.FUTURE_MS_MAX // 60_000} minutes after its log time"
        return MalformedReason(reason, "event_time", _shown(event["event_time"]), allowed)
    return _of_a_field(reason, event)


def publisher_of(value: bytes | None) -> int | None:
    """Return the publisher that a malformed record names, where it is readable."""
    try:
        event = json.loads(value or b"")
        publisher = event["publisher_id"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return publisher if type(publisher) is int and 0 <= publisher <= wire.UINT32_MAX else None


def _integer_of(digits: str) -> int:
    """Return an integer; for one with too many digits for Python to parse, another that is too large as well."""
    return int(digits) if len(digits) <= INTEGER_DIGITS_MAX else 10**INTEGER_DIGITS_MAX


def _of_a_field(reason: Malformed, event: dict[str, Any]) -> MalformedReason:
    """Return the first field that has the reason."""
    is_click = event.get("event_type") == "click"
    for name, field in FIELDS.items():
        if name == "impression_id" and not is_click:
            continue
        if name not in event:
            if reason == Malformed.MISSING_FIELD and field.required:
                return MalformedReason(reason, name, "absent", field.allowed)
            continue
        value = event[name]
        has_type = type(value) in field.types
        if reason == Malformed.WRONG_TYPE and not has_type:
            return MalformedReason(reason, name, _shown(value), field.allowed)
        if reason == Malformed.OUT_OF_RANGE and has_type and not field.fits(value):
            return MalformedReason(reason, name, _shown(value) + _unit(name, value), field.allowed)
    return MalformedReason(reason, "", "", "")


def _unit(name: str, value: object) -> str:
    """Return the unit of an event time, where it is evident."""
    if name != "event_time" or not isinstance(value, int):
        return ""
    if wire.EVENT_TIME_MS_MIN // 1000 <= value < _SECONDS_MAX:
        return " (seconds)"
    return (
        " (microseconds)"
        if _MICROSECONDS_MIN <= value < 10**17
        else " (nanoseconds)"
        if value >= 10**17
        else ""
    )


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= SHOWN_CHARS_MAX:
        return text
    size = f" ({len(value.encode()):,} bytes)" if isinstance(value, str) else ""
    return f"{text[:SHOWN_CHARS_MAX]}...{size}"


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]}..."
