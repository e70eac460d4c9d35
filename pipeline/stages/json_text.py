r"""What orjson does not report about a JSON text: a repeated key, its depth, and whether one that it refuses is valid.

JSON is RFC 8259 by its grammar, in UTF-8: numbers may have any size, and `\uXXXX` may be half a surrogate pair. All
functions are linear in the text, and none recurses deeper than the measured depth of the text.
"""

import json
import re
from collections.abc import Callable, Iterator
from functools import cache
from typing import NoReturn

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_SCALARS = re.compile(_STRING + rb'|[^ \t\n\r\[\]{},:"]++', re.DOTALL)

_RUNS = re.compile(r"\[+|[\]}]+|.", re.DOTALL)
"""In the bare structure: a nested bomb is mostly runs of brackets, which are matched at once."""

# What may come next in the bare structure of a text, one character a token.
_STRING_MARK, _OTHER_MARK = "\x01", "\x02"
_NAME = _STRING_MARK
_VALUE = _OTHER_MARK + _STRING_MARK + "[{"
_END = ""

INTEGER_DIGITS_MAX = 1_000
"""An integer with more digits is read as another that is too large as well: Python's parser is quadratic."""


class Members(list[tuple[str, object]]):
    """An object as `parse` returns it: its members in order, repeated names included."""


def parse(text: bytes, parse_float: Callable[[str], float] = float) -> object:
    """Return any valid JSON text as Python values, objects as Members. Raises ValueError where it is not JSON.

    Accepts what orjson does, and also lone surrogates and numbers that no double holds (as infinity). A text that may be
    deeper than Python's recursion limit must be measured first.
    """
    return _decoder(parse_float).decode(text.decode())


@cache
def _decoder(parse_float: Callable[[str], float]) -> json.JSONDecoder:
    return json.JSONDecoder(
        object_pairs_hook=Members,
        parse_int=_integer,
        parse_float=parse_float,
        parse_constant=_refuse_constant,
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _integer(digits: str) -> int:
    if len(digits) <= INTEGER_DIGITS_MAX:
        return int(digits)
    return -(10**INTEGER_DIGITS_MAX) if digits.startswith("-") else 10**INTEGER_DIGITS_MAX


def repeats_a_key(text: bytes, tree: dict[str, object]) -> bool:
    """Whether the valid JSON object `text` has two members with the same (unescaped) name.

    `tree` is the parsed text. A parser that keeps one member of each name loses a string, the name, exactly when one is
    repeated; so counting quotes clears nearly every text, and only the rest is parsed again.
    """
    if b"\\" not in text and text.count(b'"') == 2 * _count_strings(tree):
        return False
    members = parse(text)
    assert isinstance(members, Members)
    return len({name for name, _ in members}) < len(members)


def _count_strings(tree: dict[str, object]) -> int:
    """Return the number of strings, including names, in a tree."""
    count = 0
    containers: list[object] = [tree]
    while containers:
        container = containers.pop()
        if type(container) is dict:
            count += len(container)
            children = list(container.values())
        else:
            assert type(container) is list
            children = container
        for child in children:
            if type(child) is str:
                count += 1
            elif type(child) is dict or type(child) is list:
                containers.append(child)
    return count


def is_deeper_than(text: bytes, depth_max: int) -> bool:
    """Whether more than `depth_max` objects and arrays are open at one place of the valid JSON `text`."""
    if not may_be_deeper_than(text, depth_max):
        return False
    return any(depth > depth_max for depth in _depths(text))


def depth_of(text: bytes) -> int:
    """Return how many objects and arrays are open at the deepest place of the valid JSON `text`."""
    return max(_depths(text), default=0)


def _depths(text: bytes) -> Iterator[int]:
    """Yield how many are open after each opening bracket."""
    depth = 0
    for byte in _STRINGS.sub(b"", text):
        if byte in b"[{":
            depth += 1
            yield depth
        elif byte in b"]}":
            depth -= 1


def may_be_deeper_than(text: bytes, depth_max: int) -> bool:
    """Whether the text has enough brackets for that depth."""
    return text.count(b"[") + text.count(b"{") > depth_max


def is_valid(text: bytes) -> bool:
    """Whether `text` is valid JSON, however deep: strings and numbers by `parse`, structure by a stack."""
    try:
        parse(b"[" + b",".join(_SCALARS.findall(text)) + b"]")
    except ValueError:
        return False
    return _is_sound(_structure(text))


def _is_sound(structure: str) -> bool:
    """Whether the tokens' order is valid JSON, and every bracket is closed by its counterpart."""
    closers = ""  # of the brackets that are open, the innermost last
    expect = _VALUE
    for run in _RUNS.findall(structure):
        mark = run[0]
        if mark not in expect:
            return False
        if mark == "[":
            closers += "]" * len(run)
            expect = _VALUE + "]"
        elif mark == "{":
            closers += "}"
            expect = _NAME + "}"
        elif mark == ":":
            expect = _VALUE
        elif mark == ",":
            expect = _VALUE if closers[-1] == "]" else _NAME
        elif mark == _NAME and expect.startswith(_NAME):
            expect = ":"
        else:  # a value ends here, and with brackets those around it
            if mark in "]}":
                if not closers.endswith(run[::-1]):
                    return False
                closers = closers[: -len(run)]
            expect = "," + closers[-1] if closers else _END
    return expect == _END


def _structure(text: bytes) -> str:
    """Return the text without white space, with one character for each string and each other scalar."""
    marked = _STRINGS.sub(_STRING_MARK.encode(), text)
    marked = re.sub(rb'[^ \t\n\r\[\]{},:"\x01]++', _OTHER_MARK.encode(), marked)
    return marked.translate(None, b" \t\n\r").decode("latin-1")
