r"""Skipping the values of unknown fields, which are ignored but must be JSON: of any size of number, with any `\uXXXX`.

Each function returns the address after what it skipped, at most `end`, or -1 where it is not JSON (or a number reaches
`end`); `skip_value` also TOO_DEEP.
"""

import numpy as np

from adledger.pipeline.kernels import memo as m
from adledger.pipeline.kernels.intrinsics import digits16, load8, load32, load64, lowest_bit
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.kernels.text import any_end, ascii_end, unescape
from adledger.schemas.wire import NESTING_DEPTH_MAX

_QUOTE, _COMMA, _COLON, _MINUS, _PLUS, _DOT, _ZERO, _E = (ord(c) for c in '",:-+.0e')
_OPEN_OBJECT, _CLOSE_OBJECT, _OPEN_ARRAY, _CLOSE_ARRAY = (ord(c) for c in "{}[]")
_TO_LOWER = np.uint64(0x20)
_TRUE = np.uint64(int.from_bytes(b"true", "little"))
_FALSE = np.uint64(int.from_bytes(b"false", "little"))
_NULL = np.uint64(int.from_bytes(b"null", "little"))
_LOW40 = np.uint64(2**40 - 1)

_ONE = np.uint64(1)
TOO_DEEP = -2


@inline_kernel
def skip_space(p, end):
    """Return the address of the first byte in [p, end) that is not white space, or `end`."""
    while p < end:
        byte = load8(p)
        if byte != 0x20 and byte != 0x0A and byte != 0x0D and byte != 0x09:  # noqa: PLR1714
            break
        p += 1
    return p


@inline_kernel
def _skip_text(p, end, memo):
    """Skip the rest of a string."""
    stop = ascii_end(p, end)
    if stop < 0:
        stop = any_end(p, end)
        if stop < 0 or unescape(p, stop, memo + m.ROOM, True) < 0:  # noqa: FBT003
            return -1
    return stop + 1


@inline_kernel
def _skip_digits(p, end):
    while p < end:
        digits = lowest_bit(~digits16(p))
        p += digits
        if digits < 16:
            break
    return p


@inline_kernel
def _skip_number(p, end):
    if load8(p) == _MINUS:
        p += 1
    start = p
    p = _skip_digits(p, end)
    if p == start or (p - start > 1 and load8(start) == _ZERO):
        return -1
    if p < end and load8(p) == _DOT:
        start = p + 1
        p = _skip_digits(start, end)
        if p == start:
            return -1
    if p < end and load8(p) | _TO_LOWER == _E:
        sign = load8(p + 1)
        start = p + 2 if sign == _PLUS or sign == _MINUS else p + 1  # noqa: PLR1714, SIM109
        p = _skip_digits(start, end)
        if p == start:
            return -1
    return p if p <= end else -1


@inline_kernel
def _skip_scalar(p, end, memo):
    """Skip a string, a number, true, false or null that begins at p < end."""
    if load8(p) == _QUOTE:
        return _skip_text(p + 1, end, memo)
    word = load32(p)
    length = 0
    if word == _TRUE or word == _NULL:  # noqa: PLR1714, SIM109 - numba has no fast `in`
        length = 4
    elif load64(p) & _LOW40 == _FALSE:
        length = 5
    if length == 0:
        return _skip_number(p, end)
    return p + length if p + length <= end else -1


@inline_kernel
def _skip_name(p, end, memo):
    """Skip the name of a member and its colon."""
    p = skip_space(p, end)
    if p >= end or load8(p) != _QUOTE:
        return -1
    p = _skip_text(p + 1, end, memo)
    if p < 0:
        return -1
    p = skip_space(p, end)
    return p + 1 if p < end and load8(p) == _COLON else -1


@kernel
def skip_value(p, end, memo):  # noqa: PLR0911
    """Skip any value of the record's own object that begins at p < end."""
    depth = 1
    are_objects = np.uint64(0)  # one bit for each open container, the innermost the lowest
    while True:
        p = skip_space(p, end)
        if p >= end:
            return -1
        byte = load8(p)
        closed = True
        if byte == _OPEN_OBJECT or byte == _OPEN_ARRAY:  # noqa: PLR1714, SIM109
            depth += 1
            if depth > NESTING_DEPTH_MAX:
                return TOO_DEEP
            is_object = byte == _OPEN_OBJECT
            are_objects = are_objects << _ONE | np.uint64(is_object)
            p = skip_space(p + 1, end)
            closed = p < end and load8(p) == (_CLOSE_OBJECT if is_object else _CLOSE_ARRAY)
            if not closed and is_object:
                p = _skip_name(p, end, memo)
        else:
            p = _skip_scalar(p, end, memo)
        if p < 0:
            return -1
        while closed:  # a value ends at p, or there is a closing bracket
            if depth == 1:
                return p
            p = skip_space(p, end)
            if p >= end:
                return -1
            byte = load8(p)
            is_object = are_objects & _ONE != 0
            p += 1
            if byte == _COMMA:
                closed = False
                if is_object:
                    p = _skip_name(p, end, memo)
                    if p < 0:
                        return -1
            elif byte == (_CLOSE_OBJECT if is_object else _CLOSE_ARRAY):
                depth -= 1
                are_objects >>= _ONE
            else:
                return -1
