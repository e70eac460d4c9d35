"""From a record's bytes to its JSON object, or why it has none: the slow path's first step."""

from typing import Any

import orjson

from adledger.pipeline.stages.json_text import (
    Members,
    is_deeper_than,
    is_valid,
    may_be_deeper_than,
    parse,
    repeats_a_key,
)
from adledger.schemas import wire
from adledger.schemas.wire import Malformed


def object_of(value: bytes | None) -> dict[str, Any] | Malformed:
    """Return the record's object, or why it has none."""
    if not value:
        return Malformed.TOMBSTONE
    if len(value) > wire.RECORD_BYTES_MAX:
        return Malformed.TOO_LARGE
    try:
        tree = orjson.loads(value)
    except orjson.JSONDecodeError:
        return _object_of_unusual(value)
    if is_deeper_than(value, wire.NESTING_DEPTH_MAX):
        return Malformed.TOO_DEEP
    if type(tree) is not dict:
        return Malformed.NOT_AN_OBJECT
    return Malformed.REPEATED_KEY if repeats_a_key(value, tree) else tree


def _object_of_unusual(value: bytes) -> dict[str, Any] | Malformed:
    """Parse what orjson refuses: deeper JSON, lone surrogates and numbers that no double holds, or no JSON at all."""
    if may_be_deeper_than(value, wire.NESTING_DEPTH_MAX):
        if not is_valid(value):
            return Malformed.NOT_JSON
        if is_deeper_than(value, wire.NESTING_DEPTH_MAX):
            return Malformed.TOO_DEEP
    try:
        tree = parse(value)
    except ValueError:
        return Malformed.NOT_JSON
    if not isinstance(tree, Members):
        return Malformed.NOT_AN_OBJECT
    event: dict[str, Any] = dict(tree)
    return Malformed.REPEATED_KEY if len(event) < len(tree) else event
