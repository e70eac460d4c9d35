"""`adledger import`: a file of events into a log."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.addresses import FilesAddress, SourceAddress, parse_source
from pipeline.cli import options
from pipeline.cli.output import err, out, out_json
from pipeline.errors import UsageError

if TYPE_CHECKING:
    from pipeline.importing.run import ImportSummary, LogWriter, Progress


def import_command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What to import: lines, plain or gzip.")],
    *,
    format_name: Annotated[
        str,
        typer.Option(
            "--format", metavar="NAME", help="wire, access-log, open-bandit, ipinyou or talkingdata."
        ),
    ],
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="files:DIR or kafka://HOST:PORT[,...].")],
    partitions: Annotated[
        int | None,
        typer.Option("--partitions", metavar="N", help="Partitions of a folder that is yet to be made (16)."),
    ] = None,
    id_prefix: Annotated[
        str | None,
        typer.Option(
            "--id-prefix", metavar="TEXT", help="Prefix of event ids: for a second file of a format."
        ),
    ] = None,
    config_file: options.Config = None,
    assignments: options.Set = None,
    as_json: options.Json = False,
) -> None:
    """Append a file's events to a log, in the file's order.

    \b
    Formats:
      wire         one JSON event a line, as producers send it; each line is written as it is
      access-log   a web server's log in Apache's combined format; each hit is an impression
      open-bandit  the CSV of the Open Bandit Dataset; each row is an impression, a clicked one also a click
      ipinyou      iPinYou's impression and click logs, seasons 2 and 3 (24 columns, tabs)
      talkingdata  TalkingData AdTracking's clicks (CSV); impressions of theirs are not in the data

    Log time is the running maximum of event times in a lane, so that old events are judged as they would have been then. A line that can't be read is written as it is and ends in the dead letters. A file imported a second time bills nothing. A folder is made where there is none; on Kafka make the topics first (adledger topics create).

    On Kafka brokers stamp what they take: old events are expired there. To judge them as of then, import to topics of their own with log_time = record.

    \b
    Examples:
      adledger import access.log.gz --format access-log --to files:data/log
      adledger import events.ndjson --format wire --to files:data/log --partitions 64
      adledger import june.csv --format open-bandit --id-prefix ob-june --to files:data/log --json
      adledger import events.ndjson --format wire --to kafka://localhost:9092
      adledger import june.ndjson --format wire --to kafka://localhost:9092 --set topics=ad.june --set log_time=record
    """
    open_writer = _writer(_address(to), to, partitions, config_file, assignments)

    from pipeline.importing import import_into

    with _progress(file) as progress:
        summary = import_into(
            file,
            format_name,
            open_writer,
            started_at_ms=time.time_ns() // 1_000_000,
            id_prefix=id_prefix,
            progress=progress,
        )
    _print(summary, to, as_json=as_json)


def _address(to: str) -> SourceAddress:
    try:
        return parse_source(to)
    except ValueError as error:
        raise UsageError(
            f"--to {to}: {error}", remedy="Name a folder, --to files:DIR, or brokers, --to kafka://HOST:PORT."
        ) from error


def _writer(
    address: SourceAddress,
    to: str,
    partitions: int | None,
    config: Path | None,
    assignments: list[str] | None,
) -> "Callable[[], LogWriter]":
    """Return what opens the log."""
    settings = options.load_settings(config, assignments, source=to).settings
    if isinstance(address, FilesAddress):
        from pipeline.importing.run import open_log

        folder = address.directory
        return lambda: open_log(folder, partitions, settings.topics)
    if partitions is not None:
        raise UsageError(
            f"--partitions {partitions}: topics on Kafka are there before an import",
            remedy="Leave it out, or make the topics: adledger topics create --partitions N.",
        )
    from pipeline.log.kafka.writer import KafkaLogWriter

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
            "partitions": summary.partitions,
            "log": to,
        })  # fmt: skip
        return
    topics = ", ".join(f"{count:,} to {topic}" for topic, count in summary.by_topic.items())
    out(f"{summary.records:,} records written to {to} ({topics})")
    if summary.unreadable:
        err(f"{summary.unreadable:,} of them are lines that can't be read: they will end in the dead letters")
