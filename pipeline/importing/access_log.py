"""Web server logs in Apache's combined format: each hit is an impression, keyed by its address."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import orjson

from adledger.pipeline.importing.records import ParsedRecord, unreadable
from adledger.schemas.wire import EventType

ID_PREFIX = "al"
OUR_ID = 2
"""Publisher, site, campaign, creative and advertiser of such a log."""
PRICE_MICROS = 1_000_000

_QUOTED = rb'"([^"\\]*(?:\\.[^"\\]*)*)"'
_HIT = re.compile(
    rb"(\S+) \S+ [^\[]*\[([^:\]]+):(\d\d):(\d\d):(\d\d) ([+-]\d{4})\] "
    + rb"%b \d{3} (?:\d+|-) %b %b\s*" % (_QUOTED, _QUOTED, _QUOTED)
)
_ABSENT = b"-"


class AccessLog:
    """Reads lines as `%h %l %u %t "%r" %>s %b "%{Referer}i" "%{User-Agent}i"`."""

    def __init__(self, id_prefix: str = ID_PREFIX) -> None:
        self._id_prefix = id_prefix

    def parse(self, lines: Sequence[bytes], first_line: int) -> list[ParsedRecord]:
        """Return a record a line that is not blank; event ids count the file's lines."""
        return [
            self._record(line, number)
            for number, line in enumerate(lines, first_line)
            if line and not line.isspace()
        ]

    def _record(self, line: bytes, number: int) -> ParsedRecord:
        hit = _HIT.fullmatch(line)
        if hit is None:
            return unreadable(line, number, "not of the combined format")
        try:
            ip = hit[1].decode()
            event_time = _midnight_ms(hit[2], hit[6]) + _time_of_day_ms(hit)
            event = {
                "event_type": "impression",
                "event_id": f"{self._id_prefix}-{number}",
                "event_time": event_time,
                "publisher_id": OUR_ID,
                "site_id": OUR_ID,
                "campaign_id": OUR_ID,
                "creative_id": OUR_ID,
                "advertiser_id": OUR_ID,
                "user_id": "",
                "ip": ip,
                "user_agent": _text(hit[9]),
                "page_url": _text(hit[8]),
                "price_micros": PRICE_MICROS,
            }
        except ValueError as error:  # no such day or hour, or not UTF-8
            return unreadable(line, number, error)
        return ParsedRecord(EventType.IMPRESSION, ip.encode(), event_time, orjson.dumps(event))


@lru_cache(maxsize=64)
def _midnight_ms(day: bytes, zone: bytes) -> int:
    """Return when a day (`17/May/2015`) began in a zone (`+0000`). Raises ValueError."""
    midnight = datetime.strptime(f"{day.decode()} {zone.decode()}", "%d/%b/%Y %z")
    return (midnight - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


def _time_of_day_ms(hit: re.Match[bytes]) -> int:
    hour, minute, second = int(hit[3]), int(hit[4]), int(hit[5])
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError("no such time of day")
    return ((hour * 60 + minute) * 60 + second) * 1000


def _text(field: bytes) -> str:
    r"""Return a quoted field's text; "" for `-`, which stands for an absent one. Raises ValueError: not UTF-8.

    The server's own escapes stay in it: what `\xe4` was is text in a code page that the log does not name.
    """
    return "" if field == _ABSENT else field.decode()
