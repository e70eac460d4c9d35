"""The decode kernel's numbers for an event's fields, and the names that it looks for.

Numbers are grouped by how the value is read. After the known fields come `UNKNOWN_SLOTS` numbers, which are assigned to
unknown names as they appear.
"""

import numpy as np
import numpy.typing as npt

from adledger.schemas import wire

I64 = npt.NDArray[np.int64]

NAMES = (
    # texts, which are hashed
    "event_id",
    "user_id",
    "user_agent",
    "page_url",
    "impression_id",
    # integers
    "event_time",
    "publisher_id",
    "site_id",
    "campaign_id",
    "creative_id",
    "advertiser_id",
    "placement_id",
    "price_micros",
    "width",
    "height",
    # each read in its own way
    "event_type",
    "ip",
    "currency",
    "country",
    "is_prefetch",
    "is_test",
)
(
    EVENT_ID,
    USER_ID,
    USER_AGENT,
    PAGE_URL,
    IMPRESSION_ID,
    EVENT_TIME,
    PUBLISHER_ID,
    SITE_ID,
    CAMPAIGN_ID,
    CREATIVE_ID,
    ADVERTISER_ID,
    PLACEMENT_ID,
    PRICE_MICROS,
    WIDTH,
    HEIGHT,
    EVENT_TYPE,
    IP,
    CURRENCY,
    COUNTRY,
    IS_PREFETCH,
    IS_TEST,
) = range(len(NAMES))

TEXTS_END = EVENT_TIME
INTEGERS_END = EVENT_TYPE
KNOWN_END = len(NAMES)

UNKNOWN_SLOTS = 32
FIELDS_END = KNOWN_END + UNKNOWN_SLOTS
START = FIELDS_END
"""The state before the first field."""
STATES = START + 1
END = 63
"""Stands for the closing brace."""
NULL = 64
"""Added to the number of an optional field whose value is null: the value is then part of the separator."""
NUMBERS = NULL - 1
"""Masks a field's number."""

NAME_BYTES_MAX = 32


def _bounds(texts: tuple[int, int, int, int, int], integers: dict[int, int], other: int) -> I64:
    by_number = [*texts, *(integers.get(number, other) for number in range(TEXTS_END, INTEGERS_END))]
    return np.array(by_number, np.int64)


LEAST = _bounds((1, 0, 0, 0, 1), {EVENT_TIME: wire.EVENT_TIME_MS_MIN}, 0)
"""i64[INTEGERS_END]: the smallest length (bytes) of a text, the smallest value of an integer."""

MOST = _bounds(
    (
        wire.EVENT_ID_BYTES_MAX,
        wire.USER_ID_BYTES_MAX,
        wire.USER_AGENT_BYTES_MAX,
        wire.PAGE_URL_BYTES_MAX,
        wire.IMPRESSION_ID_BYTES_MAX,
    ),
    {
        EVENT_TIME: wire.EVENT_TIME_MS_MAX - 1,
        PRICE_MICROS: wire.PRICE_MICROS_MAX,
        WIDTH: wire.UINT16_MAX,
        HEIGHT: wire.UINT16_MAX,
    },
    wire.UINT32_MAX,
)
"""i64[INTEGERS_END]: the largest. A longer user agent or page is truncated."""

QUOTED = sum(1 << n for n in range(KNOWN_END) if n < TEXTS_END or n in {EVENT_TYPE, IP, CURRENCY, COUNTRY})
"""One bit per known field: whether its value is a JSON string."""

_OPTIONAL = {IMPRESSION_ID, PLACEMENT_ID, WIDTH, HEIGHT, CURRENCY, COUNTRY, IS_PREFETCH, IS_TEST}
OPTIONAL = sum(1 << n for n in _OPTIONAL)
"""One bit per field that may be absent, or null."""
REQUIRED = np.uint64(sum(1 << n for n in range(KNOWN_END) if n not in _OPTIONAL))
"""One bit per field; clicks also need IMPRESSION_ID."""
