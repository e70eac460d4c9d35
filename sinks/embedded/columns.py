"""The size of a column of a Native block, so that a block's end can be found without decoding it.

A column is its type's *prefix* (for LowCardinality, wherever it is nested), then its data. Formats as in ClickHouse's
`ISerialization` and clickhouse-driver's columns.
"""

import re
from collections.abc import Callable

from adledger.sinks.embedded.buffers import Inbound
from adledger.sinks.embedded.errors import UNKNOWN_TYPE, ServerError

Walk = Callable[[Inbound, int], None]
"""Steps over the data of n rows."""

WIDTHS = {
    "Nothing": 1, "Bool": 1, "Int8": 1, "UInt8": 1, "Enum8": 1,
    "Int16": 2, "UInt16": 2, "Enum16": 2, "Date": 2, "BFloat16": 2,
    "Int32": 4, "UInt32": 4, "Float32": 4, "Date32": 4, "DateTime": 4, "IPv4": 4, "Time": 4, "Decimal32": 4,
    "Int64": 8, "UInt64": 8, "Float64": 8, "DateTime64": 8, "Time64": 8, "Decimal64": 8,
    "Int128": 16, "UInt128": 16, "UUID": 16, "IPv6": 16, "Decimal128": 16,
    "Int256": 32, "UInt256": 32, "Decimal256": 32,
}  # fmt: skip

GEO = {
    "Point": "Tuple(Float64, Float64)",
    "Ring": "Array(Point)",
    "LineString": "Array(Point)",
    "MultiLineString": "Array(LineString)",
    "Polygon": "Array(Ring)",
    "MultiPolygon": "Array(Polygon)",
}

LOW_CARDINALITY_PREFIX_BYTES = 8
_KEY_WIDTHS = (1, 2, 4, 8)
_HAS_OWN_DICTIONARY = 1 << 9

_ELEMENT_NAME = re.compile(r"(?:[A-Za-z_]\w*|`(?:[^`\\]|\\.)*`)\s+(?=\S)")


def walker(type_name: str) -> Walk:
    """Return a function that steps over a column of this type. Raises ServerError for types without a fixed form (JSON, Variant)."""
    prefixes = type_name.count("LowCardinality(") * LOW_CARDINALITY_PREFIX_BYTES
    try:
        data = _data(type_name)
    except (ValueError, IndexError, RecursionError):
        raise _unknown(type_name) from None
    if prefixes == 0:
        return data

    def prefixed(inbound: Inbound, rows: int) -> None:
        inbound.skip(prefixes)
        data(inbound, rows)

    return prefixed


def _data(type_name: str) -> Walk:
    family, _, rest = type_name.partition("(")
    arguments = split_arguments(rest[:-1]) if rest else []
    width = _width(family, arguments)
    if width is not None:
        return lambda inbound, rows: inbound.skip(width * rows)
    if family == "String":
        return skip_strings
    if family in GEO:
        return _data(GEO[family])
    if family in _COMPOSITES:
        return _COMPOSITES[family](arguments)
    raise _unknown(type_name)


def _unknown(type_name: str) -> ServerError:
    return ServerError(
        UNKNOWN_TYPE,
        f"Rows of type {type_name} can't be inserted by the native protocol of the embedded server: "
        "insert them over HTTP. (UNKNOWN_TYPE)",
    )


def _width(family: str, arguments: list[str]) -> int | None:
    if family == "FixedString":
        return int(arguments[0])
    if family == "Decimal":
        precision = int(arguments[0])
        return 4 if precision <= 9 else 8 if precision <= 18 else 16 if precision <= 38 else 32
    if family.startswith("Interval"):
        return 8
    return WIDTHS.get(family)


def split_arguments(text: str) -> list[str]:
    """Split the content of a type's parentheses at its commas, but not at those of inner types and strings."""
    found, depth, start, quoted = [], 0, 0, ""
    at = 0
    while at < len(text):
        c = text[at]
        if quoted:
            at += c == "\\"
            quoted = "" if c == quoted else quoted
        elif c in "'`":
            quoted = c
        elif c == "," and depth == 0:
            found.append(text[start:at].strip())
            start = at + 1
        else:
            depth += (c == "(") - (c == ")")
        at += 1
    return [*found, text[start:].strip()]


def skip_strings(inbound: Inbound, rows: int) -> None:
    """Step over strings: the one form that has to be walked row by row."""
    while rows:
        at, end, data = inbound.at, inbound.received, inbound.data
        while rows and at < end:
            length = data[at]
            if length < 0x80:
                behind = at + 1 + length
                if behind > end:
                    break
            elif at + 5 < end:
                behind = _behind_long(data, at)
                if behind > end:
                    break
            else:
                break
            at = behind
            rows -= 1
        inbound.at = at
        if rows:  # the next one has not fully arrived
            inbound.skip(inbound.varint())
            rows -= 1


def _behind_long(data: bytearray, at: int) -> int:
    """Return the index after a string whose length takes two to five bytes."""
    length, shift = 0, 0
    while True:
        byte = data[at]
        at += 1
        length |= (byte & 0x7F) << shift
        if byte < 0x80 or shift > 28:
            return at + length
        shift += 7


def _nullable(arguments: list[str]) -> Walk:
    inner = _data(arguments[0])

    def walk(inbound: Inbound, rows: int) -> None:
        inbound.skip(rows)
        inner(inbound, rows)

    return walk


def _array(arguments: list[str]) -> Walk:
    inner = _data(arguments[0])

    def walk(inbound: Inbound, rows: int) -> None:
        if rows:
            inbound.skip(8 * (rows - 1))
            inner(inbound, inbound.uint64())

    return walk


def _tuple(arguments: list[str]) -> Walk:
    inner = [_data(_unnamed(argument)) for argument in arguments]

    def walk(inbound: Inbound, rows: int) -> None:
        for element in inner:
            element(inbound, rows)

    return walk


def _map(arguments: list[str]) -> Walk:
    return _array([f"Tuple({', '.join(arguments)})"])


def _nested(arguments: list[str]) -> Walk:
    return _array([f"Tuple({', '.join(arguments)})"])


def _low_cardinality(arguments: list[str]) -> Walk:
    dictionary_type = arguments[0]
    if dictionary_type.startswith("Nullable("):
        dictionary_type = dictionary_type[len("Nullable(") : -1]
    dictionary = _data(dictionary_type)

    def walk(inbound: Inbound, rows: int) -> None:
        if rows == 0:
            return
        form = inbound.uint64()
        if form & _HAS_OWN_DICTIONARY:
            dictionary(inbound, inbound.uint64())
        inbound.skip(_KEY_WIDTHS[form & 3] * inbound.uint64())

    return walk


def _simple_aggregate(arguments: list[str]) -> Walk:
    return _data(arguments[-1])


def _unnamed(element: str) -> str:
    """Return the type of a tuple's element, which may have a name before it."""
    match = _ELEMENT_NAME.match(element)
    return element[match.end() :] if match else element


_COMPOSITES: dict[str, Callable[[list[str]], Walk]] = {
    "Nullable": _nullable,
    "Array": _array,
    "Tuple": _tuple,
    "Map": _map,
    "Nested": _nested,
    "LowCardinality": _low_cardinality,
    "SimpleAggregateFunction": _simple_aggregate,
}
