"""The Open Bandit Dataset's CSV (st-tech/zr-obp): each row is an impression, a clicked one also gives a click."""

import csv
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.records import SHOWN_CHARS_MAX, ParsedRecord, unreadable
from adledger.schemas.wire import EventType

ID_PREFIX = "ob"
OUR_ID = 1
"""Publisher, site, campaign and advertiser of the shop."""
IMPRESSION_PRICE_MICROS = 1_000_000
CLICK_PRICE_MICROS = 500_000
CLICK_DELAY_MS = 2_000
USER_AGENT = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/78.0.3904.108 Safari/537.36"
)
"""An ordinary browser of the dataset's time; the dataset names none."""

_FEATURES = tuple(f"user_feature_{n}" for n in range(4))
COLUMNS = ("timestamp", "item_id", "position", "click", *_FEATURES)
"""What a header must have, in any order; other columns are passed over."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_DIGITS_MAX = 18
"""Whole numbers of more digits are no ids: they would not fit 64 bits."""
_UTF8_BOM = b"\xef\xbb\xbf"


class OpenBandit:
    """Reads the header, then rows; event ids count the rows from 1."""

    def __init__(self, id_prefix: str = ID_PREFIX) -> None:
        self._id_prefix = id_prefix
        self._places: tuple[int, ...] = ()
        self._width = 0
        self._rows = 0

    def parse(self, lines: Sequence[bytes], first_line: int) -> list[ParsedRecord]:
        """Return one record a row, two for a clicked one. Raises UsageError when the header lacks a column."""
        records: list[ParsedRecord] = []
        for number, line in enumerate(lines, first_line):
            if not line or line.isspace():
                continue
            if not self._places:
                self._read_header(line)
                continue
            self._rows += 1
            try:
                records += self._row(line)
            except (ValueError, csv.Error) as error:
                records.append(unreadable(line, number, error))
        return records

    def _read_header(self, line: bytes) -> None:
        names = line.removeprefix(_UTF8_BOM).decode(errors="replace").split(",")
        missing = [name for name in COLUMNS if name not in names]
        if missing:
            raise UsageError(
                f"this is no Open Bandit file: its header lacks {', '.join(missing)}",
                remedy="Choose another --format, or name a file whose first line has these columns.",
            )
        self._places = tuple(names.index(name) for name in COLUMNS)
        self._width = len(names)

    def _row(self, line: bytes) -> list[ParsedRecord]:
        """Return a row's records. Raises ValueError, csv.Error when it can't be read."""
        text = line.decode()
        fields = next(csv.reader([text])) if '"' in text else text.split(",")
        if len(fields) != self._width:
            raise ValueError(f"{len(fields)} fields, not the header's {self._width}")
        timestamp, item, position, clicked, *features = (fields[place] for place in self._places)
        if clicked not in {"0", "1"}:
            raise ValueError("click is 0 or 1")
        user_id, ip = _user("|".join(features))
        event_id = f"{self._id_prefix}-{self._rows}"
        impression = {
            "event_type": "impression",
            "event_id": event_id,
            "event_time": _ms(timestamp),
            "publisher_id": OUR_ID,
            "site_id": OUR_ID,
            "campaign_id": OUR_ID,
            "creative_id": _number(item),
            "advertiser_id": OUR_ID,
            "placement_id": _number(position),
            "user_id": user_id,
            "ip": ip,
            "user_agent": USER_AGENT,
            "page_url": "",
            "price_micros": IMPRESSION_PRICE_MICROS,
        }
        records = [_record(EventType.IMPRESSION, impression)]
        if clicked == "1":
            click = {
                **impression,
                "event_type": "click",
                "event_id": f"{event_id}-c",
                "event_time": _ms(timestamp) + CLICK_DELAY_MS,
                "price_micros": CLICK_PRICE_MICROS,
                "impression_id": event_id,
            }
            records.append(_record(EventType.CLICK, click))
        return records


def _record(event_type: EventType, event: dict[str, Any]) -> ParsedRecord:
    return ParsedRecord(event_type, event["user_id"].encode(), event["event_time"], orjson.dumps(event))


@lru_cache(maxsize=65_536)
def _user(features: str) -> tuple[str, str]:
    """Return the user id and the address that the four joined features stand for."""
    digest = hashlib.md5(features.encode(), usedforsecurity=False)
    a, b, c = digest.digest()[:3]
    return digest.hexdigest(), f"126.{a}.{b}.{c}"


def _ms(timestamp: str) -> int:
    moment = datetime.fromisoformat(timestamp)
    if moment.tzinfo is None:
        raise ValueError("a timestamp without a zone")
    return (moment - _EPOCH) // _MS


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise ValueError(f"{text[:SHOWN_CHARS_MAX]!r} is not a whole number")
    return int(text)
