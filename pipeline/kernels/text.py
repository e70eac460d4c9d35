"""JSON strings: where they end, and the text that they encode."""

import numpy as np

from adledger.pipeline.kernels.intrinsics import (
    copy32,
    load8,
    load16,
    lowest_bit,
    special32,
    special_or_high32,
    store8,
)
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.kernels.numbers import hex_digit

_QUOTE, _BACKSLASH, _SLASH, _B, _F, _N, _R, _T, _U = (ord(c) for c in '"\\/bfnrtu')
_SURROGATES, _LOW_SURROGATES, _SURROGATES_LAST = 0xD800, 0xDC00, 0xDFFF
_BACKSLASH_U = 0x755C  # "\\u", little end first


@inline_kernel
def ascii_end(p, end):
    """Return where the string that begins at p ends (its quote), or -1.

    Also -1 where it has an escape or a byte over 127: its bytes may then differ from its text.
    """
    while p < end:
        stops = special_or_high32(p)
        if stops:
            p += lowest_bit(stops)
            return p if p < end and load8(p) == _QUOTE else -1
        p += 32
    return -1


@kernel
def any_end(p, end):
    """Return where the string that begins at p ends (its quote), or -1. Its content is not checked."""
    while p < end:
        stops = special32(p)
        p += lowest_bit(stops) if stops else 32
        if stops and p < end:
            byte = load8(p)
            if byte == _QUOTE:
                return p
            if byte != _BACKSLASH:
                return -1
            p += 2
    return -1


@inline_kernel
def _hex4(p):
    """Return the value of four hexadecimal digits, or -1."""
    number = np.int64(0)
    for i in range(4):
        digit = hex_digit(load8(p + i))
        if digit > 15:
            return -1
        number = number << 4 | np.int64(digit)
    return number


@inline_kernel
def _put_utf8(out, code):
    """Write a code point as UTF-8; return where the next one goes."""
    if code < 0x80:
        store8(out, np.uint64(code))
        return out + 1
    if code < 0x800:
        store8(out, np.uint64(0xC0 | code >> 6))
    else:
        if code < 0x10000:
            store8(out, np.uint64(0xE0 | code >> 12))
        else:
            store8(out, np.uint64(0xF0 | code >> 18))
            out += 1
            store8(out, np.uint64(0x80 | (code >> 12 & 0x3F)))
        out += 1
        store8(out, np.uint64(0x80 | (code >> 6 & 0x3F)))
    out += 1
    store8(out, np.uint64(0x80 | (code & 0x3F)))
    return out + 1


@inline_kernel
def _utf8_length(p):
    """Return the length (2-4) of the UTF-8 sequence at p, which begins with a byte over 127, or 0."""
    first, second = load8(p), load8(p + 1)
    lowest, highest = np.uint64(0x80), np.uint64(0xBF)  # of the second byte: no overlong forms, no surrogates
    if 0xC2 <= first <= 0xDF:
        length = 2
    elif 0xE0 <= first <= 0xEF:
        length = 3
        if first == 0xE0:
            lowest = np.uint64(0xA0)
        elif first == 0xED:
            highest = np.uint64(0x9F)
    elif 0xF0 <= first <= 0xF4:
        length = 4
        if first == 0xF0:
            lowest = np.uint64(0x90)
        elif first == 0xF4:
            highest = np.uint64(0x8F)
    else:
        return 0
    if second < lowest or second > highest:
        return 0
    for i in range(2, length):
        if load8(p + i) & np.uint64(0xC0) != 0x80:
            return 0
    return length


@inline_kernel
def _short_escape(letter):
    """Return the byte that a backslash and this letter encode, or -1."""
    if letter in (_QUOTE, _BACKSLASH, _SLASH):
        return np.int64(letter)
    if letter == _N:
        return 0x0A
    if letter == _T:
        return 0x09
    if letter == _R:
        return 0x0D
    if letter == _B:
        return 0x08
    return 0x0C if letter == _F else -1


@inline_kernel
def _escape(p, lone):
    """Read the escape whose backslash is at p. Returns (address after it, code point); -1 where invalid.

    `lone`: half of a surrogate pair is valid too, and is returned as it is.
    """
    letter = load8(p + 1)
    if letter != _U:
        return p + 2, _short_escape(letter)
    code = _hex4(p + 2)
    if code < _SURROGATES or code > _SURROGATES_LAST:
        return p + 6, code
    low = _hex4(p + 8) if load16(p + 6) == _BACKSLASH_U else -1
    if code >= _LOW_SURROGATES or low < _LOW_SURROGATES or low > _SURROGATES_LAST:
        return p + 6, code if lone else -1
    return p + 12, 0x10000 + ((code - _SURROGATES) << 10) + (low - _LOW_SURROGATES)


@kernel
def unescape(p, end, out, lone):
    """Write the text of the string [p, end) in UTF-8 to `out`, and return its length, or -1 for an invalid string.

    `lone`: escapes of half a surrogate pair are valid; the text is then not UTF-8.

    Quotes and control characters occur between p and end only after a backslash (`any_end` ensures that). The text is
    never longer than the string; up to 32 bytes after it may be overwritten.
    """
    start = out
    while p < end:
        stops = special_or_high32(p)
        plain = min(lowest_bit(stops), 32, end - p)
        copy32(out, p)
        p += plain
        out += plain
        if stops == 0 or p >= end:
            continue
        byte = load8(p)
        if byte == _BACKSLASH:
            p, code = _escape(p, lone)
            if code < 0:
                return -1
            out = _put_utf8(out, code)
        else:
            length = _utf8_length(p) if byte > 0x7F else 0
            if length == 0:
                return -1
            copy32(out, p)
            p += length
            out += length
    return out - start if p == end else -1
