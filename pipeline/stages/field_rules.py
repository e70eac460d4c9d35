"""What the contract allows in each field, in words and as a test of one value: for explaining, not for deciding."""

from collections.abc import Callable, Mapping
from ipaddress import ip_address
from typing import Any, NamedTuple

from adledger.pipeline.stages.rfc3339 import parse_ms
from adledger.schemas import wire


class FieldRule(NamedTuple):
    """The contract of a field: its JSON types, what it allows in words, and whether a value is in range."""

    types: tuple[type, ...]
    allowed: str
    fits: Callable[[Any], bool]
    required: bool = True


def is_unicode(text: str) -> bool:
    """Whether a text has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _integer(most: int, *, required: bool = True) -> FieldRule:
    return FieldRule((int,), f"an integer from 0 to {most:,}", lambda value: 0 <= value <= most, required)


def _text(least: int, most: int) -> FieldRule:
    return FieldRule(
        (str,),
        f"a string of {least} to {most:,} bytes",
        lambda value: is_unicode(value) and least <= len(value.encode()) <= most,
    )


def _letters(count: int, allowed: str, *, any_case: bool) -> FieldRule:
    def fits(value: str) -> bool:
        letters = value.isascii() and value.isalpha() and (any_case or value.isupper())
        return (any_case and not value) or (len(value) == count and letters)

    return FieldRule((str,), allowed, fits, required=False)


def _is_time(value: int | str) -> bool:
    ms = parse_ms(value) if isinstance(value, str) else value
    return ms is not None and wire.EVENT_TIME_MS_MIN <= ms < wire.EVENT_TIME_MS_MAX


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return "%" not in text


_BOOLEAN = FieldRule((bool,), "true or false", lambda _: True, required=False)
_TRUNCATED = FieldRule((str,), "a string of whole Unicode characters", is_unicode)

FIELDS: Mapping[str, FieldRule] = {
    "event_type": FieldRule(
        (str,), '"impression" or "click"', lambda value: value in {"impression", "click"}
    ),
    "event_id": _text(1, wire.EVENT_ID_BYTES_MAX),
    "event_time": FieldRule(
        (int, str), "milliseconds since 1970 or RFC 3339 text, from 2000 to 2099", _is_time
    ),
    **{
        name: _integer(wire.UINT32_MAX)
        for name in ("publisher_id", "site_id", "campaign_id", "creative_id", "advertiser_id")
    },
    "placement_id": _integer(wire.UINT32_MAX, required=False),
    "user_id": _text(0, wire.USER_ID_BYTES_MAX),
    "ip": FieldRule((str,), "an IPv4 or IPv6 address", _is_address),
    "user_agent": _TRUNCATED,
    "page_url": _TRUNCATED,
    "price_micros": _integer(wire.PRICE_MICROS_MAX),
    "impression_id": _text(1, wire.IMPRESSION_ID_BYTES_MAX),
    "currency": _letters(3, "3 capital letters A-Z", any_case=False),
    "country": _letters(2, "2 letters A-Z, or empty", any_case=True),
    "width": _integer(wire.UINT16_MAX, required=False),
    "height": _integer(wire.UINT16_MAX, required=False),
    "is_prefetch": _BOOLEAN,
    "is_test": _BOOLEAN,
}
"""The contract's fields, in the order in which they are checked. impression_id is one of clicks only."""
