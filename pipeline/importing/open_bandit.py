"""The Open Bandit Dataset's CSV (st-tech/zr-obp): each row is an impression, and a clicked row also a click."""

import csv
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from adledger.pipeline.importing.csv_rows import CsvRows
from adledger.pipeline.importing.records import FieldError, ParsedRecord, unreadable, whole_number
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
"""The columns that a header must have, in any order; others are ignored."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MS = timedelta(milliseconds=1)
_DIGITS_MAX = 18
"""Whole numbers with more digits are not ids: they would not fit 64 bits."""


class OpenBandit:
    """Reads the header, then rows; event ids count the rows from 1."""

    def __init__(self, id_prefix: str = ID_PREFIX) -> None:
        self._id_prefix = id_prefix
        self._csv = CsvRows("Open Bandit", COLUMNS)
        self._rows = 0

    def parse(self, lines: Sequence[bytes], first_line: int) -> list[ParsedRecord]:
        """Return one record per row, two for a clicked row. Raises UsageError if the header lacks a column."""
        records: list[ParsedRecord] = []
        for number, line in enumerate(lines, first_line):
            if not line or line.isspace():
                continue
            if not self._csv.names:
                self._csv.read_header(line)
                continue
            self._rows += 1
            try:
                records += self._row(self._csv.row(line), number)
            except (ValueError, csv.Error) as error:
                records.append(unreadable(line, number, error))
        return records

    def _row(self, row: dict[str, str], number: int) -> list[ParsedRecord]:
        """Return a row's records. Raises ValueError if it can't be read."""
        if row["click"] not in {"0", "1"}:
            raise FieldError("click", row["click"], "0 or 1")
        time_ms = _ms(row["timestamp"])
        user_id, ip = _user("|".join(row[name] for name in _FEATURES))
        event_id = f"{self._id_prefix}-{self._rows}"
        impression = {
            "event_type": "impression",
            "event_id": event_id,
            "event_time": time_ms,
            "publisher_id": OUR_ID,
            "site_id": OUR_ID,
            "campaign_id": OUR_ID,
            "creative_id": whole_number("item_id", row["item_id"], _DIGITS_MAX),
            "advertiser_id": OUR_ID,
            "placement_id": whole_number("position", row["position"], _DIGITS_MAX),
            "user_id": user_id,
            "ip": ip,
            "user_agent": USER_AGENT,
            "page_url": "",
            "price_micros": IMPRESSION_PRICE_MICROS,
        }
        records = [_record(EventType.IMPRESSION, impression, number)]
        if row["click"] == "1":
            click = {
                **impression,
                "event_type": "click",
                "event_id": f"{event_id}-c",
                "event_time": time_ms + CLICK_DELAY_MS,
                "price_micros": CLICK_PRICE_MICROS,
                "impression_id": event_id,
            }
            records.append(_record(EventType.CLICK, click, number))
        return records


def _record(event_type: EventType, event: dict[str, Any], number: int) -> ParsedRecord:
    return ParsedRecord(
        event_type, event["user_id"].encode(), event["event_time"], orjson.dumps(event), line=number
    )


@lru_cache(maxsize=65_536)
def _user(features: str) -> tuple[str, str]:
    """Return the user id and the address that are derived from the four joined features."""
    digest = hashlib.md5(features.encode(), usedforsecurity=False)
    a, b, c = digest.digest()[:3]
    return digest.hexdigest(), f"126.{a}.{b}.{c}"


def _ms(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise FieldError("timestamp", text, "like 2019-11-24 00:00:00.123456+00:00, with its zone")
    return (moment - _EPOCH) // _MS
