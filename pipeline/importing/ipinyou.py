"""iPinYou's real-time bidding logs, seasons 2 and 3: impression and click logs, 24 columns separated by tabs.

The columns are those of the data set's description (Zhang et al., arXiv 1407.7073, table 1): 1 bid id, 2 time
(yyyyMMddHHmmssSSS, China's zone), 3 log type (1 impression, 2 click, 3 conversion), 4 user, 5 user agent, 6 address
with its last byte hidden, 7 region, 8 city, 9 exchange, 10 domain, 11 URL, 12 anonymous URL, 13 slot, 14 width,
15 height, 16 visibility, 17 format, 18 floor price, 19 creative, 20 bid, 21 price paid, 22 landing page, 23 advertiser,
24 tags. `null`, `Na` and an empty field mean an absent value.

Fields of the wire format that the log lacks are filled like this:
- event_id: the prefix and the bid id; a click's ends with `-c`, and its impression is the one of the same bid, so a second
  click of a bid is a duplicate;
- publisher, site: 32 bits of xxHash64 of the domain; placement and creative: of the slot's and the creative's text;
- campaign: the advertiser, because the log names no campaigns;
- the address's hidden byte is 1;
- price: the price paid, in fen (hundredths of a yuan) per thousand impressions; a click costs nothing extra;
- currency CNY, country CN;
- absent values: an id or a price is 0; user, user agent and page are empty; width and height are omitted.
The wire format has no field for region, city, exchange, anonymous URL, visibility, slot format, floor price, bid, landing
page and tags. Conversions are not ad events: their lines are skipped.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from functools import lru_cache
from typing import Any

import orjson
import xxhash

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.records import FieldError, ParsedRecord, unreadable, whole_number
from adledger.schemas.wire import EventType

ID_PREFIX = "ipy"
COLUMNS = (
    "bidid", "timestamp", "logtype", "ipinyouid", "useragent", "ip", "region", "city", "adexchange", "domain", "url", "urlid",
    "slotid", "slotwidth", "slotheight", "slotvisibility", "slotformat", "slotprice", "creative", "bidprice", "payprice",
    "keypage", "advertiser", "usertag",
)  # fmt: skip
"""The names in the headers of files that have one."""
SEASON_1_COLUMNS = 22
"""Season 1's logs lack the advertiser and the tags. No public description gives their columns, so they are refused."""
MICROS_PER_FEN = 10_000
HIDDEN_BYTE = "1"
CURRENCY, COUNTRY = "CNY", "CN"

_IMPRESSION, _CLICK, _CONVERSION = "1", "2", "3"
_ABSENT = {"", "null", "Null", "NULL", "Na", "NA"}
_CHINA = timezone(timedelta(hours=8))
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TIME = "yyyyMMddHHmmssSSS, like 20130606000104308"
_SIZE = {"width": 13, "height": 14}


class IPinYou:
    """Reads lines of an impression log, a click log, or both; a header is skipped."""

    def __init__(self, id_prefix: str = ID_PREFIX) -> None:
        self._id_prefix = id_prefix
        self._begun = False

    def parse(self, lines: Sequence[bytes], first_line: int) -> list[ParsedRecord]:
        """Return a record for each impression and click. Raises UsageError for a header of other columns."""
        records: list[ParsedRecord] = []
        for number, line in enumerate(lines, first_line):
            if not line or line.isspace():
                continue
            try:
                fields = _fields(line)
                if not self._begun:
                    self._begun = True
                    if _is_header(fields):
                        continue
                record = self._record(fields, number)
            except ValueError as error:  # not UTF-8, other columns, an invalid number
                record = unreadable(line, number, error)
            if record is not None:
                records.append(record)
        return records

    def _record(self, fields: list[str], number: int) -> ParsedRecord | None:
        if len(fields) != len(COLUMNS):
            season = ", season 1's: it names no advertiser" if len(fields) == SEASON_1_COLUMNS else ""
            raise ValueError(f"{len(fields)} columns, not {len(COLUMNS)} with tabs between them{season}")
        bid, moment, log_type, user, agent, ip = fields[:6]
        if log_type == _CONVERSION:
            return None
        if log_type not in {_IMPRESSION, _CLICK}:
            raise FieldError("logtype (column 3)", log_type, "1 (impression), 2 (click) or 3 (conversion)")
        if bid in _ABSENT:
            raise FieldError("bidid (column 1)", bid, "a bid id")
        clicked = log_type == _CLICK
        event_time = _ms(moment)
        user_id = "" if user in _ABSENT else user
        event: dict[str, Any] = {
            "event_type": "click" if clicked else "impression",
            "event_id": f"{self._id_prefix}-{bid}{'-c' if clicked else ''}",
            "event_time": event_time,
            "publisher_id": _hashed(fields[9]),
            "site_id": _hashed(fields[9]),
            "campaign_id": _number(fields, 22),
            "creative_id": _hashed(fields[18]),
            "advertiser_id": _number(fields, 22),
            "placement_id": _hashed(fields[12]),
            "user_id": user_id,
            "ip": f"{ip[:-1]}{HIDDEN_BYTE}" if ip.endswith(".*") else ip,
            "user_agent": "" if agent in _ABSENT else agent,
            "page_url": "" if fields[10] in _ABSENT else fields[10],
            "price_micros": 0 if clicked else _number(fields, 20) * MICROS_PER_FEN,
            "currency": CURRENCY,
            "country": COUNTRY,
        }
        event |= {name: _number(fields, at) for name, at in _SIZE.items() if fields[at] not in _ABSENT}
        if clicked:
            event["impression_id"] = f"{self._id_prefix}-{bid}"
        key = (user_id or event["ip"]).encode()
        event_type = EventType.CLICK if clicked else EventType.IMPRESSION
        return ParsedRecord(event_type, key, event_time, orjson.dumps(event), line=number)


def _fields(line: bytes) -> list[str]:
    """Return a line's columns. If the first is quoted, all are, and the quotes are removed."""
    fields = line.decode().split("\t")
    if not line.startswith(b'"'):
        return fields
    return [f[1:-1].replace('""', '"') if len(f) > 1 and f[0] == f[-1] == '"' else f for f in fields]


def _is_header(fields: list[str]) -> bool:
    """Whether a first line is a header. Raises UsageError if its columns are others, or in another order."""
    names = [field.strip().lower() for field in fields]
    if not {"bidid", "timestamp"} <= set(names):
        return False
    if names != list(COLUMNS):
        missing = [name for name in COLUMNS if name not in names]
        why = f"lacks {', '.join(missing)}" if missing else "has other columns, or another order"
        raise UsageError(
            f"this is not an iPinYou log of season 2 or 3: its header {why}",
            remedy=f"Import the original logs, of {len(COLUMNS)} columns: {', '.join(COLUMNS)}.",
        )
    return True


def _ms(text: str) -> int:
    """Return `20130218001203638` as ms since the epoch. Raises ValueError."""
    if len(text) != 17 or not (text.isascii() and text.isdigit()):
        raise FieldError("timestamp (column 2)", text, _TIME)
    return _second_ms(text[:14]) + int(text[14:])


@lru_cache(maxsize=4_096)
def _second_ms(text: str) -> int:
    try:
        moment = datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=_CHINA)
    except ValueError:
        raise FieldError("timestamp (column 2)", text, _TIME) from None
    return (moment - _EPOCH) // timedelta(milliseconds=1)


@lru_cache(maxsize=65_536)
def _hashed(text: str) -> int:
    return 0 if text in _ABSENT else xxhash.xxh64_intdigest(text.encode()) & 0xFFFF_FFFF


def _number(fields: list[str], at: int) -> int:
    text = fields[at]
    return 0 if text in _ABSENT else whole_number(f"{COLUMNS[at]} (column {at + 1})", text)
