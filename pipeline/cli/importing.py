"""`adledger import`: a file of events into a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adledger.pipeline.addresses import FilesAddress, SourceAddress, parse_source
from adledger.pipeline.cli import options
from adledger.pipeline.cli.output import err, out, out_json
from adledger.pipeline.errors import UsageError

if TYPE_CHECKING:
    from adledger.pipeline.importing.pacing import ReplayPace
    from adledger.pipeline.importing.run import ImportSummary, LogWriter, Progress


LATE_MS_MAX = 1_000
"""A replay that was later than this says so."""


def import_command(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Lines, plain, gzip or bzip2; several are merged by time.")],
    *,
    format_name: Annotated[str, typer.Option("--format", metavar="NAME", help="wire, access-log, open-bandit, ipinyou or talkingdata.")],
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="files:DIR or kafka://HOST:PORT[,...].")],
    partitions: Annotated[int | None, typer.Option("--partitions", metavar="N", help="Partitions of a folder that is yet to be made (16).")] = None,
    id_prefix: Annotated[str | None, typer.Option("--id-prefix", metavar="TEXT", help="Prefix of event ids: for a second file of a format.")] = None,
    speed: Annotated[str | None, typer.Option("--speed", metavar="N", help="Replay: 1 at the events' own timing, 10 ten times as fast, ...")] = None,
    as_of_now: Annotated[bool, typer.Option("--as-of-now", help="With --speed: events happen when their turn is, not back then.")] = False,
    config_file: options.Config = None,
    assignments: options.Set = None,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Append a file's events to a log, in the file's order.

    Several files are one log: they are merged by their events' times (an impression and a click log, say).

    \b
    Formats:
      wire         one JSON event a line, as producers send it; each line is written as it is
      access-log   a web server's log in Apache's combined format; each hit is an impression
      open-bandit  the CSV of the Open Bandit Dataset; each row is an impression, a clicked one also a click
      ipinyou      iPinYou's impression and click logs, seasons 2 and 3 (24 columns, tabs)
      talkingdata  TalkingData AdTracking's clicks (CSV); impressions of theirs are not in the data

    Log time is the running maximum of event times in a lane, so that old events are judged as they would have been then. A line that can't be read is written as it is and ends in the dead letters. A file imported a second time bills nothing. A folder is made where there is none; on Kafka make the topics first (adledger topics create).

    On Kafka brokers stamp what they take: old events are expired there. To judge them as of then, import to topics of their own with log_time = record.

    With --speed the log is replayed as load: each event is written when its turn is, whatever became of those before. Into a live deployment's topics add --as-of-now, or they are expired there.

    \b
    Examples:
      adledger import access.log.gz --format access-log --to files:data/log
      adledger import events.ndjson --format wire --to files:data/log --partitions 64
      adledger import june.csv --format open-bandit --id-prefix ob-june --to files:data/log --json
      adledger import events.ndjson --format wire --to kafka://localhost:9092
      adledger import june.ndjson --format wire --to kafka://localhost:9092 --set topics=ad.june --set log_time=record
      adledger import imp.20130606.txt clk.20130606.txt --format ipinyou --speed 60 --as-of-now --to kafka://localhost:9092
    """
    address = _address(to)
    pace = _pace(speed, as_of_now=as_of_now, address=address)
    open_writer = _writer(address, to, partitions, pace, config_file, assignments)

    from adledger.pipeline.importing import import_into

    with _progress(files[0] if len(files) == 1 else Path(f"{len(files)} files")) as progress:
        summary = import_into(
            files,
            format_name,
            open_writer,
            started_at_ms=time.time_ns() // 1_000_000,
            id_prefix=id_prefix,
            progress=progress,
            pace=pace,
        )
    _print(summary, to, as_json=as_json)


def _address(to: str) -> SourceAddress:
    try:
        return parse_source(to)
    except ValueError as error:
        raise UsageError(
            f"--to {to}: {error}", remedy="Name a folder, --to files:DIR, or brokers, --to kafka://HOST:PORT."
        ) from error


def _pace(speed: str | None, *, as_of_now: bool, address: SourceAddress) -> "ReplayPace | None":
    from adledger.pipeline.importing.pacing import ReplayPace, speed_of

    if speed is None:
        if as_of_now:
            raise UsageError("--as-of-now belongs to a replay", remedy="Add --speed 1, or more.")
        return None
    return ReplayPace(speed=speed_of(speed), as_of_now=as_of_now, flushed=isinstance(address, FilesAddress))


def _writer(
    address: SourceAddress,
    to: str,
    partitions: int | None,
    pace: "ReplayPace | None",
    config: Path | None,
    assignments: list[str] | None,
) -> "Callable[[], LogWriter]":
    """Return what opens the log."""
    settings = options.load_settings(config, assignments, source=to).settings
    if isinstance(address, FilesAddress):
        from adledger.pipeline.importing.run import open_log

        folder = address.directory
        return lambda: open_log(folder, partitions, settings.topics)
    if partitions is not None:
        raise UsageError(
            f"--partitions {partitions}: topics on Kafka are there before an import",
            remedy="Leave it out, or make the topics: adledger topics create --partitions N.",
        )
    from adledger.pipeline.log.kafka.writer import KafkaLogWriter

    if pace is not None and not pace.as_of_now and settings.log_time == "append":
        err(
            "events keep their times, and brokers stamp them with the present: those older than "
            f"{settings.allowed_lateness_hours} hours will expire; --as-of-now moves them"
        )
    return lambda: KafkaLogWriter(settings, say=err)


@contextmanager
def _progress(file: Path) -> "Iterator[Progress]":
    """Give what shows how far the file has been read: a bar, where stderr is a terminal."""
    if not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(file.name, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of or None)


def _print(summary: "ImportSummary", to: str, *, as_json: bool) -> None:
    if as_json:
        out_json({
            "records": summary.records,
            "topics": summary.by_topic,
            "unreadable": summary.unreadable,
            "problems": summary.problems,
            **({} if summary.replay is None else {"replay": asdict(summary.replay)}),
            "partitions": summary.partitions,
            "log": to,
        })  # fmt: skip
        return
    topics = ", ".join(f"{count:,} to {topic}" for topic, count in summary.by_topic.items())
    out(f"{summary.records:,} records written to {to} ({topics})")
    if (replay := summary.replay) is not None:
        out(
            f"{replay.log_seconds:,.0f} s of the events' time in {replay.seconds:,.1f} s, at most {replay.late_ms_max:,} ms late"
        )
        if replay.late_ms_max > LATE_MS_MAX:
            err("it fell behind its pace: lower --speed, or look why the log took it so late")
    if summary.unreadable:
        err(
            f"{summary.unreadable:,} of them are lines that can't be read: they were written as they are, and will end in the dead letters"
        )
        for problem in summary.problems:
            err(f"  {problem}")
        if summary.unreadable > len(summary.problems):
            err("  ...")
        err("remedy: mend these lines in their places and import again: what is there already bills nothing")
