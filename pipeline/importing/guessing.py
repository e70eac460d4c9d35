"""Guesses the real format of a file that does not match the chosen one, and what to do about it."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import orjson

from adledger.pipeline.errors import UsageError
from adledger.pipeline.importing.formats import ACCESS_LOG, FORMATS, FormatChoice, reader_of

COLUMNS_SHOWN = 8
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
"""A JSON string, or the rest of a line that ends within one."""
_ACCESS_TIME = re.compile(rb"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]")
COMBINED = '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"'
"""nginx's combined format, as a starting point for a custom one."""
SERVER_FIRST = COMBINED.replace("$remote_addr -", "$server_addr $remote_addr -", 1)

_KNOWN_COLUMNS: tuple[tuple[set[str], str, str], ...] = (
    ({"id", "click", "hour", "banner_pos"}, "Avazu's click-through data, which has no prices", ""),
    ({"click_time", "channel"}, "TalkingData's clicks", "talkingdata"),
    ({"timestamp", "item_id"}, "the Open Bandit Dataset", "open-bandit"),
    ({"bidid", "timestamp"}, "an iPinYou log", "ipinyou"),
)
"""Columns of known data sets, the data set, and the format that reads it."""


class Guess(NamedTuple):
    """What a file seems to be, and the remedy."""

    what: str
    remedy: str


def guess(lines: Sequence[bytes], name: str) -> Guess | None:
    """Return what a file seems to be by its first lines, which are not of the format `name`; None if there is no guess."""
    filled = [line for line in lines if line.strip()]
    if not filled:
        return None
    for other in FORMATS:
        if other != name and _reads_most(filled, other):
            return Guess(f"{other}: {FORMATS[other].description}", f"Add --format {other}.")
    return guess_layout(filled) or _objects(filled) or _access(filled, name) or _table(filled, name)


def _reads_most(lines: Sequence[bytes], name: str) -> bool:
    try:
        records = reader_of(FormatChoice(name=name)).parse(lines, 1)
    except UsageError:
        return False
    return 2 * sum(not record.problem for record in records) > len(records)


def guess_layout(lines: Sequence[bytes]) -> Guess | None:
    """Return what a file of JSON seems to be that does not have one object a line, by its first lines, none of them blank."""
    first = lines[0].strip()
    if first.startswith(b"["):
        if _ACCESS_TIME.match(first):
            return None
        return Guess(
            "one JSON array", "Write one object per line: jq -c '.[]' FILE | adledger import /dev/stdin ..."
        )
    if first == b"{" or (first.startswith(b"{") and len(lines) > 1 and _goes_on(first, lines[1].strip())):
        return Guess(
            "JSON over several lines",
            "Write one object per line: jq -c . FILE | adledger import /dev/stdin ...",
        )
    return None


def _goes_on(first: bytes, following: bytes) -> bool:
    """Whether the following line continues the object of the first one, which a torn line's successor does not."""
    bare = _STRING.sub(b"", first)
    if bare.count(b"{") + bare.count(b"[") <= bare.count(b"}") + bare.count(b"]"):
        return False
    return not following.startswith(b"{") or first.endswith(b"[")


def _objects(lines: Sequence[bytes]) -> Guess | None:
    first = lines[0].strip()
    if _is_object(first):
        names = ", ".join(list(orjson.loads(first))[:COLUMNS_SHOWN])
        return Guess(
            f"JSON lines with the fields {names}" if names else "JSON lines without fields",
            "Events need event_type, event_id, event_time, user_id, ip and the others of docs/events.md; rename the fields with "
            "jq, or name the client of an access log with --format access-log --client-field NAME.",
        )
    return None


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(orjson.loads(line), dict)
    except orjson.JSONDecodeError:
        return False


def _access(lines: Sequence[bytes], name: str) -> Guess | None:
    if sum(_ACCESS_TIME.search(line) is not None for line in lines) * 2 > len(lines):
        add = "" if name == ACCESS_LOG else f"--format {ACCESS_LOG} "
        return Guess(
            "a web server's log with other fields than combined",
            f"Name them as the server's configuration does: {add}--line-format '{COMBINED}'; if a server's address comes "
            f"first, --line-format '{SERVER_FIRST}'.",
        )
    if lines[0].startswith(b"#") and any(line.startswith(b"#Fields:") for line in lines):
        return Guess("a W3C log of a server other than CloudFront (IIS?)", _CONVERT)
    return None


_CONVERT = "Convert it to wire: one JSON event per line, with the fields of docs/events.md."


def _table(lines: Sequence[bytes], name: str) -> Guess | None:
    """Return a guess at a table: its separator occurs equally often in each line."""
    texts = [line.decode(errors="replace") for line in lines]
    for separator, called in ((",", "commas"), ("\t", "tabs"), (";", "semicolons"), ("|", "bars")):
        counts = {text.count(separator) for text in texts}
        if len(counts) == 1 and (count := counts.pop()) > 1:
            columns = [name.strip('" ') for name in texts[0].split(separator)]
            known, format_name = next(
                (found[1:] for found in _KNOWN_COLUMNS if found[0] <= set(columns)), ("", "")
            )
            if format_name == name:
                return None  # the message already names the wrong columns
            names = ", ".join(columns[:COLUMNS_SHOWN]) + (", ..." if len(columns) > COLUMNS_SHOWN else "")
            what = f"a table of {count + 1} columns separated by {called} ({names})"
            return Guess(f"{what}: {known}" if known else what, _CONVERT)
    return None
