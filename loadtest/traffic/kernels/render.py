"""From rows to bytes: one JSON object per record, as its producer writes it, and its key."""

import numpy as np

from adledger.loadtest.traffic.kernels.draw import mix64
from adledger.loadtest.traffic.kernels.keys import put_id, put_ip
from adledger.loadtest.traffic.kernels.memory import put_byte, put_decimal, put_entry, put_text, store16
from adledger.loadtest.traffic.kernels.shapes import (
    KEY_NONE,
    KEY_USER,
    LITERAL_CLICK,
    LITERAL_EXAMPLE,
    LITERAL_FALSE,
    LITERAL_HTTPS,
    LITERAL_IMPRESSION,
    LITERAL_TRUE,
    SENDS_COUNTRY,
    SENDS_CURRENCY,
    SENDS_FALSE_FLAGS,
    SENDS_PLACEMENT,
    SENDS_PREFETCH,
    SENDS_SIZE,
    SENDS_TEST,
)
from adledger.pipeline.kernels.intrinsics import load8
from adledger.pipeline.kernels.jit import inline_kernel, kernel

FIELD_NAMES = (
    "event_type", "event_id", "event_time", "publisher_id", "site_id", "campaign_id", "creative_id",
    "advertiser_id", "placement_id", "user_id", "ip", "user_agent", "page_url", "price_micros", "currency",
    "impression_id", "width", "height", "country", "is_prefetch", "is_test",
)  # fmt: skip
FIELDS = len(FIELD_NAMES)
(
    TYPE, ID, TIME, PUBLISHER, SITE, CAMPAIGN, CREATIVE, ADVERTISER, PLACEMENT, USER, IP, AGENT, PAGE, PRICE,
    CURRENCY, IMPRESSION, WIDTH, HEIGHT, COUNTRY, PREFETCH, TEST,
) = range(FIELDS)  # fmt: skip

VALUE_BYTES_MAX = 1_024
"""The longest rendered record."""

NULL = -1
"""Instead of an end: the row is null, not empty (adledger.pipeline.log.record_block)."""

_COMMA_SPACE = np.uint64(0x202C)


@inline_kernel
def _quote(at):
    return put_byte(at, 34)


@inline_kernel
def _put_page(at, texts, row):
    """Write the page's URL: the site determines its words, the page its number."""
    site = np.int64(row.site_id)
    page = np.int64(row.page_no)
    bits = np.int64(mix64(np.uint64(site)) >> np.uint64(8))
    at = put_entry(at, texts.literals, LITERAL_HTTPS)
    at = put_entry(at, texts.words, bits & 31)
    at = put_decimal(at, site)
    at = put_entry(at, texts.literals, LITERAL_EXAMPLE)
    at = put_entry(at, texts.words, ((bits >> 5) + (page >> 3)) & 31)
    return _quote(put_decimal(put_byte(at, 47), page))


@inline_kernel
def _sent(row, field):
    """Return whether the record has the field."""
    if field == IMPRESSION:
        return row.event_type == 2
    if field == CURRENCY:
        return row.sends & SENDS_CURRENCY != 0
    if field == COUNTRY:
        return row.sends & SENDS_COUNTRY != 0
    if field == WIDTH or field == HEIGHT:
        return row.sends & SENDS_SIZE != 0
    if field == PLACEMENT:
        return row.sends & SENDS_PLACEMENT != 0
    if field == PREFETCH:
        return row.sends & (SENDS_FALSE_FLAGS | SENDS_PREFETCH) != 0
    if field == TEST:
        return row.sends & (SENDS_FALSE_FLAGS | SENDS_TEST) != 0
    return True


@inline_kernel
def _put_value(at, tb, texts, row, field):
    if field == TYPE:
        return put_entry(at, texts.literals, LITERAL_CLICK if row.event_type == 2 else LITERAL_IMPRESSION)
    if field == ID:
        return _quote(put_id(_quote(at), row.event_no, row.long_ids))
    if field == USER:
        at = _quote(at)
        return _quote(put_id(at, row.user_no, row.long_ids) if row.has_user else at)
    if field == IP:
        return _quote(put_ip(_quote(at), row.ip_hi, row.ip_lo, row.ip6))
    if field == AGENT:
        return _quote(put_entry(_quote(at), texts.user_agents, np.int64(row.user_agent)))
    if field == PAGE:
        return _put_page(at, texts, row)
    if field == CURRENCY:
        return put_entry(at, texts.currencies, 0 if row.currency_code == tb.currency_code else 1)
    if field == IMPRESSION:
        return _quote(put_id(_quote(at), row.impression_no, row.long_ids))
    if field == COUNTRY:
        store16(_quote(at), np.uint64(row.country))
        return _quote(at + 3)
    if field == PREFETCH or field == TEST:
        said = row.sends & (SENDS_PREFETCH if field == PREFETCH else SENDS_TEST) != 0
        return put_entry(at, texts.literals, LITERAL_TRUE if said else LITERAL_FALSE)
    return put_decimal(at, _number(row, field))


@inline_kernel
def _number(row, field):
    if field == TIME:
        return row.event_time
    if field == PUBLISHER:
        return np.int64(row.publisher_id)
    if field == SITE:
        return np.int64(row.site_id)
    if field == CAMPAIGN:
        return np.int64(row.campaign_id)
    if field == CREATIVE:
        return np.int64(row.creative_id)
    if field == ADVERTISER:
        return np.int64(row.advertiser_id)
    if field == PLACEMENT:
        return np.int64(row.placement_id)
    if field == PRICE:
        return np.int64(row.price_micros)
    return np.int64(row.width_px if field == WIDTH else row.height_px)


@inline_kernel
def _put_record(at, tb, texts, row):
    at = put_byte(at, 123)
    spaced = np.int64(row.spaced)
    order = texts.layouts + np.int64(row.layout) * FIELDS
    gap = np.int64(0)  # the first field's comma is overwritten
    for k in range(FIELDS):
        field = np.int64(load8(order + k))
        if not _sent(row, field):
            continue
        store16(at, _COMMA_SPACE)
        at = put_entry(at + gap, texts.fields, field + spaced * FIELDS)
        at = _put_value(at, tb, texts, row, field)
        gap = 1 + spaced
    return put_byte(at, 125)


@kernel
def render_rows(tb, texts, rows, order, given, given_lengths, values, value_ends, keys, key_ends):
    """Write the values and keys of rows[order], in that order; fill the ends (int64; NULL where there is none).

    Rows with a recipe get the next text of `given` (flat bytes; a length of NULL is a null value) while there is one;
    after that they are rendered like the others. `values` has room for VALUE_BYTES_MAX per rendered row and the given
    texts, `keys` for KEY_BYTES_MAX per row, both for SLACK_BYTES more.
    """
    values_from = np.int64(values.ctypes.data)
    keys_from = np.int64(keys.ctypes.data)
    text = np.int64(given.ctypes.data)
    at = values_from
    key_at = keys_from
    taken = 0
    for i in range(len(order)):
        row = rows[order[i]]
        if row.recipe and taken < len(given_lengths):
            length = given_lengths[taken]
            taken += 1
            if length == NULL:
                value_ends[i] = NULL
            else:
                at = put_text(at, text, length)
                text += length
                value_ends[i] = at - values_from
        else:
            at = _put_record(at, tb, texts, row)
            value_ends[i] = at - values_from
        if row.key_kind == KEY_NONE:
            key_ends[i] = NULL
            continue
        if row.key_kind == KEY_USER:
            key_at = put_id(key_at, row.user_no, row.long_ids)
        else:
            key_at = put_ip(key_at, row.ip_hi, row.ip_lo, row.ip6)
        key_ends[i] = key_at - keys_from
