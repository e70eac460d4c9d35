"""The fast path: JSON records into columns in one pass, without allocating anything.

It accepts only records that it understands to the last byte. Any other is read again (`second_reading`), and either accepted,
or refused with its reason, or marked `UNSURE`: the slow path (adledger.pipeline.stages.slow_path) decides about those.

What makes it fast: the *separator* between one value and the next (`,"site_id":`) is compared, 32 bytes at once, with the
one that followed the same field in the previous record. It names the next field, whatever field order, white space and
unknown fields the producer uses. A string's end is found 32 bytes at once too, and eight digits become a number in three
multiplications.
"""

from collections import namedtuple
from typing import NamedTuple

import numpy as np

from adledger.pipeline.kernels import fields as f
from adledger.pipeline.kernels import memo as m
from adledger.pipeline.kernels.hashing import partition_of
from adledger.pipeline.kernels.intrinsics import load8, load64, same32
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.kernels.second_reading import read_again
from adledger.pipeline.kernels.separators import bits_below, learn, unpack
from adledger.pipeline.kernels.skip import skip_space, skip_value
from adledger.pipeline.kernels.values import (
    CLICK,
    read_boolean,
    read_capitals,
    read_event_type,
    read_integer,
    read_ip,
    read_text,
    read_timestamp,
)
from adledger.pipeline.records.columns import I32, I64, U8
from adledger.schemas.event_columns import EVENT_DTYPES
from adledger.schemas.wire import (
    FUTURE_MS_MAX,
    PAGE_URL_BYTES_MAX,
    RECORD_BYTES_MAX,
    USER_AGENT_BYTES_MAX,
    Flag,
)

_NONE = np.uint64(0)
_ONE = np.uint64(1)
_QUOTE = 0x22
_AS_SENT, _TO_UPPER = np.uint64(0xFF), np.uint64(0xDF)
"""Masks of a letter; the second turns small letters into capitals, and no other byte."""
_HAS_WIDTH, _HAS_HEIGHT, _PREFETCH, _TEST, _MISROUTED, _KEYED_BY_IP, _UA_TRUNCATED, _PAGE_TRUNCATED = (
    np.uint64(flag)
    for flag in (
        Flag.HAS_WIDTH,
        Flag.HAS_HEIGHT,
        Flag.PREFETCH,
        Flag.TEST,
        Flag.MISROUTED,
        Flag.KEYED_BY_IP,
        Flag.UA_TRUNCATED,
        Flag.PAGE_TRUNCATED,
    )
)


class RecordColumns(NamedTuple):
    """The columns of a RecordRefs that decode reads."""

    topic: U8
    log_time: I64
    value_addr: I64
    value_len: I32
    key_addr: I64
    key_len: I32


class Context(NamedTuple):
    """A DecodeContext as numbers of fixed types."""

    lane: np.uint64
    partitions: np.uint64
    kinds: I64
    default_currency: np.uint64


class Places(NamedTuple):
    """Where the strings of user agent and page are, before truncation: offset from the record's value, and length."""

    ua_at: I32
    ua_len: I32
    page_at: I32
    page_len: I32


Columns = namedtuple("Columns", tuple(EVENT_DTYPES))  # type: ignore[misc]  # noqa: PYI024 - one array each, typed by EVENT_DTYPES
"""The arrays of an EventColumns."""


@kernel
def _read_fields(p, end, separators, memo):
    """Read the record [p, end) into the memo. Returns one bit for each field that has a value, or 0 where unsure.

    `separators` is the address of the rows of the record's topic.
    """
    seen = nulls = _NONE
    state = f.START
    while True:
        row = separators + state * m.ROW_BYTES
        leads_to = np.int64(load64(row + m.ROW_LEADS_TO))
        mask = load64(row + m.ROW_MASK)
        if leads_to == 0 or same32(p, row) & mask != mask:
            leads_to = learn(p, end, state, row, memo)
            if leads_to == 0:
                return _NONE
        number, length = unpack(leads_to)
        p += length
        if number == f.END:
            return seen & ~nulls if skip_space(p, end) == end else _NONE
        bit = _ONE << np.uint64(number & f.NUMBERS)
        if p >= end or seen & bit != 0:
            return _NONE
        seen |= bit
        state = number & f.NUMBERS
        if number < f.TEXTS_END:
            p = read_text(p, end, number, memo)
        elif number < f.INTEGERS_END:
            if number == f.EVENT_TIME and load8(p) == _QUOTE:
                p = read_timestamp(p + 1, end, memo)
            else:
                p = read_integer(p, number, memo)
        elif number == f.EVENT_TYPE:
            p = read_event_type(p, memo)
        elif number == f.IP:
            p = read_ip(p, end, memo)
        elif number == f.CURRENCY:
            p = read_capitals(p, 3, number, _AS_SENT, memo)
        elif number == f.COUNTRY:
            if load8(p) == _QUOTE:
                m.put(memo, m.FOUND, number, 0)
                p += 1
            else:
                p = read_capitals(p, 2, number, _TO_UPPER, memo)
        elif number < f.KNOWN_END:
            p = read_boolean(p, number, memo)
        elif number < f.NULL:
            p = skip_value(p, end, memo)
        else:
            nulls |= bit
        if p < 0:
            return _NONE


@inline_kernel
def _has(seen, number):
    return (seen >> np.uint64(number)) & _ONE


@inline_kernel
def _found(memo, number):
    return m.get(memo, m.FOUND, number)


@inline_kernel
def _found_or_zero(seen, number, memo):
    return _found(memo, number) if _has(seen, number) else _NONE


@inline_kernel
def _is_acceptable(seen, kind, log_time, memo):
    """Whether the fields found form an event that fits the topic and the log time."""
    event_type = np.int64(_found(memo, f.EVENT_TYPE))
    return (
        seen & f.REQUIRED == f.REQUIRED
        and (event_type != CLICK or _has(seen, f.IMPRESSION_ID) != 0)
        and (kind == 0 or kind == event_type)  # noqa: PLR1714
        # Subtracted from the event's time, since the log time may be near int64's end.
        and np.int64(_found(memo, f.EVENT_TIME)) - FUTURE_MS_MAX <= log_time
    )


@inline_kernel
def _is_routed(key, key_length, due, due_length, lane, partitions):
    """Whether the key is the expected one (at most 64 bytes), and belongs to the lane."""
    if key_length != due_length:
        return False
    inside = bits_below(min(due_length, 32))
    if same32(key, due) & inside != inside:
        return False
    if due_length > 32:
        inside = bits_below(due_length - 32)
        if same32(key + 32, due + 32) & inside != inside:
            return False
    return partition_of(key, key_length, partitions) == lane


@inline_kernel
def _is_longer(number, most, memo):
    """Whether a text has more than `most` bytes."""
    return np.uint64(m.get(memo, m.TEXT_LENGTH, number) > np.uint64(most))


@inline_kernel
def _flags(seen, key, key_length, lane, partitions, memo):
    """Return the bits of adledger.schemas.wire.Flag."""
    due = np.int64(m.get(memo, m.TEXT_AT, f.USER_ID))
    due_length = np.int64(m.get(memo, m.TEXT_LENGTH, f.USER_ID))
    by_ip = due_length == 0
    if by_ip:
        due = np.int64(m.get(memo, m.IP_AT, 0))
        due_length = np.int64(m.get(memo, m.IP_LENGTH, 0))
    misrouted = not _is_routed(key, key_length, due, due_length, lane, partitions)
    return (
        _has(seen, f.WIDTH) << _HAS_WIDTH
        | _has(seen, f.HEIGHT) << _HAS_HEIGHT
        | _found_or_zero(seen, f.IS_PREFETCH, memo) << _PREFETCH
        | _found_or_zero(seen, f.IS_TEST, memo) << _TEST
        | np.uint64(misrouted) << _MISROUTED
        | np.uint64(by_ip) << _KEYED_BY_IP
        | _is_longer(f.USER_AGENT, USER_AGENT_BYTES_MAX, memo) << _UA_TRUNCATED
        | _is_longer(f.PAGE_URL, PAGE_URL_BYTES_MAX, memo) << _PAGE_TRUNCATED
    )


@kernel
def decode(records, context, memo_words, status, places, out):
    """Decode n records: set status[i] to 0 and write row i of `places` and `out`, or set it to a Malformed, or UNSURE.

    records: `RecordColumns` of n rows; context: `Context`; memo_words: a new memo of as many topics as the context has;
    status: u8[n]; places: `Places`; out: `Columns`.
    """
    memo = np.int64(memo_words.ctypes.data)
    for i in range(len(status)):
        if m.get(memo, m.SLOTS_WANTING, 0) != 0:
            m.forget_names(memo, len(context.kinds))
        length = np.int64(records.value_len[i])
        value = records.value_addr[i]
        topic = np.int64(records.topic[i])
        separators = memo + m.SEPARATORS + topic * m.SEPARATORS_BYTES
        seen = _NONE
        if 2 <= length <= RECORD_BYTES_MAX:
            seen = _read_fields(value, value + length, separators, memo)
        if not _is_acceptable(seen, context.kinds[topic], records.log_time[i], memo):
            status[i] = read_again(value, length, context.kinds[topic], records.log_time[i], memo)
            if status[i] != 0:
                continue
            seen = m.get(memo, m.SEEN, 0)
        status[i] = 0
        places.ua_at[i] = np.int64(m.get(memo, m.RAW_AT, f.USER_AGENT)) - value
        places.ua_len[i] = m.get(memo, m.RAW_LENGTH, f.USER_AGENT)
        places.page_at[i] = np.int64(m.get(memo, m.RAW_AT, f.PAGE_URL)) - value
        places.page_len[i] = m.get(memo, m.RAW_LENGTH, f.PAGE_URL)
        event_type = _found(memo, f.EVENT_TYPE)
        out.event_type_code[i] = event_type
        out.event_time[i] = _found(memo, f.EVENT_TIME)
        out.publisher_id[i] = _found(memo, f.PUBLISHER_ID)
        out.site_id[i] = _found(memo, f.SITE_ID)
        out.campaign_id[i] = _found(memo, f.CAMPAIGN_ID)
        out.creative_id[i] = _found(memo, f.CREATIVE_ID)
        out.advertiser_id[i] = _found(memo, f.ADVERTISER_ID)
        out.placement_id[i] = _found_or_zero(seen, f.PLACEMENT_ID, memo)
        out.id_hash[i] = _found(memo, f.EVENT_ID)
        out.user_hash[i] = _found(memo, f.USER_ID)
        out.ua_hash[i] = _found(memo, f.USER_AGENT)
        out.page_hash[i] = _found(memo, f.PAGE_URL)
        out.impression_hash[i] = _found(memo, f.IMPRESSION_ID) if event_type == CLICK else _NONE
        out.ip_hi[i] = _found(memo, m.IP_HIGH)
        out.ip_lo[i] = _found(memo, f.IP)
        out.price_micros[i] = _found(memo, f.PRICE_MICROS)
        out.currency_code[i] = (
            _found(memo, f.CURRENCY) if _has(seen, f.CURRENCY) else context.default_currency
        )
        out.country_code[i] = _found_or_zero(seen, f.COUNTRY, memo)
        out.width_px[i] = _found_or_zero(seen, f.WIDTH, memo)
        out.height_px[i] = _found_or_zero(seen, f.HEIGHT, memo)
        out.flags[i] = _flags(
            seen,
            records.key_addr[i],
            np.int64(records.key_len[i]),
            context.lane,
            context.partitions,
            memo,
        )
