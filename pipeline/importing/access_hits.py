"""A hit: what every line of a web server's log becomes, an impression keyed by its address."""

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from ipaddress import ip_address
from typing import NamedTuple, Protocol

import orjson

from adledger.pipeline.importing.records import FieldError, ParsedRecord, quoted
from adledger.pipeline.stages.rfc3339 import parse_ms
from adledger.schemas.wire import EventType

OUR_ID = 2
"""Publisher, site, campaign, creative and advertiser of an access log."""
PRICE_MICROS = 1_000_000
ABSENT = {"", "-"}
ADDRESS_CHARS_MAX = 45
"""The longest text of an IPv6 address."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECONDS = re.compile(r"(\d{9,10})(?:\.(\d+))?")
_WORDS = re.compile(r"[^\s\",;=|()<>\[\]]+")
_LOCAL = re.compile(r"([^:\s]+):(\d\d):(\d\d):(\d\d) ([+-]\d{4})")


class Hit(NamedTuple):
    """One request: the client's address, the time (ms), and the strings that the client sent; "" if absent."""

    client: str
    time_ms: int
    user_agent: str
    page_url: str


class HitReader(Protocol):
    """Reads one style of access log line."""

    def read(self, line: str) -> Hit | None:
        """Return a line's hit, or None for a line of the format that is not a hit (a header).

        Raises ValueError with the reason if the line can't be read.
        """


def hit_record(hit: Hit, event_id: str, number: int) -> ParsedRecord:
    """Return a hit as an impression."""
    event = {
        "event_type": "impression",
        "event_id": event_id,
        "event_time": hit.time_ms,
        "publisher_id": OUR_ID,
        "site_id": OUR_ID,
        "campaign_id": OUR_ID,
        "creative_id": OUR_ID,
        "advertiser_id": OUR_ID,
        "user_id": "",
        "ip": hit.client,
        "user_agent": hit.user_agent,
        "page_url": hit.page_url,
        "price_micros": PRICE_MICROS,
    }
    return ParsedRecord(
        EventType.IMPRESSION, hit.client.encode(), hit.time_ms, orjson.dumps(event), line=number
    )


def text(field: str) -> str:
    r"""Return a field's text; "" for `-`, which marks an absent value.

    The server's escapes are kept: the log does not name the code page of a `\xe4`.
    """
    return "" if field == "-" else field


@lru_cache(maxsize=65_536)
def is_address(field: str) -> bool:
    """Whether a field is an IPv4 or IPv6 address."""
    if len(field) > ADDRESS_CHARS_MAX:
        return False
    try:
        ip_address(field)
    except ValueError:
        return False
    return True


def addresses_in(field: str) -> list[str]:
    """Return the addresses among the words of a field, in order: of a list, or of a proxy's `for=`."""
    return [word for word in _WORDS.findall(field) if is_address(word)]


def client_address(name: str, field: str) -> str:
    """Return the client's address. Raises FieldError if the field is not one."""
    if is_address(field):
        return field
    if "," in field:
        raise FieldError(name, field, "one address (a list does not say which of them is the client)")
    if field in ABSENT:
        raise FieldError(name, field, "an address")
    if is_address(field.rpartition(":")[0].strip("[]")):
        raise FieldError(name, field, "an address without a port")
    raise FieldError(name, field, "an address (turn HostnameLookups off, and log %a)")


def local_ms(field: str) -> int:
    """Return `17/May/2015:10:05:03 +0000` as ms since the epoch. Raises FieldError."""
    found = _LOCAL.fullmatch(field)
    midnight = None if found is None else _midnight_ms(found[1], found[5])
    if found is not None and midnight is not None:
        hour, minute, second = int(found[2]), int(found[3]), int(found[4])
        if hour <= 23 and minute <= 59 and second <= 60:
            return midnight + ((hour * 60 + minute) * 60 + second) * 1000
    raise FieldError("the time", field, "like 17/May/2015:10:05:03 +0000")


@lru_cache(maxsize=64)
def _midnight_ms(day: str, zone: str) -> int | None:
    """Return the start of a day (`17/May/2015`) in a zone (`+0000`), or None if there is no such day."""
    try:
        midnight = datetime.strptime(f"{day} {zone}", "%d/%b/%Y %z")
    except ValueError:
        return None
    return (midnight - _EPOCH) // timedelta(milliseconds=1)


def iso_ms(field: str) -> int:
    """Return `2026-11-29T10:00:01+00:00`, with or without fractions, as ms since the epoch. Raises FieldError."""
    found = parse_ms(field)
    if found is None:
        raise FieldError("the time", field, "like 2026-11-29T10:00:01Z")
    return found


def seconds_ms(field: str) -> int:
    """Return seconds since the epoch, `1764400000.123`, as ms. Raises FieldError."""
    found = _SECONDS.fullmatch(field)
    if found is None:
        raise FieldError("the time", field, "seconds since the epoch, like 1764400000.123")
    return int(found[1]) * 1000 + int(((found[2] or "") + "000")[:3])


def any_time_ms(field: str) -> int:
    """Return a time in any notation of access logs. Raises FieldError."""
    for read in (local_ms, iso_ms, seconds_ms):
        try:
            return read(field)
        except FieldError:
            continue
    raise FieldError(
        "the time", field, "like 2026-11-29T10:00:01Z, 29/Nov/2026:10:00:01 +0000, or seconds since the epoch"
    )


def refuse_two_clients(client: str, others: dict[str, str], name: str) -> None:
    """Raise ValueError if another field names a different address as the client's."""
    for other, field in others.items():
        if any(address != client for address in addresses_in(field)):
            raise ValueError(
                f"{name} is {client} and {other} is {quoted(field)}: which one is the client is ambiguous "
                f"(choose one: --client-field {name}, or --client-field {other})"
            )
