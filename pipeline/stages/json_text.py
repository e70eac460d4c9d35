"""What orjson does not tell about a JSON text: repeated keys, how deep it is, and whether a very deep one is valid.

All functions are linear in the text and never recurse, whatever the text is.
"""

import re
from collections.abc import Iterable

import orjson

_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_KEYS = re.compile(_STRING + rb"[ \t\n\r]*+:", re.DOTALL)
_TOKENS = re.compile(rb"[ \t\n\r]*+(?:([\[\]{},:])|(" + _STRING + rb'|[^ \t\n\r\[\]{},:"]++)|\Z)', re.DOTALL)

# What may come next, as the kinds of tokens that may; a string is a key where it comes first.
_KEY = '"'
_VALUE = '0"[{'
_END = "$"


def repeats_a_key(text: bytes, tree: object) -> bool:
    """Whether some object in the valid JSON `text` has two members of one (unescaped) name.

    `tree` is what the text parsed to. A parser that keeps one member of each name has lost a key exactly where
    one was repeated, so counting is enough: a string before a colon is always a key.
    """
    return len(_KEYS.findall(text)) != _count_keys(tree)


def _count_keys(tree: object) -> int:
    count = 0
    pending = [tree]
    while pending:
        node = pending.pop()
        children: Iterable[object] = ()
        if type(node) is dict:
            count += len(node)
            children = node.values()
        elif type(node) is list:
            children = node
        pending.extend(child for child in children if type(child) is dict or type(child) is list)
    return count


def is_deeper_than(text: bytes, depth_max: int) -> bool:
    """Whether more than `depth_max` objects and arrays are open at one place of the valid JSON `text`."""
    if text.count(b"[") + text.count(b"{") <= depth_max:
        return False
    depth = 0
    for byte in _STRINGS.sub(b"", text):
        if byte in b"[{":
            depth += 1
            if depth > depth_max:
                return True
        elif byte in b"]}":
            depth -= 1
    return False


def is_valid(text: bytes) -> bool:
    """Whether `text` is valid JSON, however deep: structure by a stack, strings and numbers by orjson."""
    closers: list[str] = []  # of the brackets that are open
    expect = _VALUE
    position = 0
    while (token := _TOKENS.match(text, position)) is not None:
        position = token.end()
        kind = _kind(token)
        if kind not in expect:
            return False
        if kind == _END:
            return True
        if kind == "[":
            closers.append("]")
            expect = _VALUE + "]"
        elif kind == "{":
            closers.append("}")
            expect = _KEY + "}"
        elif kind == ":":
            expect = _VALUE
        elif kind == ",":
            expect = _VALUE if closers[-1] == "]" else _KEY
        elif kind == _KEY and expect.startswith(_KEY):
            expect = ":"
        else:  # a value ends here
            if kind in "]}":
                closers.pop()
            expect = "," + closers[-1] if closers else _END
    return False


def _kind(token: re.Match[bytes]) -> str:
    """Return the bracket, comma or colon itself, _KEY for a string, 0 for another scalar, ? for neither."""
    mark, scalar = token.groups()
    if mark is not None:
        return str(mark, "ascii")
    if scalar is None:
        return _END
    try:
        orjson.loads(scalar)
    except orjson.JSONDecodeError:
        return "?"
    return _KEY if scalar.startswith(b'"') else "0"
