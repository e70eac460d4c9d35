"""The second reading: what the fast path left is read again, member by member, and accepted or refused where that is certain.

The slow path decides about the rest: unknown names that repeat, brackets that are too deep, very many fields, and values
whose escapes the readers of `values` don't understand.
"""

import numpy as np

from adledger.pipeline.kernels import fields as f
from adledger.pipeline.kernels import memo as m
from adledger.pipeline.kernels.hashing import xxh64
from adledger.pipeline.kernels.intrinsics import load8, load32, same32
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.kernels.separators import bits_below
from adledger.pipeline.kernels.skip import TOO_DEEP, skip_space, skip_value
from adledger.pipeline.kernels.text import any_end, ascii_end, unescape
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
from adledger.schemas.wire import FUTURE_MS_MAX, RECORD_BYTES_MAX, Malformed

UNSURE = 255
"""Status of records that are left to the slow path; adledger.schemas.wire.Malformed uses lower numbers."""

_FITS, _WRONG_TYPE, _OUT_OF_RANGE, _UNSURE = range(4)
"""What is known of one value."""
_BAD_NAME, _UNKNOWN = -1, -2
"""Instead of a field's number."""

_ONE = np.uint64(1)
_QUOTE, _COMMA, _COLON, _OPEN, _CLOSE, _OPEN_ARRAY, _MINUS, _DOT, _E = (ord(c) for c in '",:{}[-.e')
_TO_LOWER = np.uint64(0x20)
_AS_SENT, _TO_UPPER = np.uint64(0xFF), np.uint64(0xDF)
_NULL = np.uint64(int.from_bytes(b"null", "little"))

_OK, _TOMBSTONE, _TOO_LARGE, _NOT_JSON, _NOT_AN_OBJECT = (
    int(Malformed.OK),
    int(Malformed.TOMBSTONE),
    int(Malformed.TOO_LARGE),
    int(Malformed.NOT_JSON),
    int(Malformed.NOT_AN_OBJECT),
)
_REPEATED_KEY, _MISSING_FIELD, _OF_WRONG_TYPE, _OF_RANGE, _WRONG_TOPIC, _FROM_THE_FUTURE = (
    int(Malformed.REPEATED_KEY),
    int(Malformed.MISSING_FIELD),
    int(Malformed.WRONG_TYPE),
    int(Malformed.OUT_OF_RANGE),
    int(Malformed.WRONG_TOPIC),
    int(Malformed.FROM_THE_FUTURE),
)


@inline_kernel
def _known(name, length, memo):
    """Return the number of the field of the contract with that name, or _UNKNOWN."""
    if length <= f.NAME_BYTES_MAX:
        inside = bits_below(length)
        for number in range(f.KNOWN_END):
            if np.int64(m.get(memo, m.NAME_LENGTHS, number)) == length:
                stored = memo + m.NAMES + number * f.NAME_BYTES_MAX
                if same32(name, stored) & inside == inside:
                    return np.int64(number)
    return np.int64(_UNKNOWN)


@kernel
def _read_name(name, end, memo):
    """Read the rest of a name, and its colon. Returns (field number, _UNKNOWN or _BAD_NAME; the name's hash; where its value begins)."""
    bad = np.int64(_BAD_NAME), np.uint64(0), np.int64(0)
    stop = ascii_end(name, end)
    at, size = name, stop - name
    if stop < 0:
        stop = any_end(name, end)
        at = memo + m.ROOM
        size = unescape(name, stop, at, True) if stop >= 0 else np.int64(-1)  # noqa: FBT003
        if size < 0:
            return bad
    p = skip_space(stop + 1, end)
    if p >= end or load8(p) != _COLON:
        return bad
    p = skip_space(p + 1, end)
    return (_known(at, size, memo), xxh64(at, size), p) if p < end else bad


@inline_kernel
def _is_new(hashed, count, memo):
    """Note an unknown name, and return whether it is the first with this hash."""
    for i in range(count):
        if m.get(memo, m.UNKNOWN_HASHES, i) == hashed:
            return False
    m.put(memo, m.UNKNOWN_HASHES, count, hashed)
    return True


@kernel
def _integer(p, stop, number, memo):
    """Examine the number [p, stop) of a field that must be an integer."""
    for at in range(p, stop):
        byte = load8(at)
        if byte == _DOT or byte | _TO_LOWER == _E:
            return _WRONG_TYPE
    if load8(p) == _MINUS:  # -0 is 0
        return _UNSURE if stop - p == 2 and load8(p + 1) == ord("0") else _OUT_OF_RANGE
    return _FITS if read_integer(p, number, memo) == stop else _OUT_OF_RANGE


@kernel
def _string(p, end, number, memo):  # noqa: PLR0911
    """Examine the valid string whose first byte is at p, of a field that may be a string."""
    if number < f.TEXTS_END:
        return _FITS if read_text(p, end, number, memo) >= 0 else _OUT_OF_RANGE
    stop = ascii_end(p, end)
    if stop < 0:
        return _UNSURE  # escapes: the readers below compare bytes
    if number == f.EVENT_TIME:
        return _FITS if read_timestamp(p, end, memo) >= 0 else _OUT_OF_RANGE
    if number == f.EVENT_TYPE:
        return _FITS if read_event_type(p, memo) == stop + 1 else _OUT_OF_RANGE
    if number == f.IP:
        return _FITS if read_ip(p, end, memo) >= 0 else _OUT_OF_RANGE
    if number == f.CURRENCY:
        return _FITS if read_capitals(p, 3, number, _AS_SENT, memo) == stop + 1 else _OUT_OF_RANGE
    if stop == p:  # of a country
        m.put(memo, m.FOUND, number, 0)
        return _FITS
    return _FITS if read_capitals(p, 2, number, _TO_UPPER, memo) == stop + 1 else _OUT_OF_RANGE


@kernel
def _value(p, stop, number, memo):
    """Examine the valid JSON value [p, stop) of a known field, which is not the null of an optional one."""
    byte = load8(p)
    if number >= f.INTEGERS_END and (f.QUOTED >> number) & 1 == 0:
        return _FITS if read_boolean(p, number, memo) == stop else _WRONG_TYPE
    if byte == _QUOTE:
        takes_string = (f.QUOTED >> number) & 1 or number == f.EVENT_TIME
        return _string(p + 1, stop, number, memo) if takes_string else _WRONG_TYPE
    if f.TEXTS_END <= number < f.INTEGERS_END and (byte == _MINUS or ord("0") <= byte <= ord("9")):
        return _integer(p, stop, number, memo)
    return _WRONG_TYPE


@kernel
def _other(p, end, memo):
    """Return why a text that does not begin with an object is malformed."""
    byte = load8(p)
    if byte == _OPEN_ARRAY or byte == _QUOTE:  # noqa: PLR1714, SIM109
        stop = skip_value(p, end, memo)
        if stop == TOO_DEEP:
            return UNSURE
        return _NOT_AN_OBJECT if stop >= 0 and skip_space(stop, end) == end else _NOT_JSON
    if byte == _MINUS or ord("0") <= byte <= ord("9"):
        stop = skip_value(p, end, memo)
        return _NOT_JSON if 0 <= stop < end and skip_space(stop, end) < end else UNSURE
    return UNSURE if byte in (ord("t"), ord("f"), ord("n")) else _NOT_JSON


@inline_kernel
def _verdict(present, nulls, wrong, out_of_range, kind, log_time, memo):
    """Return the reason of a valid object by its known fields, one bit each; OK where it has none."""
    type_bit, click_bit = _ONE << np.uint64(f.EVENT_TYPE), _ONE << np.uint64(f.IMPRESSION_ID)
    event_type = np.int64(m.get(memo, m.FOUND, f.EVENT_TYPE))
    is_click = present & ~(wrong | out_of_range) & type_bit != 0 and event_type == CLICK
    if present & f.REQUIRED != f.REQUIRED or (is_click and (present | nulls) & click_bit == 0):
        return _MISSING_FIELD
    if is_click:
        wrong |= nulls & click_bit  # it may be absent from impressions alone
    else:
        wrong &= ~click_bit
        out_of_range &= ~click_bit
    if wrong != 0:
        return _OF_WRONG_TYPE
    if out_of_range != 0:
        return _OF_RANGE
    if kind != 0 and kind != event_type:  # noqa: PLR1714
        return _WRONG_TOPIC
    late = np.int64(m.get(memo, m.FOUND, f.EVENT_TIME)) - FUTURE_MS_MAX > log_time
    return _FROM_THE_FUTURE if late else _OK


@kernel
def read_again(value, length, kind, log_time, memo):  # noqa: PLR0911
    """Return a Malformed (OK: its fields are in the memo, and one bit for each that has a value in SEEN), or UNSURE."""
    if length < 1:
        return _TOMBSTONE
    if length > RECORD_BYTES_MAX:
        return _TOO_LARGE
    end = value + length
    p = skip_space(value, end)
    if p == end:
        return _NOT_JSON
    if load8(p) != _OPEN:
        return _other(p, end, memo)
    present = nulls = wrong = out_of_range = repeated = np.uint64(0)
    unknown = 0
    p = skip_space(p + 1, end)
    if p < end and load8(p) == _CLOSE:
        return _MISSING_FIELD if skip_space(p + 1, end) == end else _NOT_JSON
    while True:
        if p >= end or load8(p) != _QUOTE:
            return _NOT_JSON
        number, hashed, p = _read_name(p + 1, end, memo)
        if number == _BAD_NAME:
            return _NOT_JSON
        stop = skip_value(p, end, memo)
        if stop < 0:
            return UNSURE if stop == TOO_DEEP else _NOT_JSON
        if number == _UNKNOWN:
            if unknown == m.UNKNOWN_MAX or not _is_new(hashed, unknown, memo):
                return UNSURE
            unknown += 1
        else:
            bit = _ONE << np.uint64(number)
            repeated |= (present | nulls) & bit
            if (f.OPTIONAL >> number) & 1 and load32(p) == _NULL:
                nulls |= bit
            else:
                present |= bit
                found = _value(p, stop, number, memo)
                if found == _UNSURE:
                    return UNSURE
                if found == _WRONG_TYPE:
                    wrong |= bit
                elif found == _OUT_OF_RANGE:
                    out_of_range |= bit
        p = skip_space(stop, end)
        if p >= end:
            return _NOT_JSON
        byte = load8(p)
        p = skip_space(p + 1, end)
        if byte == _CLOSE:
            break
        if byte != _COMMA:
            return _NOT_JSON
    if p != end:
        return _NOT_JSON
    m.put(memo, m.SEEN, 0, present)
    if repeated != 0:
        return _REPEATED_KEY
    return _verdict(present, nulls, wrong, out_of_range, kind, log_time, memo)
