"""Unusual records: malformed ones of every kind, and odd but valid ones.

A recipe changes the bytes of a good record. A malformed one names the contract's reason for refusing it; an odd one is
the same event in another spelling. They are rare, so they are plain Python.
"""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from adledger.schemas import wire
from adledger.schemas.wire import Malformed

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a record is changed. `make` gets its bytes and its log time (ms); None is a null value.

    `other_topic`: the result goes to the other kind's topic.
    """

    name: str
    reason: Malformed
    make: Callable[[bytes, int], bytes | None]
    other_topic: bool = False


def _dump(event: Json) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode()


def _with(**fields: object) -> Callable[[bytes, int], bytes]:
    """Replace or add fields."""
    return lambda value, _: _dump({**json.loads(value), **fields})


def _without(name: str) -> Callable[[bytes, int], bytes]:
    return lambda value, _: _dump({k: v for k, v in json.loads(value).items() if k != name})


def _literal(name: str, literal: str) -> Callable[[bytes, int], bytes]:
    """Replace a field's value by a literal that json.dumps would not write."""

    def make(value: bytes, _: int) -> bytes:
        return _dump({**json.loads(value), name: "\ue000"}).replace(b'"\\ue000"', literal.encode())

    return make


def _as_text(name: str) -> Callable[[bytes, int], bytes]:
    def make(value: bytes, _: int) -> bytes:
        event = json.loads(value)
        return _dump({**event, name: str(event[name])})

    return make


def _as_click(value: bytes, _: int) -> bytes:
    event = json.loads(value)
    return _dump({**event, "event_type": "click", "impression_id": event["event_id"]})


_EVENT_ID = re.compile(rb'"event_id": ?')


def _repeated(value: bytes, _: int) -> bytes:
    at = _EVENT_ID.search(value)
    assert at is not None
    return value[: at.start()] + b'"price_micros":1,"price_micros":1,' + value[at.start() :]


def _bomb(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


MALFORMED_RECIPES = (
    Recipe("empty value", Malformed.TOMBSTONE, lambda _v, _t: b""),
    Recipe("null value", Malformed.TOMBSTONE, lambda _v, _t: None),
    Recipe("over 16 KiB", Malformed.TOO_LARGE, _with(note="x" * wire.RECORD_BYTES_MAX)),
    Recipe("truncated", Malformed.NOT_JSON, lambda value, _: value[: len(value) * 2 // 3]),
    Recipe("no JSON", Malformed.NOT_JSON, lambda _v, _t: b"impression;83.149.9.216;300x250"),
    Recipe("NUL bytes behind", Malformed.NOT_JSON, lambda value, _: value + b"\0\0\0"),
    Recipe(
        "NUL byte in a text", Malformed.NOT_JSON, lambda value, _: value.replace(b"Mozilla", b"Moz\0illa")
    ),
    Recipe("two objects", Malformed.NOT_JSON, lambda value, _: value + value),
    Recipe("comma at the end", Malformed.NOT_JSON, lambda value, _: value[:-1] + b",}"),
    Recipe("NaN", Malformed.NOT_JSON, _literal("price_micros", "NaN")),
    Recipe("leading zero", Malformed.NOT_JSON, _literal("price_micros", "007")),
    Recipe("plus sign", Malformed.NOT_JSON, _literal("price_micros", "+7")),
    Recipe("not UTF-8", Malformed.NOT_JSON, lambda value, _: value.replace(b"www.", b"www.\xff\xfe")),
    Recipe("nested bomb", Malformed.TOO_DEEP, lambda value, _: value[:-1] + b',"x":' + _bomb(5_000) + b"}"),
    Recipe("65 levels", Malformed.TOO_DEEP, lambda value, _: value[:-1] + b',"x":' + _bomb(64) + b"}"),
    Recipe("array", Malformed.NOT_AN_OBJECT, lambda value, _: b"[" + value + b"]"),
    Recipe("null", Malformed.NOT_AN_OBJECT, lambda _v, _t: b"null"),
    Recipe("repeated key", Malformed.REPEATED_KEY, _repeated),
    Recipe("no event_id", Malformed.MISSING_FIELD, _without("event_id")),
    Recipe("no price", Malformed.MISSING_FIELD, _without("price_micros")),
    Recipe("no user_id", Malformed.MISSING_FIELD, _without("user_id")),
    Recipe(
        "click without impression_id", Malformed.MISSING_FIELD, _with(event_type="click"), other_topic=True
    ),
    Recipe("price as text", Malformed.WRONG_TYPE, _as_text("price_micros")),
    Recipe("price with a fraction", Malformed.WRONG_TYPE, _with(price_micros=1.5)),
    Recipe("price with an exponent", Malformed.WRONG_TYPE, _literal("price_micros", "1e3")),
    Recipe("price of 1e400", Malformed.WRONG_TYPE, _literal("price_micros", "1e400")),
    Recipe("price is true", Malformed.WRONG_TYPE, _with(price_micros=True)),
    Recipe("ip is null", Malformed.WRONG_TYPE, _with(ip=None)),
    Recipe("is_test is a number", Malformed.WRONG_TYPE, _with(is_test=0)),
    Recipe("price too high", Malformed.OUT_OF_RANGE, _with(price_micros=wire.PRICE_MICROS_MAX + 1)),
    Recipe("price below zero", Malformed.OUT_OF_RANGE, _with(price_micros=-1)),
    Recipe("publisher over 32 bits", Malformed.OUT_OF_RANGE, _with(publisher_id=wire.UINT32_MAX + 1)),
    Recipe("publisher over 64 bits", Malformed.OUT_OF_RANGE, _with(publisher_id=10**30)),
    Recipe("empty event_id", Malformed.OUT_OF_RANGE, _with(event_id="")),
    Recipe(
        "event_id of 65 bytes", Malformed.OUT_OF_RANGE, _with(event_id="e" * (wire.EVENT_ID_BYTES_MAX + 1))
    ),
    Recipe("user_id of 65 bytes", Malformed.OUT_OF_RANGE, _with(user_id="u" * (wire.USER_ID_BYTES_MAX + 1))),
    Recipe("lone surrogate", Malformed.OUT_OF_RANGE, lambda value, _: value.replace(b"www.", b"www.\\ud800")),
    Recipe("currency of four letters", Malformed.OUT_OF_RANGE, _with(currency="EURO")),
    Recipe("currency in small letters", Malformed.OUT_OF_RANGE, _with(currency="eur")),
    Recipe("country of three letters", Malformed.OUT_OF_RANGE, _with(country="DEU")),
    Recipe("no address", Malformed.OUT_OF_RANGE, _with(ip="256.1.2.3")),
    Recipe("unknown event_type", Malformed.OUT_OF_RANGE, _with(event_type="view")),
    Recipe(
        "seconds for milliseconds", Malformed.OUT_OF_RANGE, lambda v, t: _with(event_time=t // 1000)(v, t)
    ),
    Recipe("time as a phrase", Malformed.OUT_OF_RANGE, _with(event_time="yesterday")),
    Recipe("impression among clicks", Malformed.WRONG_TOPIC, lambda value, _: value, other_topic=True),
    Recipe("click among impressions", Malformed.WRONG_TOPIC, _as_click),
    Recipe(
        "from the future",
        Malformed.FROM_THE_FUTURE,
        lambda v, t: _with(event_time=t + wire.FUTURE_MS_MAX + 1)(v, t),
    ),
)
"""One or more for every reason that an event in the log can have (REJECTED_EARLIER comes from a release, not a producer)."""


def _escaped(value: bytes, _: int) -> bytes:
    """Write every letter of the page's URL and of the id as an escape."""
    event = json.loads(value)
    text = json.dumps({**event, "page_url": "\ue000", "event_id": "\ue001"}, separators=(",", ":"))
    for mark, name in (("\\ue000", "page_url"), ("\\ue001", "event_id")):
        text = text.replace(mark, "".join(f"\\u{ord(ch):04x}" for ch in event[name]))
    return text.encode()


def _not_ascii(value: bytes, _: int) -> bytes:
    event = json.loads(value)
    event["page_url"] += "?q=caf\u00e9&emoji=\U0001f6d2"
    return json.dumps(event, ensure_ascii=False).encode()


def _rfc3339(offset_hours: int, colon: str = ":") -> Callable[[bytes, int], bytes]:
    zone = timezone(timedelta(hours=offset_hours)) if offset_hours else UTC

    def make(value: bytes, _: int) -> bytes:
        event = json.loads(value)
        seconds, ms = divmod(event["event_time"], 1000)
        text = datetime.fromtimestamp(seconds, zone).strftime("%Y-%m-%dT%H:%M:%S") + f".{ms:03d}"
        event["event_time"] = text + ("Z" if zone is UTC else f"{offset_hours:+03d}{colon}00")
        return _dump(event)

    return make


def _unknown_fields(value: bytes, _: int) -> bytes:
    return _dump({"sdk": {"name": "pixel", "v": [1, 2.5, None, {"a": True}]}, **json.loads(value), "": 1e9})


_OPTIONAL = ("placement_id", "currency", "country", "width", "height", "is_prefetch", "is_test")


def _nulls(value: bytes, _: int) -> bytes:
    return _dump({**dict.fromkeys(_OPTIONAL), **json.loads(value)})


def _small_country(value: bytes, _: int) -> bytes:
    event = json.loads(value)
    return _dump({**event, "country": event.get("country", "").lower()})


ODD_RECIPES = (
    Recipe(
        "pretty-printed", Malformed.OK, lambda value, _: json.dumps(json.loads(value), indent="\t").encode()
    ),
    Recipe("space around", Malformed.OK, lambda value, _: b"\r\n " + value + b" \n"),
    Recipe("reversed", Malformed.OK, lambda v, _: _dump(dict(reversed(json.loads(v).items())))),
    Recipe("escaped", Malformed.OK, _escaped),
    Recipe("escaped slashes", Malformed.OK, lambda value, _: value.replace(b"/", b"\\/")),
    Recipe("not ASCII", Malformed.OK, _not_ascii),
    Recipe("RFC 3339, UTC", Malformed.OK, _rfc3339(0)),
    Recipe("RFC 3339, Tokyo", Malformed.OK, _rfc3339(9)),
    Recipe("RFC 3339, Tokyo, no colon", Malformed.OK, _rfc3339(9, colon="")),
    Recipe("unknown fields", Malformed.OK, _unknown_fields),
    Recipe("lone surrogate in an unknown field", Malformed.OK, _with(note="\ud800")),
    Recipe("1e400 in an unknown field", Malformed.OK, _literal("note", "[1e400]")),
    Recipe("null for absent fields", Malformed.OK, _nulls),
    Recipe("country in small letters", Malformed.OK, _small_country),
)

RECIPES = (*MALFORMED_RECIPES, *ODD_RECIPES)
"""A row's `recipe` is 1 + the index in this."""
