"""What `adledger import` prints: progress, what it wrote or would write, and the lines that are not billed."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adledger.pipeline.cli.output import err, out, out_json

if TYPE_CHECKING:
    from adledger.pipeline.importing.examining import Examination, Progress
    from adledger.pipeline.importing.run import ImportSummary

LATE_MS_MAX = 1_000
"""A replay that fell further behind than this gets a warning."""
PROGRESS_SECONDS = 10.0
"""Between two lines of progress if stderr is not a terminal."""


@contextmanager
def progress_of(files: Sequence[Path]) -> "Iterator[Progress]":
    """Yield a callback for progress: a bar if stderr is a terminal, else a line every PROGRESS_SECONDS."""
    name = files[0].name if len(files) == 1 else f"{len(files)} files"
    if not sys.stderr.isatty():
        yield _Lines(name)
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        tasks: dict[str, Any] = {}

        def show(what: str, done: int, of: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(f"{what} {name}", total=None)
            bar.update(tasks[what], completed=done, total=of or None)

        yield show


class _Lines:
    """Progress as lines."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._next = time.monotonic() + PROGRESS_SECONDS

    def __call__(self, what: str, done: int, of: int) -> None:
        if time.monotonic() < self._next or done >= of > 0:
            return
        self._next = time.monotonic() + PROGRESS_SECONDS
        err(
            f"{what} {self._name}: "
            + (f"{100 * done / of:.0f}% of {of:,} bytes" if of else f"{done:,} bytes")
        )


def print_summary(
    summary: "ImportSummary", to: str, files: Sequence[Path], *, as_json: bool, dry_run: bool
) -> None:
    """Print what was written, or would be; lines that become dead letters are named on stderr."""
    if as_json:
        out_json(_document(summary, to, dry_run=dry_run))
        return
    topics = ", ".join(f"{count:,} to {topic}" for topic, count in summary.by_topic.items())
    out(f"{summary.records:,} records {'would be ' if dry_run else ''}written to {to} ({topics})")
    if (replay := summary.replay) is not None:
        out(
            f"{replay.log_seconds:,.0f} s of the events' time in {replay.seconds:,.1f} s, at most {replay.late_ms_max:,} ms late"
        )
        if replay.late_ms_max > LATE_MS_MAX:
            err("the replay fell behind: lower --speed, or find out why the log accepts writes late")
    if summary.examined is not None and dry_run:
        _print_preview(summary.examined)
    _print_dead_letters(summary, files)


def _print_preview(examined: "Examination") -> None:
    from adledger.pipeline.importing.expiry_message import utc

    if examined.time_min is not None and examined.time_max is not None:
        out(f"event times from {utc(examined.time_min)} to {utc(examined.time_max)}")
    out(
        f"{examined.billable:,} could be billed, {examined.expiring.count:,} would expire, "
        f"{examined.unreadable + examined.malformed.total():,} would be dead letters"
    )
    for record in examined.samples[:3]:
        out(f"  line {record.line:,}: {record.value.decode(errors='replace')}")


def _print_dead_letters(summary: "ImportSummary", files: Sequence[Path]) -> None:
    from adledger.pipeline.importing.examining import in_words

    if summary.unreadable:
        err(f"{summary.unreadable:,} of them are unreadable lines, which become dead letters as they are")
        _print_problems(summary.problems, summary.unreadable)
    examined = summary.examined
    if examined is not None and examined.malformed:
        err(f"{summary.malformed:,} of them break the event contract, and become dead letters")
        _print_problems([in_words(problem, files) for problem in examined.refusals], summary.malformed)
    if summary.unreadable or summary.malformed:
        err(
            "remedy: fix these lines in the file, and import it again: lines that were imported before bill nothing, and "
            "before it writes, import names lines that are too late to be billed, and what to do with them"
        )
    if examined is not None and examined.expiring.count:
        err(f"{examined.expiring.count:,} of them are too late, and become duplicates or expired")


def _print_problems(problems: Sequence[str], count: int) -> None:
    for problem in problems:
        err(f"  {problem}")
    if count > len(problems):
        err("  ...")


def _document(summary: "ImportSummary", to: str, *, dry_run: bool) -> dict[str, Any]:
    from adledger.schemas.wire import Malformed

    examined = summary.examined
    document: dict[str, Any] = {
        "records": summary.records,
        "topics": summary.by_topic,
        "unreadable": summary.unreadable,
        "problems": summary.problems,
        "partitions": summary.partitions,
        "log": to,
        "dry_run": dry_run,
    }
    if summary.replay is not None:
        document["replay"] = asdict(summary.replay)
    if examined is not None:
        document["malformed"] = {Malformed(r).name: n for r, n in sorted(examined.malformed.items())}
        document["expiring"] = examined.expiring.count
        document["event_time_ms"] = [examined.time_min, examined.time_max]
    return document
