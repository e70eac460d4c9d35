"""Reading the values of an event's fields. Each reader returns the address after the value, or -1 where unsure.

The result is in the memo. Readers check only the value; whether a separator follows is checked when that is read.
"""

import numpy as np

from adledger.pipeline.kernels import fields as f
from adledger.pipeline.kernels import memo as m
from adledger.pipeline.kernels.hashing import xxh64
from adledger.pipeline.kernels.intrinsics import digits16, load8, load32, load64, lowest_bit
from adledger.pipeline.kernels.ip import IPV4_MAPPED, NO_IPV4, parse_ipv4, parse_ipv6
from adledger.pipeline.kernels.jit import inline_kernel
from adledger.pipeline.kernels.numbers import digits_value
from adledger.pipeline.kernels.text import any_end, ascii_end, unescape
from adledger.pipeline.kernels.timestamps import parse_timestamp
from adledger.schemas import wire

IMPRESSION, CLICK = int(wire.EventType.IMPRESSION), int(wire.EventType.CLICK)

_QUOTE, _ZERO, _A = (ord(c) for c in '"0A')
_IMPRESS = np.uint64(int.from_bytes(b"impressi", "little"))
_ION_QUOTE = np.uint64(int.from_bytes(b'ion"', "little"))
_CLICK_QUOTE = np.uint64(int.from_bytes(b'click"', "little"))
_TRUE = np.uint64(int.from_bytes(b"true", "little"))
_FALSE = np.uint64(int.from_bytes(b"false", "little"))
_CONTINUES_MASK, _CONTINUES = np.uint64(0xC0), np.uint64(0x80)
_LOW40, _LOW48 = np.uint64(2**40 - 1), np.uint64(2**48 - 1)


@inline_kernel
def _hashed_length(at, length, number, memo):
    """Return how many bytes of a text count: all, or those up to the limit that end with a character; or -1.

    Only user agents and pages are truncated. The text is valid UTF-8.
    """
    most = np.int64(m.get(memo, m.MOST, number))
    if length <= most:
        return length if length >= np.int64(m.get(memo, m.LEAST, number)) else np.int64(-1)
    if number != f.USER_AGENT and number != f.PAGE_URL:  # noqa: PLR1714 - numba has no fast `in`
        return np.int64(-1)
    while load8(at + most) & _CONTINUES_MASK == _CONTINUES:
        most -= 1
    return most


@inline_kernel
def read_text(p, end, number, memo):
    """Read the rest of a string, hash it and record its place."""
    stop = ascii_end(p, end)
    at = p
    length = stop - p
    if stop < 0:
        stop = any_end(p, end)
        if stop < 0:
            return -1
        at = memo + m.ROOM + (m.TEXT_ROOM if number == f.USER_ID else 0)
        length = unescape(p, stop, at, False)  # noqa: FBT003
    hashed = _hashed_length(at, length, number, memo)
    if hashed < 0:
        return -1
    m.put(memo, m.FOUND, number, xxh64(at, hashed))
    m.put(memo, m.TEXT_AT, number, at)
    m.put(memo, m.TEXT_LENGTH, number, length)
    m.put(memo, m.RAW_AT, number, p)
    m.put(memo, m.RAW_LENGTH, number, stop - p)
    return stop + 1


@inline_kernel
def read_integer(p, number, memo):
    """Read an integer of at most 16 digits."""
    digits = lowest_bit(~digits16(p))
    if digits == 0 or (digits > 1 and load8(p) == _ZERO):
        return -1
    value = digits_value(p, digits)
    if value < m.get(memo, m.LEAST, number) or value > m.get(memo, m.MOST, number):
        return -1
    m.put(memo, m.FOUND, number, value)
    return p + digits


@inline_kernel
def read_timestamp(p, end, memo):
    """Read the rest of an event time that is a string."""
    stop = ascii_end(p, end)
    time = parse_timestamp(p, stop)
    if time < wire.EVENT_TIME_MS_MIN or time >= wire.EVENT_TIME_MS_MAX:
        return -1
    m.put(memo, m.FOUND, f.EVENT_TIME, time)
    return stop + 1


@inline_kernel
def read_event_type(p, memo):
    """Read the rest of `"impression"` or `"click"`."""
    word = load64(p)
    if word == _IMPRESS and load32(p + 7) == _ION_QUOTE:
        m.put(memo, m.FOUND, f.EVENT_TYPE, IMPRESSION)
        return p + 11
    m.put(memo, m.FOUND, f.EVENT_TYPE, CLICK)
    return p + 6 if word & _LOW48 == _CLICK_QUOTE else -1


@inline_kernel
def read_ip(p, end, memo):
    """Read the rest of an address."""
    stop = ascii_end(p, end)
    high = np.uint64(0)
    low = parse_ipv4(p, stop - p)
    if low == NO_IPV4:
        is_ip, high, low = parse_ipv6(p, stop - p)
        if not is_ip:
            return -1
    else:
        low |= IPV4_MAPPED
    m.put(memo, m.FOUND, f.IP, low)
    m.put(memo, m.FOUND, m.IP_HIGH, high)
    m.put(memo, m.IP_AT, 0, p)
    m.put(memo, m.IP_LENGTH, 0, stop - p)
    return stop + 1


@inline_kernel
def read_capitals(p, count, number, mask, memo):
    """Read the rest of a string of `count` capitals, each masked, as a number in base 26, plus 1."""
    code = np.uint64(0)
    for i in range(count):
        letter = (load8(p + i) & mask) - np.uint64(_A)
        if letter > 25:
            return -1
        code = code * np.uint64(26) + letter
    m.put(memo, m.FOUND, number, code + np.uint64(1))
    return p + count + 1 if load8(p + count) == _QUOTE else -1


@inline_kernel
def read_boolean(p, number, memo):
    """Read true or false."""
    word = load64(p)
    is_true = load32(p) == _TRUE
    m.put(memo, m.FOUND, number, 1 if is_true else 0)
    if is_true:
        return p + 4
    return p + 5 if word & _LOW40 == _FALSE else -1
