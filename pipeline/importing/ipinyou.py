"""iPinYou's real-time bidding logs, seasons 2 and 3: impression and click logs, 24 columns separated by tabs.

The columns are those of the data set's description (Zhang et al., arXiv 1407.7073, table 1): 1 bid id, 2 time
(yyyyMMddHHmmssSSS, China's zone), 3 log type (1 impression, 2 click, 3 conversion), 4 user, 5 user agent, 6 address
with its last byte hidden, 7 region, 8 city, 9 exchange, 10 domain, 11 URL, 12 anonymous URL, 13 slot, 14 width,
15 height, 16 visibility, 17 format, 18 floor price, 19 creative, 20 bid, 21 price paid, 22 landing page, 23 advertiser,
24 tags. `null`, `Na` and nothing are an absent value.

What the wire asks for and the log does not have is filled so:
- event_id: the prefix and the bid id; a click's has `-c` behind it, and its impression is the one of the same bid. A second
  click of a bid is so a duplicate;
- publisher, site: 32 bits of xxHash64 of the domain; placement and creative: of the slot's and the creative's text;
- campaign: the advertiser, of whom the log names no campaigns;
- the address's hidden byte is 1;
- price: what was paid, in fen (hundredths of a yuan) a thousand impressions; a click costs nothing on top of it;
- currency CNY, country CN;
- where a value is absent: an id or a price is 0, user, user agent and page are empty, width and height are left out.
The wire has no place for region, city, exchange, anonymous URL, visibility, slot format, floor price, bid, landing page and
tags. Conversions are no ad events: their lines are passed over.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

import orjson
import xxhash

from adledger.pipeline.importing.records import SHOWN_CHARS_MAX, ParsedRecord, unreadable
from adledger.schemas.wire import EventType

ID_PREFIX = "ipy"
COLUMNS = 24
MICROS_PER_FEN = 10_000
HIDDEN_BYTE = "1"
CURRENCY, COUNTRY = "CNY", "CN"

_IMPRESSION, _CLICK, _CONVERSION = "1", "2", "3"
_ABSENT = {"", "null", "Null", "NULL", "Na", "NA"}
_CHINA = timezone(timedelta(hours=8))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS_MAX = 10
_SIZE = {"width": 13, "height": 14}


class IPinYou:
    """Reads lines of an impression or a click log, or of both."""

    def __init__(self, id_prefix: str = ID_PREFIX) -> None:
        self._id_prefix = id_prefix

    def parse(self, lines: Sequence[bytes], first_line: int) -> list[ParsedRecord]:
        """Return a record for each impression and click."""
        records: list[ParsedRecord] = []
        for number, line in enumerate(lines, first_line):
            if not line or line.isspace():
                continue
            try:
                record = self._record(line.decode().split("\t"))
            except ValueError as error:  # not UTF-8, other columns, a number that is none
                record = unreadable(line, number, error)
            if record is not None:
                records.append(record)
        return records

    def _record(self, fields: list[str]) -> ParsedRecord | None:
        if len(fields) != COLUMNS:
            raise ValueError(f"{len(fields)} columns, not {COLUMNS}")
        bid, moment, log_type, user, agent, ip = fields[:6]
        if log_type == _CONVERSION:
            return None
        if log_type not in {_IMPRESSION, _CLICK} or bid in _ABSENT:
            raise ValueError("neither an impression nor a click with a bid id")
        clicked = log_type == _CLICK
        event_time = _ms(moment)
        user_id = "" if user in _ABSENT else user
        event: dict[str, Any] = {
            "event_type": "click" if clicked else "impression",
            "event_id": f"{self._id_prefix}-{bid}{'-c' if clicked else ''}",
            "event_time": event_time,
            "publisher_id": _hashed(fields[9]),
            "site_id": _hashed(fields[9]),
            "campaign_id": _number(fields[22]),
            "creative_id": _hashed(fields[18]),
            "advertiser_id": _number(fields[22]),
            "placement_id": _hashed(fields[12]),
            "user_id": user_id,
            "ip": f"{ip[:-1]}{HIDDEN_BYTE}" if ip.endswith(".*") else ip,
            "user_agent": "" if agent in _ABSENT else agent,
            "page_url": "" if fields[10] in _ABSENT else fields[10],
            "price_micros": 0 if clicked else _number(fields[20]) * MICROS_PER_FEN,
            "currency": CURRENCY,
            "country": COUNTRY,
        }
        event |= {name: _number(fields[at]) for name, at in _SIZE.items() if fields[at] not in _ABSENT}
        if clicked:
            event["impression_id"] = f"{self._id_prefix}-{bid}"
        key = (user_id or event["ip"]).encode()
        return ParsedRecord(
            EventType.CLICK if clicked else EventType.IMPRESSION, key, event_time, orjson.dumps(event)
        )


def _ms(text: str) -> int:
    """Return `20130218001203638` as ms since the epoch. Raises ValueError."""
    if len(text) != 17 or not text.isdigit():
        raise ValueError(f"{text[:SHOWN_CHARS_MAX]!r} is not a time (yyyyMMddHHmmssSSS)")
    return _second_ms(text[:14]) + int(text[14:])


@lru_cache(maxsize=4_096)
def _second_ms(text: str) -> int:
    try:
        moment = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=_CHINA)
    except ValueError:
        raise ValueError(f"{text!r} is not a time (yyyyMMddHHmmssSSS)") from None
    return (moment - _EPOCH) // timedelta(milliseconds=1)


@lru_cache(maxsize=65_536)
def _hashed(text: str) -> int:
    return 0 if text in _ABSENT else xxhash.xxh64_intdigest(text.encode()) & 0xFFFF_FFFF


def _number(text: str) -> int:
    if text in _ABSENT:
        return 0
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise ValueError(f"{text[:SHOWN_CHARS_MAX]!r} is not a whole number")
    return int(text)
