r"""The slow path: decodes one record with orjson and plain Python. It defines the contract; the fast path must agree.

What docs/events.md leaves open is decided here:

- The reason is the first of `Malformed` that applies to the record as a whole, in the order of its numbers.
- Valid JSON is RFC 8259 by its grammar: UTF-8 without a byte order mark, no NaN. A lone surrogate (`"\ud800"`) and a number
  that no double holds (1e400) are valid, and ignored in unknown fields; a known field with one is out of range or has a
  wrong type.
- Depth counts the objects and arrays that are open at one place, including the record's own.
- A key is repeated where the record's object has two members whose names are equal after unescaping. Objects
  inside unknown fields are not inspected: they are ignored as long as they are valid JSON.
- `-0` is the integer 0. An integer of any size has the right type and is at worst out of range; 1.0 and 1e3
  have the wrong type. An optional field that is `null` counts as absent; for a required one it is a wrong type.
- `event_time` as a string is RFC 3339 as in `adledger.pipeline.stages.rfc3339`; any other string is out of range.
- `currency` is three capitals A-Z, `country` two letters A-Z or a-z, stored as capitals; they are not checked against
  ISO's lists.
- A longer `user_agent` or `page_url` is truncated after the last character (code point) that fits, and flagged. What is
  truncated is hashed and stored; the whole string must be valid.
- `ip` is what Python's `ipaddress` parses (RFC 4291 text, IPv4 without leading zeros) without a zone id;
  `::ffff:1.2.3.4` and `1.2.3.4` are the same address and stored alike.
- `impression_id` is a field of clicks; on an impression it is unknown, and ignored.
- Lengths are of the unescaped UTF-8 bytes. The hash of an empty text is that of no bytes (not 0).
- A record is `MISROUTED` where its key is null, is not the bytes of `user_id` (of `ip` as sent where `user_id`
  is empty), or does not belong to the lane by murmur2.
"""

from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Any, NamedTuple

from adledger.pipeline.stages.json_text import Members, parse
from adledger.pipeline.stages.plain_hashes import partition_of, xxh64
from adledger.pipeline.stages.record_object import object_of
from adledger.pipeline.stages.rfc3339 import parse_ms
from adledger.schemas import wire
from adledger.schemas.wire import EventType, Flag, Malformed

_INTEGERS = {
    "publisher_id": wire.UINT32_MAX,
    "site_id": wire.UINT32_MAX,
    "campaign_id": wire.UINT32_MAX,
    "creative_id": wire.UINT32_MAX,
    "advertiser_id": wire.UINT32_MAX,
    "placement_id": wire.UINT32_MAX,
    "price_micros": wire.PRICE_MICROS_MAX,
    "width": wire.UINT16_MAX,
    "height": wire.UINT16_MAX,
}
"""Integer fields and their largest value; the smallest is 0."""

_TYPES: dict[str, type] = {
    "event_type": str,
    "event_id": str,
    "user_id": str,
    "ip": str,
    "user_agent": str,
    "page_url": str,
    "currency": str,
    "country": str,
    "is_prefetch": bool,
    "is_test": bool,
    **dict.fromkeys(_INTEGERS, int),
}
_OPTIONAL = {"placement_id", "currency", "width", "height", "country", "is_prefetch", "is_test"}
_REQUIRED = {"event_time", *_TYPES} - _OPTIONAL

_EVENT_TYPES = {"impression": EventType.IMPRESSION, "click": EventType.CLICK}
_CAPITALS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_INT64_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class DecodeContext:
    """What decode needs besides the records.

    `kinds` are Topology.kinds by topic index: 1 impressions, 2 clicks, 0 both.
    `default_currency` is the adledger.schemas.wire.currency_code of events that name none.
    """

    lane: int
    partitions: int
    kinds: tuple[int, ...]
    default_currency: int


class PlainEvent(NamedTuple):
    """One decoded event: the fields of EventColumns, in their order, and the texts behind two of its hashes."""

    event_type_code: int
    event_time: int
    publisher_id: int
    site_id: int
    campaign_id: int
    creative_id: int
    advertiser_id: int
    placement_id: int
    id_hash: int
    user_hash: int
    ua_hash: int
    page_hash: int
    impression_hash: int
    ip_hi: int
    ip_lo: int
    price_micros: int
    currency_code: int
    country_code: int
    width_px: int
    height_px: int
    flags: int
    user_agent: bytes
    page_url: bytes


def decode_plain(
    value: bytes | None, key: bytes | None, topic_kind: int, log_time: int, context: DecodeContext
) -> PlainEvent | Malformed:
    """Decode one record, or return why it is malformed. `topic_kind` is as in `DecodeContext.kinds`, log_time in ms."""
    event = object_of(value)
    if isinstance(event, Malformed):
        return event
    assert value is not None
    for name in _OPTIONAL:
        if name in event and event[name] is None:
            del event[name]
    reason = _check_types(value, event)
    return reason or _decode_fields(event, key, topic_kind, log_time, context)


def _check_types(value: bytes, event: dict[str, Any]) -> Malformed:
    """Check that the required fields are present and all known ones have their types."""
    is_click = event.get("event_type") == "click"
    if not event.keys() >= _REQUIRED or (is_click and "impression_id" not in event):
        return Malformed.MISSING_FIELD
    too_big = False
    for name, held in event.items():
        want = _TYPES.get(name)
        if want is None:
            if name == "event_time":
                want = str if type(held) is str else int
            elif name == "impression_id" and is_click:
                want = str
            else:
                continue
        if type(held) is not want:
            if want is not int or not _is_big_integer(value, name, held):
                return Malformed.WRONG_TYPE
            too_big = True
    return Malformed.OUT_OF_RANGE if too_big else Malformed.OK


def _is_big_integer(value: bytes, name: str, held: object) -> bool:
    """Whether a number that orjson read as a float was written as an integer, too big for 64 bits."""
    if type(held) is not float or abs(held) < _INT64_MAX:
        return False
    tree = parse(value)
    assert isinstance(tree, Members)
    return any(member == name and type(number) is int for member, number in tree)


def _decode_fields(
    event: dict[str, Any], key: bytes | None, topic_kind: int, log_time: int, context: DecodeContext
) -> PlainEvent | Malformed:
    """Decode an object that has all fields, with their types."""
    event_type = _EVENT_TYPES.get(event["event_type"])
    event_time = event["event_time"]
    if type(event_time) is str:
        event_time = parse_ms(event_time)
    address = _parse_ip(event["ip"])
    currency, country = event.get("currency"), event.get("country", "")
    is_click = event_type == EventType.CLICK
    texts = _texts(event, is_click=is_click)
    if (
        event_type is None
        or texts is None
        or event_time is None
        or address is None
        or not wire.EVENT_TIME_MS_MIN <= event_time < wire.EVENT_TIME_MS_MAX
        or not _are_in_range(event)
        or not (currency is None or _is_capitals(currency, 3))
        or not (country == "" or _is_capitals(_capitals(country), 2))
    ):
        return Malformed.OUT_OF_RANGE
    if topic_kind not in {0, event_type}:
        return Malformed.WRONG_TOPIC
    if event_time > log_time + wire.FUTURE_MS_MAX:
        return Malformed.FROM_THE_FUTURE
    user_agent = truncated(texts.user_agent, wire.USER_AGENT_BYTES_MAX)
    page_url = truncated(texts.page_url, wire.PAGE_URL_BYTES_MAX)
    return PlainEvent(
        event_type_code=int(event_type),
        event_time=event_time,
        publisher_id=event["publisher_id"],
        site_id=event["site_id"],
        campaign_id=event["campaign_id"],
        creative_id=event["creative_id"],
        advertiser_id=event["advertiser_id"],
        placement_id=event.get("placement_id", 0),
        id_hash=xxh64(texts.event_id),
        user_hash=xxh64(texts.user_id),
        ua_hash=xxh64(user_agent),
        page_hash=xxh64(page_url),
        impression_hash=xxh64(texts.impression_id) if is_click else 0,
        ip_hi=address >> 64,
        ip_lo=address & (2**64 - 1),
        price_micros=event["price_micros"],
        currency_code=context.default_currency if currency is None else wire.currency_code(currency),
        country_code=wire.country_code(_capitals(country)),
        width_px=event.get("width", 0),
        height_px=event.get("height", 0),
        flags=_flags(event, texts, key, context),
        user_agent=user_agent,
        page_url=page_url,
    )


class _Texts(NamedTuple):
    """An event's texts in UTF-8, none truncated yet."""

    event_id: bytes
    user_id: bytes
    user_agent: bytes
    page_url: bytes
    impression_id: bytes


def _texts(event: dict[str, Any], *, is_click: bool) -> _Texts | None:
    """Return an event's texts, or None where an id is too long or empty, or a text has half of a surrogate pair."""
    try:
        texts = _Texts(
            event_id=event["event_id"].encode(),
            user_id=event["user_id"].encode(),
            user_agent=event["user_agent"].encode(),
            page_url=event["page_url"].encode(),
            impression_id=event["impression_id"].encode() if is_click else b"",
        )
    except UnicodeEncodeError:
        return None
    fit = (
        1 <= len(texts.event_id) <= wire.EVENT_ID_BYTES_MAX
        and len(texts.user_id) <= wire.USER_ID_BYTES_MAX
        and is_click <= len(texts.impression_id) <= wire.IMPRESSION_ID_BYTES_MAX
    )
    return texts if fit else None


def truncated(text: bytes, bytes_max: int) -> bytes:
    """Return the longest beginning of a UTF-8 text that has at most `bytes_max` bytes and ends with a character."""
    if len(text) <= bytes_max:
        return text
    while text[bytes_max] & 0xC0 == 0x80:  # a byte inside a character
        bytes_max -= 1
    return text[:bytes_max]


def _flags(event: dict[str, Any], texts: _Texts, key: bytes | None, context: DecodeContext) -> int:
    """Return the bits of `Flag`."""
    due = texts.user_id or event["ip"].encode()
    routed = key == due and partition_of(due, context.partitions) == context.lane
    return (
        ("width" in event) << Flag.HAS_WIDTH
        | ("height" in event) << Flag.HAS_HEIGHT
        | event.get("is_prefetch", False) << Flag.PREFETCH
        | event.get("is_test", False) << Flag.TEST
        | (not routed) << Flag.MISROUTED
        | (not texts.user_id) << Flag.KEYED_BY_IP
        | (len(texts.user_agent) > wire.USER_AGENT_BYTES_MAX) << Flag.UA_TRUNCATED
        | (len(texts.page_url) > wire.PAGE_URL_BYTES_MAX) << Flag.PAGE_TRUNCATED
    )


def _are_in_range(event: dict[str, Any]) -> bool:
    for name, most in _INTEGERS.items():
        value = event.get(name)
        if value is not None and not 0 <= value <= most:
            return False
    return True


def _capitals(text: str) -> str:
    """Return the text with its letters a-z as capitals; other text has none (`"ß".upper()` is "SS")."""
    return text.upper() if text.isascii() else text


def _is_capitals(text: str, length: int) -> bool:
    return len(text) == length and _CAPITALS.issuperset(text)


def _parse_ip(text: str) -> int | None:
    """Return the address as an IPv6 number (IPv4 as ::ffff:a.b.c.d), or None."""
    try:
        if ":" not in text:
            return 0xFFFF_0000_0000 | int(IPv4Address(text))
        return None if "%" in text else int(IPv6Address(text))
    except AddressValueError:
        return None
