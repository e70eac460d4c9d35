"""IP addresses in text, compiled: the twin is Python's ipaddress (without zone ids)."""

import numpy as np

from adledger.pipeline.kernels.intrinsics import digits16, dots16, load8, lowest_bit
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.kernels.numbers import digits_value, hex_digit

IPV4_MAPPED = np.uint64(0xFFFF_0000_0000)
NO_IPV4 = np.uint64(1) << np.uint64(32)
_IPV4_CHARS_MAX = 15
_IPV6_CHARS_MAX = 45
_COLON, _DOT = 0x3A, 0x2E
_ONE, _16, _32, _48 = (np.uint64(n) for n in (1, 16, 32, 48))


@inline_kernel
def parse_ipv4(p, length):
    """Parse `length` bytes at p; return the address (u32 in a u64), or NO_IPV4."""
    if length < 1 or length > _IPV4_CHARS_MAX:
        return NO_IPV4
    stop_bit = _ONE << np.uint64(length)
    dots = dots16(p) & (stop_bit - _ONE)
    if (digits16(p) & (stop_bit - _ONE)) | dots != stop_bit - _ONE:
        return NO_IPV4
    stops = dots | stop_bit
    address = np.uint64(0)
    start = 0
    for _ in range(4):
        stop = lowest_bit(stops)  # 64 where none is left, which is too many digits
        stops &= stops - _ONE
        digits = stop - start
        if digits < 1 or digits > 3 or (digits > 1 and load8(p + start) == 0x30):
            return NO_IPV4
        value = digits_value(p + start, digits)
        if value > 255:
            return NO_IPV4
        address = (address << np.uint64(8)) | value
        start = stop + 1
    return address if stops == 0 else NO_IPV4


@kernel
def parse_ipv6(p, length):  # noqa: PLR0911
    """Parse `length` bytes at p as an IPv6 address; return (whether they are one, its high half, its low half)."""
    invalid = False, np.uint64(0), np.uint64(0)
    high = low = np.uint64(0)  # groups are shifted in from the right
    head_high = head_low = np.uint64(0)  # those before "::"
    groups = 0
    gap = -1  # the number of groups before "::"
    end = p + length
    if length < 2 or length > _IPV6_CHARS_MAX:
        return invalid
    if load8(p) == _COLON:
        if load8(p + 1) != _COLON:
            return invalid
        gap = 0
        p += 2
    while p < end:
        group = np.uint64(0)
        digits = 0
        while digits < 4 and p + digits < end:
            digit = hex_digit(load8(p + digits))
            if digit > 15:
                break
            group = (group << np.uint64(4)) | digit
            digits += 1
        if digits == 0 or groups == 8:
            return invalid
        if p + digits < end and load8(p + digits) == _DOT:
            ipv4 = parse_ipv4(p, end - p)
            if ipv4 == NO_IPV4:
                return invalid
            high, low = (high << _32) | (low >> _32), (low << _32) | ipv4
            groups += 2
            break
        high, low = (high << _16) | (low >> _48), (low << _16) | group
        groups += 1
        p += digits
        if p == end:
            break
        if load8(p) != _COLON or p + 1 == end:
            return invalid
        p += 1
        if load8(p) == _COLON:
            if gap >= 0:
                return invalid
            gap = groups
            head_high, head_low = high, low
            high = low = np.uint64(0)
            p += 1
    if gap < 0:
        return groups == 8, high, low
    if groups > 7:
        return invalid
    for _ in range(8 - gap):
        head_high, head_low = (head_high << _16) | (head_low >> _48), head_low << _16
    return True, head_high | high, head_low | low
