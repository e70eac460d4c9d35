"""What a line of an imported file becomes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from adledger.schemas.wire import EventType

SHOWN_CHARS_MAX = 40
"""An error quotes this many characters of an unreadable value."""


class ParsedRecord(NamedTuple):
    """One record, before it has a partition and a log time.

    `key` is None if topic and key can't be read: then `event_type` is IMPRESSION, and the partition is 0.
    `event_time` (ms) is None if it can't be read. `problem` is the reason why a line can't be read, "" otherwise.
    `line` is its number in its file, from 1; `file` is the file's index among the imported ones.
    """

    event_type: EventType
    key: bytes | None
    event_time: int | None
    value: bytes
    problem: str = ""
    line: int = 0
    file: int = 0


class LineFormat(Protocol):
    """Reads one file's lines. May remember earlier lines (a header, a row number)."""

    def parse(self, lines: Sequence[bytes], first_line: int) -> list[ParsedRecord]:
        """Return the records of the file's next lines, which begin at number `first_line` (from 1).

        Blank lines have no record. An unreadable line becomes `unreadable(...)`, never an error.
        Raises UsageError only if the file as a whole is not of this format.
        """


class FieldError(ValueError):
    """A field of a line can't be read: its name, the value found, and what is expected."""

    def __init__(self, field: str, found: str, expected: str) -> None:
        super().__init__(f"{field} is {quoted(found)}, not {expected}")


def quoted(text: str) -> str:
    """Return a value for an error message: quoted, and truncated if it is long."""
    return repr(text) if len(text) <= SHOWN_CHARS_MAX else f"{text[:SHOWN_CHARS_MAX]!r}..."


def unreadable(line: bytes, number: int, why: Exception | str) -> ParsedRecord:
    """Return the record of an unreadable line: kept as it is, to be counted as malformed."""
    reason = "not UTF-8" if isinstance(why, UnicodeDecodeError) else str(why)
    return ParsedRecord(EventType.IMPRESSION, None, None, line, reason, number)


def whole_number(row_field: str, text: str, digits_max: int = 10) -> int:
    """Parse a field's digits as a number. Raises FieldError."""
    if not (text.isascii() and text.isdigit() and len(text) <= digits_max):
        raise FieldError(row_field, text, "a whole number")
    return int(text)
