"""TalkingData AdTracking's clicks: the CSV of its fraud detection challenge, every row a click on a mobile ad.

Columns, by its description: ip, app, device, os, channel (numbers that encode values), click_time
(`YYYY-MM-DD HH:MM:SS`, UTC), attributed_time, is_attributed; the test set begins with click_id. They are read by name.

Fields of the wire format that the data lacks are filled like this:
- event_id: the prefix and the click_id, or the row's number, from 1;
- impression_id: the event id followed by `-i`, an impression that the data does not have;
- publisher, site: the channel, which sold the ad; advertiser, campaign: the app, which was advertised; creative:
  the app too; placement: the channel;
- address: 126.a.b.c with a, b, c the three low bytes of the ip's number (a consumer network);
- user: MD5 (hex) of ip, device and os joined by `|`; user agent: an ordinary phone's; page: none (apps have none);
- price: 100,000 micros per click, in the deployment's currency; country and size are omitted.
Whether the app was downloaded later (attributed) is not part of an event. Rows that are equal in all columns are separate
events, because nothing identifies them as one.
"""

import csv
import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import orjson

from adledger.pipeline.importing.csv_rows import CsvRows
from adledger.pipeline.importing.records import FieldError, ParsedRecord, unreadable, whole_number
from adledger.schemas.wire import EventType

ID_PREFIX = "td"
COLUMNS = ("ip", "app", "device", "os", "channel", "click_time")
"""The columns that a header must have, in any order."""
CLICK_ID = "click_id"
CLICK_PRICE_MICROS = 100_000
USER_AGENT = (
    "Mozilla/5.0 (Linux; Android 7.0; SM-G930F) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/61.0.3163.98 Mobile Safari/537.36"
)
"""An ordinary phone of the data's time; the data has no user agents."""


class TalkingData:
    """Reads the header, then rows."""

    def __init__(self, id_prefix: str = ID_PREFIX) -> None:
        self._id_prefix = id_prefix
        self._csv = CsvRows("TalkingData", COLUMNS)
        self._rows = 0

    def parse(self, lines: Sequence[bytes], first_line: int) -> list[ParsedRecord]:
        """Return a click per row. Raises UsageError if the header lacks a column."""
        records: list[ParsedRecord] = []
        for number, line in enumerate(lines, first_line):
            if not line or line.isspace():
                continue
            if not self._csv.names:
                self._csv.read_header(line)
                continue
            self._rows += 1
            try:
                records.append(self._click(self._csv.row(line), number))
            except (ValueError, csv.Error) as error:
                records.append(unreadable(line, number, error))
        return records

    def _click(self, row: dict[str, str], number: int) -> ParsedRecord:
        own_id = whole_number(CLICK_ID, row[CLICK_ID]) if CLICK_ID in row else self._rows
        event_id = f"{self._id_prefix}-{own_id}"
        event_time = _ms(row["click_time"])
        app, channel = whole_number("app", row["app"]), whole_number("channel", row["channel"])
        user_id = _user(row["ip"], row["device"], row["os"])
        event = {
            "event_type": "click",
            "event_id": event_id,
            "event_time": event_time,
            "publisher_id": channel,
            "site_id": channel,
            "campaign_id": app,
            "creative_id": app,
            "advertiser_id": app,
            "placement_id": channel,
            "user_id": user_id,
            "ip": _address(whole_number("ip", row["ip"])),
            "user_agent": USER_AGENT,
            "page_url": "",
            "price_micros": CLICK_PRICE_MICROS,
            "impression_id": f"{event_id}-i",
        }
        return ParsedRecord(EventType.CLICK, user_id.encode(), event_time, orjson.dumps(event), line=number)


def _address(number: int) -> str:
    return f"126.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


@lru_cache(maxsize=65_536)
def _user(ip: str, device: str, os: str) -> str:
    return hashlib.md5(f"{ip}|{device}|{os}".encode(), usedforsecurity=False).hexdigest()


@lru_cache(maxsize=4_096)
def _ms(text: str) -> int:
    try:
        moment = datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise FieldError("click_time", text, "like 2017-11-07 09:30:38" + _excel(text)) from None
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _excel(text: str) -> str:
    """Return a hint if a spreadsheet has reformatted the time, which loses the seconds."""
    return " (a spreadsheet changed it: import the original file)" if "/" in text else ""
