"""The JSON Schema of an event on the wire, made from the contract: for producers, before they send anything.

`python -m adledger.pipeline.stages.event_schema` prints schemas/event.schema.json. It accepts every event that the decoder
accepts. It also accepts a few that the decoder refuses, since a schema can't say everything: `BEYOND` lists them, and
`adledger check` finds them.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from adledger.pipeline.stages.field_rules import FIELDS
from adledger.schemas import wire

BEYOND = (
    "lengths are bytes of UTF-8 here, and characters in JSON Schema",
    "1.0 and 1e3 are integers in JSON Schema, but not here",
    "whether a day exists (2026-02-30, a leap second), and the very first and last day of 2000 to 2099, in text",
    "half of a surrogate pair in a known field",
    "what is about the text, not its value: its size, its encoding, its depth, repeated keys",
    "what is about the record: its topic, and an event_time after its log time",
)
"""What the contract refuses and this schema accepts."""

_OCTET = "(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"({_OCTET}\.){{3}}{_OCTET}"
_GROUP = "[0-9A-Fa-f]{1,4}"
_TAIL = rf"({_GROUP}:{_GROUP}|{_IPV4})"

_TIME_TEXT = (
    "^(1999|20[0-9]{2}|2100)-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])[Tt ]([01][0-9]|2[0-3]):[0-5][0-9]:([0-5][0-9]|60)"
    r"(\.[0-9]+)?([Zz]|[+-]([01][0-9]|2[0-3]):?[0-5][0-9])$"
)
"""With the years beside 2000 to 2099, which an offset may reach from."""


def event_schema() -> dict[str, Any]:
    """Return the schema, as JSON."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "adledger event",
        "description": "One impression or click, the value of one record. docs/events.md has the whole contract.",
        "$comment": f"Not said here, and refused by adledger nevertheless: {'; '.join(BEYOND)}.",
        "type": "object",
        "required": [name for name, rule in FIELDS.items() if rule.required and name != "impression_id"],
        "properties": {name: _described(name) for name in FIELDS},
        "if": {"properties": {"event_type": {"const": "click"}}},
        "then": {
            "required": ["impression_id"],
            "properties": {"impression_id": _text(1, wire.IMPRESSION_ID_BYTES_MAX)},
        },
    }


def _described(name: str) -> dict[str, Any]:
    """Return a field's schema: what it may be, and the contract's words for it."""
    rule = FIELDS[name]
    if name == "impression_id":
        return {"description": f"on clicks: {rule.allowed}; ignored on impressions"}
    values = _VALUES[name]
    if rule.required:
        return {"description": rule.allowed, **values}
    return {"description": f"{rule.allowed}; null counts as absent", "anyOf": [values, {"type": "null"}]}


def _pattern(text: str) -> dict[str, Any]:
    """Return the schema of strings that a pattern matches; in Python `$` also matches before a line feed at the end."""
    return {"type": "string", "pattern": text, "not": {"pattern": "\n"}}


def _integer(most: int) -> dict[str, Any]:
    return {"type": "integer", "minimum": 0, "maximum": most}


def _text(least: int, most: int) -> dict[str, Any]:
    return {"type": "string", "minLength": least, "maxLength": most}


def _ipv6() -> str:
    """Return RFC 3986's IPv6address as a pattern: eight groups, or fewer around one `::`."""
    whole = rf"({_GROUP}:){{6}}{_TAIL}"
    ends_long = [rf"(({_GROUP}:){{0,{4 - n}}}{_GROUP})?::({_GROUP}:){{{n}}}{_TAIL}" for n in range(5)]
    ends_short = [rf"(({_GROUP}:){{0,5}}{_GROUP})?::{_GROUP}", rf"(({_GROUP}:){{0,6}}{_GROUP})?::"]
    return "|".join([whole, rf"::({_GROUP}:){{5}}{_TAIL}", *ends_long, *ends_short])


_BOOLEAN = {"type": "boolean"}

_VALUES: Mapping[str, dict[str, Any]] = {
    "event_type": {"enum": ["impression", "click"]},
    "event_id": _text(1, wire.EVENT_ID_BYTES_MAX),
    "event_time": {
        "anyOf": [
            {
                "type": "integer",
                "minimum": wire.EVENT_TIME_MS_MIN,
                "exclusiveMaximum": wire.EVENT_TIME_MS_MAX,
            },
            _pattern(_TIME_TEXT),
        ]
    },
    **{
        name: _integer(wire.UINT32_MAX)
        for name in ("publisher_id", "site_id", "campaign_id", "creative_id", "advertiser_id", "placement_id")
    },
    "user_id": _text(0, wire.USER_ID_BYTES_MAX),
    "ip": _pattern(f"^({_IPV4}|{_ipv6()})$"),
    "user_agent": {"type": "string"},
    "page_url": {"type": "string"},
    "price_micros": _integer(wire.PRICE_MICROS_MAX),
    "currency": _pattern("^[A-Z]{3}$"),
    "country": _pattern("^([A-Za-z]{2})?$"),
    "width": _integer(wire.UINT16_MAX),
    "height": _integer(wire.UINT16_MAX),
    "is_prefetch": _BOOLEAN,
    "is_test": _BOOLEAN,
}
"""What each field may be, if it is there and not null."""


if __name__ == "__main__":
    print(orjson.dumps(event_schema(), option=orjson.OPT_INDENT_2).decode())  # noqa: T201
