"""The wire contract with producers (docs/events.md): topics, limits, event types, and what makes a record malformed.

Numbers in this file are stored in tables: never change one, and never reuse one for something else.
"""

from enum import IntEnum

TOPIC_IMPRESSIONS = "ad.impressions"
TOPIC_CLICKS = "ad.clicks"

RECORD_BYTES_MAX = 16 * 1024
BATCH_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of one record batch's records, decompressed: 1 MB of compressed JSON becomes 3 to 25 MB. Larger ones are dead letters."""
BATCH_RECORDS_MAX = 1 << 18
"""Records of one record batch: more than BATCH_BYTES_MAX has room for, if each is an event."""
DEAD_LETTER_BYTES_MAX = 64 * 1024
"""Bytes of a value, a key, or a record batch (from its header on) that a dead letter keeps. The log has the rest."""
NESTING_DEPTH_MAX = 64
EVENT_ID_BYTES_MAX = 64
USER_ID_BYTES_MAX = 64
IMPRESSION_ID_BYTES_MAX = 64
USER_AGENT_BYTES_MAX = 1_024
PAGE_URL_BYTES_MAX = 2_048
PRICE_MICROS_MAX = 10**9
UINT32_MAX = 2**32 - 1
UINT16_MAX = 2**16 - 1
EVENT_TIME_MS_MIN = 946_684_800_000  # 2000-01-01T00:00:00Z
EVENT_TIME_MS_MAX = 4_102_444_800_000  # 2100-01-01T00:00:00Z, exclusive
FUTURE_MS_MAX = 5 * 60 * 1000  # event_time may be this far after log time

NANOS_PER_MICRO_CPM = 1  # an impression is worth price_micros / 1000 micros = price_micros nanos
NANOS_PER_MICRO_CPC = 1_000  # a click is worth price_micros micros


class EventType(IntEnum):
    """What happened. Stored as `event_type_code`."""

    IMPRESSION = 1
    CLICK = 2


class Malformed(IntEnum):
    """Why a record is malformed: the first that applies, in this order. Stored in `dead_letters.reason_code`."""

    OK = 0  # not malformed
    TOMBSTONE = 1  # empty or null value
    TOO_LARGE = 2  # over RECORD_BYTES_MAX
    NOT_JSON = 3  # not JSON by its grammar, or not UTF-8 (NUL bytes, NaN, truncated ...)
    TOO_DEEP = 4  # nested deeper than NESTING_DEPTH_MAX
    NOT_AN_OBJECT = 5  # valid JSON, but not an object
    REPEATED_KEY = 6  # a key appears twice in the (top-level) object
    MISSING_FIELD = 7  # a required field is absent
    WRONG_TYPE = 8  # a field has another JSON type than the contract's
    OUT_OF_RANGE = 9  # a number, string, length, enum, currency, country or address outside the contract
    WRONG_TOPIC = 10  # an event of the other kind's topic
    FROM_THE_FUTURE = 11  # event_time more than FUTURE_MS_MAX after its log time
    REJECTED_EARLIER = 12  # an earlier release rejected it in a batch that was already under way
    UNDECODABLE_BATCH = (
        13  # not a record but a whole record batch, which its producer wrote wrongly or too large
    )


class Flag(IntEnum):
    """Bit numbers in `events.flags` (UInt16)."""

    HAS_WIDTH = 0
    HAS_HEIGHT = 1
    PREFETCH = 2
    TEST = 3
    MISROUTED = 4
    KEYED_BY_IP = 5  # user_id was empty
    UA_TRUNCATED = 6  # user_agent had more than USER_AGENT_BYTES_MAX bytes; the rest is not stored
    PAGE_TRUNCATED = 7  # page_url had more than PAGE_URL_BYTES_MAX
    AFTER_CLOSE = 8  # the lane's watermark was past the close of its period: adledger.schemas.periods


def currency_code(text: str) -> int:
    """Return the stored number of a currency's three capitals: base 26, AAA = 1; 0 is none."""
    a, b, c = (ord(ch) - 65 for ch in text)
    return (a * 26 + b) * 26 + c + 1


def currency_text(code: int) -> str:
    """Return the text of a currency number ("" for 0)."""
    if code == 0:
        return ""
    rest, c = divmod(code - 1, 26)
    a, b = divmod(rest, 26)
    return chr(65 + a) + chr(65 + b) + chr(65 + c)


def country_code(text: str) -> int:
    """Return the stored number of a country's two capitals: base 26, AA = 1; "" is 0."""
    return (ord(text[0]) - 65) * 26 + ord(text[1]) - 65 + 1 if text else 0
