"""What a line of an imported file becomes."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from adledger.schemas.wire import EventType

SHOWN_CHARS_MAX = 40
"""So much of a value that can't be read is told."""


class ParsedRecord(NamedTuple):
    """One record, before it has a partition and a log time.

    `key` is None where topic and key can't be read: then `event_type` is IMPRESSION, and the partition is 0.
    `event_time` (ms) is None where it can't be read. `problem` says where and why a line can't be understood, "" otherwise.
    """

    event_type: EventType
    key: bytes | None
    event_time: int | None
    value: bytes
    problem: str = ""


class LineFormat(Protocol):
    """How one file's lines are understood. May remember lines before (a header, a row number)."""

    def parse(self, lines: Sequence[bytes], first_line: int) -> list[ParsedRecord]:
        """Return the records of the file's next lines, the first of them having the number `first_line` (from 1).

        Blank lines give none. A line that can't be understood gives `unreadable(...)`, never an error.
        Raises UsageError only where the file as a whole is not of this format.
        """


def unreadable(line: bytes, number: int, why: Exception | str) -> ParsedRecord:
    """Return the record of a line that can't be understood: kept as it is, to be counted malformed."""
    reason = "not UTF-8" if isinstance(why, UnicodeDecodeError) else str(why)
    return ParsedRecord(EventType.IMPRESSION, None, None, line, f"line {number:,}: {reason}")
