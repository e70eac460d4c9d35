"""The shapes that the kernels share: planned records, rows, and the lookup tables of a model."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]
I64 = npt.NDArray[np.int64]
Records = npt.NDArray[np.void]

PLANNED = np.dtype(
    [
        ("log_time", "i8"),  # ms
        ("slot_time", "i8"),  # ms; log time of the slot's impression
        ("slot", "i8"),  # the impression that it derives from, numbered from 0 in log order
        ("variant", "u1"),  # 2 * copy number + (1 for a click): with the slot, the record's identity
        ("change", "u1"),  # CHANGE_...: what differs from the first sending
        ("duplicate", "u1"),  # 1: within the window of an equal event before it in its lane
        ("conflict", "u1"),  # 1: a duplicate whose payload differs from the first's
        ("label", "u1"),  # labels.Label
        ("recipe", "u1"),  # 0, or 1 + index of the odd or malformed recipe
    ],
    align=True,
)
"""A planned record, without its content."""

ROW = np.dtype(
    [
        ("log_time", "i8"),
        ("event_time", "i8"),
        ("slot", "i8"),
        ("event_no", "u8"),
        ("impression_no", "u8"),
        ("user_no", "u8"),
        ("ip_hi", "u8"),
        ("ip_lo", "u8"),
        ("money_nanos", "i8"),
        ("publisher_id", "u4"),
        ("site_id", "u4"),
        ("campaign_id", "u4"),
        ("creative_id", "u4"),
        ("advertiser_id", "u4"),
        ("placement_id", "u4"),
        ("price_micros", "u4"),
        ("page_no", "u4"),
        ("user_agent", "u2"),  # row of the catalog
        ("country", "u2"),  # two capitals, first in the low byte
        ("width_px", "u2"),
        ("height_px", "u2"),
        ("partition", "u2"),
        ("currency_code", "u2"),
        ("topic", "u1"),
        ("event_type", "u1"),
        ("variant", "u1"),
        ("class_code", "u1"),
        ("conflict", "u1"),
        ("misrouted", "u1"),
        ("label", "u1"),
        ("recipe", "u1"),
        ("long_ids", "u1"),  # UUIDs instead of 16 hex digits
        ("has_user", "u1"),
        ("key_kind", "u1"),  # KEY_...
        ("ip6", "u1"),
        ("sends", "u1"),  # bits: SENDS_...
        ("layout", "u1"),
        ("spaced", "u1"),
    ],
    align=True,
)
"""A record with its content and its ground truth; `render` turns it into bytes."""


# Plain numbers, since kernels read them. How a copy differs: changes up to CHANGE_TIME are covered by the fingerprint, so
# the copy is a conflict.
CHANGE_NONE, CHANGE_PRICE, CHANGE_CAMPAIGN, CHANGE_TIME, CHANGE_PAGE, CHANGE_USER_AGENT = range(6)

# How the producer keys a record.
KEY_NONE, KEY_USER, KEY_IP = range(3)

# Bits: which optional fields a producer sends.
(
    SENDS_CURRENCY, SENDS_COUNTRY, SENDS_SIZE, SENDS_PLACEMENT, SENDS_FALSE_FLAGS, SENDS_PREFETCH, SENDS_TEST,
) = (1 << bit for bit in range(7))  # fmt: skip


class Tables(NamedTuple):
    """A model as kernels read it: integers only, so that every machine draws the same values.

    `_t` are thresholds (share * 2^32), `q_` addresses of quantile tables, `a_` addresses of alias tables, each next to its
    number of rows. Addresses stay valid while the `Lookup` that created them lives. (Arrays would cost a reference count
    at each call.)
    """

    key: np.uint64
    partitions: int
    start_ms: int
    # sessions and users
    session_ms: int
    sessions: int  # address of int64: sessions of one stagger in each window
    windows: int
    users: int
    q_users: int
    hot_user_t: int
    mobile_t: int
    cookieless_t: int
    a_publishers: int
    publishers: int
    hot_publisher_t: int
    a_homes: int
    homes: int  # networks below this row are homes, the others carriers
    a_carriers: int
    carriers: int
    networks: int  # address of rows of four uint64: hi, lo, host bits, country | is6 << 16
    a_desktops: int
    desktops: int  # user agents below this row are desktops'
    a_phones: int
    phones: int
    # what
    a_campaigns: int
    campaigns: int
    q_cpm: int
    q_cpc: int
    second_currency_t: int
    currency_code: int
    second_currency_code: int
    # producers
    long_ids_t: int
    spaced_t: int
    shuffled_t: int
    layouts: int
    skewed_t: int
    skew_ms: int
    crc32_t: int
    keyless_t: int
    click_reuses_id_t: int
    # ways and copies
    q_transport: int
    late_t: int
    q_late: int
    expired_t: int
    click_t: int
    q_click: int
    cookie_appears_t: int
    roaming_t: int
    copy_t: int
    copy_kinds: int  # address of int64: cumulative weights, scaled to 2^32
    malformed_t: int
    malformed_recipes: int
    odd_t: int
    odd_recipes: int
    restart_ms: int
    conflict_ms: int
    window_ms: int
    allowed_lateness_ms: int
    margin_ms: int
    step_ms: int  # of the table of arrivals


class Texts(NamedTuple):
    """Addresses of the texts that `render` writes; all but `layouts` are text tables."""

    user_agents: int
    words: int
    fields: int  # tokens `"name":` in the contract's order, then the same with a space behind the colon
    layouts: int  # orders of fields, one row of bytes per layout
    currencies: int  # `"USD"`, `"EUR"`
    literals: int  # LITERAL_...


LITERALS = (b'"impression"', b'"click"', b"false", b'"https://www.', b".example/", b"true")
LITERAL_IMPRESSION, LITERAL_CLICK, LITERAL_FALSE, LITERAL_HTTPS, LITERAL_EXAMPLE, LITERAL_TRUE = range(
    len(LITERALS)
)
