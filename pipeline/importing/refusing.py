"""What an import refuses before it writes anything: files that don't match their format, and events that would be lost.

Each refusal names what was found, with file and line, and what to do; `Limits` are the overrides.
"""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from adledger.pipeline.errors import AdledgerError, UsageError
from adledger.pipeline.importing.checking import RecordCheck
from adledger.pipeline.importing.containers import HEAD_BYTES, foreign
from adledger.pipeline.importing.examining import Examination, LineProblem, in_words, why_malformed
from adledger.pipeline.importing.expiring import Expiring
from adledger.pipeline.importing.expiry_message import HOUR_MS, expiry, ways_out
from adledger.pipeline.importing.formats import FORMATS, WIRE, FormatChoice, reader_of
from adledger.pipeline.importing.guessing import guess
from adledger.pipeline.importing.in_log import count_in_log
from adledger.pipeline.importing.lines import read_head
from adledger.pipeline.importing.target import TargetView

FIRST_LINES = 100
"""If none of these first lines (or of all, if there are fewer) is an event, the file is not of the format."""
UNREADABLE_SHARE_MAX = 0.01
MALFORMED_SHARE_MAX = 0.5
"""The limit is higher for readable lines that break the contract: producers' errors are counted, and never billed."""
FIRST_PROBLEMS_SHOWN = 3
WITH_COLUMNS = ("open-bandit", "ipinyou", "talkingdata")
"""Formats of data sets whose columns are known."""
_UTF8_BOM = b"\xef\xbb\xbf"


class ImportRefused(AdledgerError):  # noqa: N818 - an outcome
    """Nothing was written: too many lines would be dead letters, or lines would expire unbilled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What an import accepts.

    `unreadable_share_max`: the share of unreadable lines; 1 accepts any file. `lateness_ms`: how far behind its lane's
    watermark an event may be, None if none expires. `keep_expired`: also write events that will expire. `not_after_ms`:
    later event times are invalid. `window_hours`: the dedupe window, which may not be shorter than the lateness.
    """

    unreadable_share_max: float = UNREADABLE_SHARE_MAX
    lateness_ms: int | None = 24 * HOUR_MS
    keep_expired: bool = False
    not_after_ms: int | None = None
    window_hours: int = 24


def check_heads(
    paths: Sequence[Path], named: Sequence[Path], choice: FormatChoice, limits: Limits, latest_ms: int
) -> None:
    """Refuse files whose first lines are not of the format, with a guess at what they are. Raises UsageError."""
    for path, name in zip(paths, named, strict=True):
        head = b"" if path.is_fifo() or path.is_char_device() else read_head(path, HEAD_BYTES)
        found = foreign(head)
        if found is not None:
            raise UsageError(
                f"{name} is {found.what}, not lines of text; nothing was written",
                remedy=found.remedy.replace("FILE", shlex.quote(str(name))),
            )
        if limits.unreadable_share_max < 1:
            _check_first_lines(name, _whole_lines(head), choice, RecordCheck(latest_ms), latest_ms)


def _whole_lines(head: bytes) -> list[bytes]:
    lines = head.removeprefix(_UTF8_BOM).split(b"\n")
    if len(head) >= HEAD_BYTES:
        lines.pop()
    return [line.removesuffix(b"\r") for line in lines]


def _check_first_lines(
    name: Path, lines: Sequence[bytes], choice: FormatChoice, check: RecordCheck, latest_ms: int
) -> None:
    try:
        parsed = reader_of(choice).parse(lines, 1)[:FIRST_LINES]
    except UsageError as error:  # a header of other columns
        raise _other_format(
            f"{name}: {error.message}; nothing was written", error.remedy, name, lines, choice
        ) from None
    records, malformed = check.checked(parsed)
    is_array = choice.name == WIRE and re.match(rb"\s*\[\s*\{", b"".join(lines[:2]))
    if not records or (len(malformed) < len(records) and not is_array):
        return
    if is_array:  # its last element, which no comma follows, may be an event
        message = f"{name} is not of the format {WIRE}; nothing was written"
        raise _other_format(message, "Write one event per line.", name, lines, choice)
    subject = f"none of its first {len(records):,} lines is" if len(records) > 1 else "its only line is not"
    message = f"{name} is not of the format {choice.name}: {subject} an event; nothing was written"
    for i, record in enumerate(records[:FIRST_PROBLEMS_SHOWN]):
        why = record.problem or why_malformed(record, malformed[i], latest_ms)
        message += f"\n  {name}, line {record.line:,}: {why}"
    remedy = (
        "Import the original file, or change the columns named above to what is expected."
        if choice.name in WITH_COLUMNS
        else f"Name its format ({', '.join(FORMATS)}), or convert it to wire: one JSON event per line."
    )
    raise _other_format(message, remedy, name, lines, choice)


def _other_format(
    message: str, remedy: str, name: Path, lines: Sequence[bytes], choice: FormatChoice
) -> UsageError:
    """Return the error for a file that is not of its format, with a guess at its real one, if there is one."""
    guessed = guess(lines, choice.name)
    if guessed is None:
        return UsageError(message, remedy=remedy)
    return UsageError(
        f"{message}\n  it looks like {guessed.what}",
        remedy=guessed.remedy.replace("FILE", shlex.quote(str(name))),
    )


def refusal(
    examined: Examination,
    limits: Limits,
    view: TargetView,
    named: Sequence[Path],
    *,
    by_time: bool,
    brokers_stamp: bool,
) -> ImportRefused | None:
    """Return why nothing may be written, too many dead letters or lines lost by expiry; None if the import may go on.

    Raises LogError if the log can't be searched for lines that it has already.
    """
    most = limits.unreadable_share_max
    malformed = examined.malformed.total()
    for count, share_max, what, problems in (
        (examined.unreadable, most, "can't be read", examined.problems),
        (malformed, max(most, MALFORMED_SHARE_MAX), "will be malformed", examined.refusals),
    ):
        if count > share_max * examined.records:
            return _too_many(examined.records, count, share_max, what, problems, named)
    if limits.keep_expired or limits.lateness_ms is None:
        return None
    in_log = _count_in_log(examined.expiring, view)
    if in_log == examined.expiring.count:
        return None
    found = expiry(examined, in_log, named, lateness_ms=limits.lateness_ms, brokers_stamp=brokers_stamp)
    ways = ways_out(
        examined.expiring, by_time=by_time, brokers_stamp=brokers_stamp, window_hours=limits.window_hours
    )
    return ImportRefused(f"{found}\n  nothing was written", remedy=ways)


def _count_in_log(expiring: Expiring, view: TargetView) -> int:
    """Return how many of the records that would expire are in the log already; 0 if that can't be looked up."""
    if not expiring.count or view.folder is None or not expiring.tracked:
        return 0
    return count_in_log(view.folder, expiring.hashes)


def _too_many(
    records: int, count: int, most: float, what: str, problems: Sequence[LineProblem], named: Sequence[Path]
) -> ImportRefused:
    percent = 100 * count / records
    return ImportRefused(
        f"{count:,} of {records:,} lines ({percent:.3g}%) {what}, more than {100 * most:g}%; nothing was written"
        + "".join(f"\n  {in_words(problem, named)}" for problem in problems)
        + ("\n  ..." if count > len(problems) else ""),
        remedy="fix these lines in place (ids count lines) and import the file; "
        f"or accept them as dead letters: --unreadable-max {ceil(percent)}%",
    )
