"""`adledger run`: a worker."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import options
from adledger.pipeline.cli.output import err, out_json, print_summary
from adledger.pipeline.cli.remedies import command_flags, completed
from adledger.pipeline.errors import UsageError

if TYPE_CHECKING:
    from adledger.pipeline.ledger.totals import LedgerSummary
    from adledger.pipeline.settings import Settings

LogLevel = Annotated[
    str | None,
    typer.Option(
        "--loglevel", "-l", metavar="LEVEL", help="Kafka: CRIT, ERROR, WARN, INFO (default) or DEBUG."
    ),
]
LogFile = Annotated[
    Path | None,
    typer.Option("--logfile", "-f", metavar="FILE", help="Kafka: log to this file, not to stderr."),
]
LogFormat = Annotated[
    str | None,
    typer.Option(
        "--log-format",
        metavar="FORMAT",
        help="Kafka: log lines as logfmt (default) or as json, with the same keys.",
    ),
]
WebHost = Annotated[
    str | None,
    typer.Option("--web-host", metavar="ADDRESS", help="Kafka: the address that the pages listen on."),
]
WebPort = Annotated[
    int | None,
    typer.Option(
        "--web-port", "-p", metavar="PORT", help="Kafka: the pages' port (6066); 0 takes a free one."
    ),
]
WithWeb = Annotated[bool, typer.Option("--with-web/--without-web", help="Kafka: whether to serve the pages.")]
BlockingTimeout = Annotated[
    float | None,
    typer.Option(
        "--blocking-timeout",
        metavar="SECONDS",
        help="Kafka: log where the event loop blocks for this long.",
    ),
]
"""Faust's names for a worker's options."""


@options.deployment("source", "clickhouse", "database", "group")
def run(
    given: options.Deployment,
    *,
    until_caught_up: Annotated[
        bool,
        typer.Option("--until-caught-up", help="Exit when the ledger reaches the current end of the log."),
    ] = False,
    loglevel: LogLevel = None,
    logfile: LogFile = None,
    log_format: LogFormat = None,
    web_host: WebHost = None,
    web_port: WebPort = None,
    with_web: WithWeb = True,
    blocking_timeout: BlockingTimeout = None,
    as_json: options.Json = False,
) -> None:
    """Run a worker, from the log to ClickHouse.

    It reads the log's lanes and writes events, rollups and the ledger. It creates missing tables, continues where the ledger ends, and stops cleanly on SIGTERM or Ctrl-C. With
    --until-caught-up it exits when it has caught up, prints the totals of the whole ledger, and exits with 1 if they don't add up.
    On Kafka it is a worker of the Faust app (`faust -A adledger.pipeline.app worker` is the same): start any number of them.

    \b
    Examples:
      adledger run --source files:data/log --clickhouse embedded:data/clickhouse --until-caught-up
      adledger run --source kafka://k1:9092,k2:9092 --clickhouse clickhouse://ads@ch1:9000
      adledger run --source kafka://localhost --web-port 0 --loglevel warn
      adledger run --config adledger.toml --until-caught-up --json
    """
    if as_json and not until_caught_up:
        raise UsageError(
            "--json without --until-caught-up has nothing to report", remedy="use both, or neither"
        )
    loaded = given.load(web_host=web_host, web_port=web_port, log_format=log_format)

    faust = {
        "loglevel": loglevel, "logfile": logfile, "with_web": with_web, "blocking_timeout": blocking_timeout,
    }  # fmt: skip
    with completed(command_flags(loaded, given.config_file)):
        summary = _run(loaded.settings, faust, log_format=log_format, until_caught_up=until_caught_up)
    if summary is None:
        return
    out_json(summary.as_json()) if as_json else print_summary(summary)
    if not (summary.conserved and summary.continuous):
        raise typer.Exit(1)


def _run(
    settings: "Settings", faust: dict[str, Any], *, log_format: str | None, until_caught_up: bool
) -> "LedgerSummary | None":
    from adledger.pipeline.addresses import FilesAddress

    if not isinstance(settings.source, FilesAddress):
        from adledger.pipeline.app import run_app

        return run_app(settings, until_caught_up=until_caught_up, **faust)
    given = [name for name, value in {**faust, "log_format": log_format}.items() if value not in {None, True}]
    if given:
        raise UsageError(
            f"{', '.join(given).replace('with_web', 'without-web').replace('_', '-')}: options of a worker on Kafka",
            remedy="remove them: a files: log has no Faust app, pages or log file",
        )
    from adledger.pipeline.billing.timer import run_closings
    from adledger.pipeline.lanes.start import run_worker

    return run_worker(settings, until_caught_up=until_caught_up, progress=err, beside=run_closings)
