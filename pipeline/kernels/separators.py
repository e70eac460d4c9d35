"""Separators: the bytes between two values of a record, which name the second one (`,"site_id":`).

A producer writes the same ones in every record, so the kernel compares a whole separator with the last one that followed
the same field; only where they differ does this module parse it.
"""

import numpy as np

from adledger.pipeline.kernels import fields as f
from adledger.pipeline.kernels import memo as m
from adledger.pipeline.kernels.hashing import xxh64
from adledger.pipeline.kernels.intrinsics import copy32, load8, load32, same32, store64
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.kernels.skip import skip_space
from adledger.pipeline.kernels.text import any_end, ascii_end, unescape

_ONE = np.uint64(1)
_QUOTE, _COMMA, _COLON, _OPEN, _CLOSE = (ord(c) for c in '",:{}')
_NO_TEXT = np.uint64(2**64 - 1)  # bytes that no UTF-8 text has
_NULL = np.uint64(int.from_bytes(b"null", "little"))


@inline_kernel
def bits_below(n):
    """Return a mask of n < 64 bits."""
    return (_ONE << np.uint64(n)) - _ONE


@inline_kernel
def _number_of(name, length, memo):
    """Return the number of the field with that name, a slot's number where the name is unknown, or -1."""
    inside = bits_below(length)
    for number in range(f.FIELDS_END):
        stored = memo + m.NAMES + number * f.NAME_BYTES_MAX
        known = np.int64(m.get(memo, m.NAME_LENGTHS, number))
        if known == m.FREE_SLOT:
            copy32(stored, name)
            m.put(memo, m.NAME_LENGTHS, number, length)
            return number
        if known == length and same32(name, stored) & inside == inside:
            return number
    m.put(memo, m.SLOTS_WANTING, 0, 1)
    return -1


@kernel
def _unusual_name(name, end, memo):
    """Return (address, length) of a name with escapes, bytes over 127 or many bytes, and where its string ends; -1 where invalid.

    A long name stands as a mark and its hash; where two have one hash, a field seems repeated, and the slow path decides.
    """
    stop = any_end(name, end)
    at = memo + m.ROOM
    size = unescape(name, stop, at, False) if stop >= 0 else np.int64(-1)  # noqa: FBT003
    if size < 0:
        return at, size, np.int64(-1)
    if size > f.NAME_BYTES_MAX:
        hashed = xxh64(at, size)
        store64(at, _NO_TEXT)
        store64(at + 8, hashed)
        size = np.int64(16)
    return at, size, stop


@inline_kernel
def unpack(leads_to):
    """Return (field number, with NULL added where it is null; length of the separator) from a result of `learn`."""
    return leads_to & 0xFF, leads_to >> 8


@kernel
def learn(p, end, state, row, memo):  # noqa: PLR0911
    """Read the separator at p, after the field `state`, and keep it in the row at address `row`.

    The opening quote of a field that must be a string is part of the separator, and so is the null of an optional field.
    Returns the packed result (see `unpack`), or 0 where it can't be parsed.
    """
    start = p
    p = skip_space(p, end)
    if p >= end:
        return 0
    number = f.END
    if load8(p) == _CLOSE and state != f.START:
        p += 1
    else:
        if load8(p) != (_OPEN if state == f.START else _COMMA):
            return 0
        name = skip_space(p + 1, end) + 1
        if name > end or load8(name - 1) != _QUOTE:
            return 0
        p = ascii_end(name, end)
        size = p - name
        if p < 0 or size > f.NAME_BYTES_MAX:
            name, size, p = _unusual_name(name, end, memo)
            if p < 0:
                return 0
        number = _number_of(name, size, memo)
        p = skip_space(p + 1, end)
        if number < 0 or p >= end or load8(p) != _COLON:
            return 0
        p = skip_space(p + 1, end)
        if number < f.KNOWN_END:
            if (f.OPTIONAL >> number) & 1 and load32(p) == _NULL:
                number += f.NULL
                p += 4
            elif (f.QUOTED >> number) & 1:
                if load8(p) != _QUOTE:
                    return 0
                p += 1
    length = p - start
    leads_to = number | length << 8
    if length <= m.SEPARATOR_BYTES_MAX:
        copy32(row, start)
        store64(row + m.ROW_MASK, bits_below(length))
        store64(row + m.ROW_LEADS_TO, np.uint64(leads_to))
    return leads_to
