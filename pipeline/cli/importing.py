"""`adledger import`: files of events into a log."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from adledger.pipeline.addresses import FilesAddress, KafkaAddress, SourceAddress, parse_source
from adledger.pipeline.cli import options
from adledger.pipeline.cli.importing_output import print_summary, progress_of
from adledger.pipeline.cli.output import err
from adledger.pipeline.errors import UsageError

if TYPE_CHECKING:
    from adledger.pipeline.importing.pacing import ReplayPace
    from adledger.pipeline.importing.refusing import Limits
    from adledger.pipeline.importing.target import ImportTarget
    from adledger.pipeline.settings import Settings


HELP = """Append the events of files to a log.

Events keep the order of their file. Several files are merged by event time (an impression log and a click log, say).

\b
Formats:
  wire         one JSON event per line, as producers send it; each line is written as it is
  access-log   a web server's log: combined, vhost_combined, nginx's and Apache's custom formats (--line-format), JSON lines, CloudFront, AWS load balancers; each hit is an impression
  open-bandit  the CSV of the Open Bandit Dataset; each row is an impression, and a clicked row also a click
  ipinyou      iPinYou's impression and click logs, seasons 2 and 3 (24 columns, tabs)
  talkingdata  TalkingData AdTracking's clicks (CSV); the data has no impressions

Files are examined before anything is written. A file that is not of its format is refused, with a guess at its real format. A file with too many unreadable lines, or with lines that would expire unbilled, is refused with exit code 1 and the options that help. --dry-run stops there.

Log time is the running maximum of event times in a lane, so that old events are evaluated as they would have been at the time. An unreadable line is written as it is, becomes a dead letter, and moves no watermark. A second import of a file bills nothing. A folder is created if missing; on Kafka, create the topics first (adledger topics create).

On Kafka, brokers stamp records with the present, so old events expire: import them to separate topics with log_time = record.

With --speed, the log is replayed as load: each event is written when it is due, however late earlier events were. Add --as-of-now for a live deployment's topics, or the events expire there.

\b
Examples:
  adledger import access.log.gz --format access-log --to files:data/log
  adledger import events.ndjson --format wire --to files:data/log --partitions 64
  adledger import access.log.zst --format access-log --line-format '$remote_addr [$time_iso8601] "$http_user_agent"' --dry-run --to files:data/log
  adledger import june.csv --format open-bandit --id-prefix ob-june --to files:data/log --json
  adledger import events.ndjson --format wire --to kafka://localhost:9092
  adledger import june.ndjson --format wire --to kafka://localhost:9092 --set topics=ad.june --set log_time=record
  adledger import imp.20130606.txt clk.20130606.txt --format ipinyou --speed 60 --as-of-now --to kafka://localhost:9092
"""


@options.deployment()
def import_command(
    given: options.Deployment,
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Text files, plain or compressed (gzip, bzip2, xz, zstd).")],
    *,
    format_name: Annotated[str, typer.Option("--format", metavar="NAME", help="wire, access-log, open-bandit, ipinyou or talkingdata.")],
    to: Annotated[str, typer.Option("--to", metavar="ADDRESS", help="files:DIR or kafka://HOST:PORT[,...].")],
    line_format: Annotated[str | None, typer.Option("--line-format", metavar="TEXT", help="An access log's fields: nginx's log_format or Apache's LogFormat.")] = None,
    client_field: Annotated[str | None, typer.Option("--client-field", metavar="NAME", help="The access log's field with the client's address (remote_addr).")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Examine the files, and write nothing.")] = False,
    unreadable_max: Annotated[str, typer.Option("--unreadable-max", metavar="N%", help="Refuse files with a larger share of unreadable lines; 100% accepts all.")] = "1%",
    by_time: Annotated[bool, typer.Option("--sort", help="Append in the order of event times, not of the file.")] = False,
    not_after: Annotated[str | None, typer.Option("--not-after", metavar="TIME", help="Treat later event times as wrong: their lines become dead letters (RFC 3339).")] = None,
    keep_expired: Annotated[bool, typer.Option("--keep-expired", help="Also write lines that are too late: recorded, never billed.")] = False,
    partitions: Annotated[int | None, typer.Option("--partitions", metavar="N", help="Partitions of a new folder (16).")] = None,
    id_prefix: Annotated[str | None, typer.Option("--id-prefix", metavar="TEXT", help="Prefix of event ids, for a second file of the same format.")] = None,
    speed: Annotated[str | None, typer.Option("--speed", metavar="N", help="Replay: 1 is the events' own timing, 10 is ten times as fast.")] = None,
    as_of_now: Annotated[bool, typer.Option("--as-of-now", help="With --speed: set event times to when the events are written.")] = False,
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Append the events of files to a log."""
    address = _address(to)
    pace = _pace(speed, as_of_now=as_of_now, address=address)
    settings = given.load(source=to).settings
    target = _target(address, partitions, settings)

    from adledger.pipeline.importing.formats import FormatChoice
    from adledger.pipeline.importing.run import ImportOptions, import_files

    limits = _limits(unreadable_max, not_after, settings, keep_expired=keep_expired or pace is not None)
    brokers_stamp = isinstance(address, KafkaAddress) and settings.log_time == "append"
    if pace is not None and not pace.as_of_now and brokers_stamp:
        err(
            "events keep their times, and brokers stamp them with the present: events older than "
            f"{settings.allowed_lateness_hours} hours will expire; --as-of-now moves their times"
        )
    if pace is not None and by_time:
        raise UsageError(
            "--sort and --speed contradict each other", remedy="sort the file first, or use only one of them"
        )
    with progress_of(files) as progress:
        summary = import_files(
            files,
            FormatChoice(
                name=format_name, id_prefix=id_prefix, line_format=line_format, client_field=client_field
            ),
            target,
            started_at_ms=time.time_ns() // 1_000_000,
            options=ImportOptions(
                limits=limits, by_time=by_time, pace=pace, brokers_stamp=brokers_stamp, dry_run=dry_run
            ),
            progress=progress,
        )
    print_summary(summary, to, files, as_json=as_json, dry_run=dry_run)
    if summary.refused is not None:
        raise summary.refused


import_command.__doc__ = HELP


def _address(to: str) -> SourceAddress:
    try:
        return parse_source(to)
    except ValueError as error:
        raise UsageError(
            f"--to {to}: {error}", remedy="name a folder, --to files:DIR, or brokers, --to kafka://HOST:PORT"
        ) from error


def _pace(speed: str | None, *, as_of_now: bool, address: SourceAddress) -> "ReplayPace | None":
    from adledger.pipeline.importing.pacing import ReplayPace, speed_of

    if speed is None:
        if as_of_now:
            raise UsageError("--as-of-now needs --speed", remedy="add --speed 1, or faster")
        return None
    return ReplayPace(speed=speed_of(speed), as_of_now=as_of_now, flushed=isinstance(address, FilesAddress))


def _target(address: SourceAddress, partitions: int | None, settings: "Settings") -> "ImportTarget":
    """Return the log that an address names."""
    from adledger.pipeline.importing.target import FilesTarget, OpenedTarget

    if isinstance(address, FilesAddress):
        return FilesTarget(address.directory, partitions, settings.topics)
    if partitions is not None:
        raise UsageError(
            f"--partitions {partitions}: an import creates no topics on Kafka",
            remedy="remove it, or create the topics first: adledger topics create --partitions N",
        )
    from adledger.pipeline.log.kafka.writer import KafkaLogWriter

    return OpenedTarget(lambda: KafkaLogWriter(settings, say=err))


def _limits(
    unreadable_max: str, not_after: str | None, settings: "Settings", *, keep_expired: bool
) -> "Limits":
    from adledger.pipeline.importing.refusing import Limits
    from adledger.pipeline.stages.rfc3339 import parse_ms

    latest = None if not_after is None else parse_ms(not_after)
    if not_after is not None and latest is None:
        raise UsageError(
            f"--not-after {not_after} is not a time", remedy="write it as RFC 3339: 2026-11-30T00:00:00Z"
        )
    return Limits(
        unreadable_share_max=share_of(unreadable_max),
        lateness_ms=settings.allowed_lateness_hours * 3_600_000,
        keep_expired=keep_expired,
        not_after_ms=latest,
        window_hours=settings.dedupe_window_hours,
    )


def share_of(text: str) -> float:
    """Parse a share, `5%` or `0.05`. Raises UsageError."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(
            f"--unreadable-max {text} is not a share", remedy="give 0% to 100%, or 0 to 1: 5% or 0.05"
        )
    return share
