"""`adledger run`: a worker."""

from typing import Annotated

import typer

from pipeline.cli import options
from pipeline.cli.output import err, out_json, print_summary
from pipeline.errors import UsageError


def run(
    *,
    source: options.Source = None,
    clickhouse: options.ClickHouse = None,
    database: options.Database = None,
    group: options.Group = None,
    until_caught_up: Annotated[
        bool, typer.Option("--until-caught-up", help="End when the ledger has reached the log's end of now.")
    ] = False,
    config_file: options.Config = None,
    assignments: options.Set = None,
    as_json: options.Json = False,
) -> None:
    """Run a worker, from the log to ClickHouse.

    It reads the log's lanes and writes events, rollups and the ledger. It makes missing tables, goes on where the ledger ends, and stops cleanly on SIGTERM or Ctrl-C. With
    --until-caught-up it ends by itself, prints the totals of the whole ledger, and exits with 1 if they don't add up.

    \b
    Examples:
      adledger run --source files:data/log --clickhouse embedded:data/clickhouse --until-caught-up
      adledger run --source files:data/log --clickhouse clickhouse://ads@ch1:9000 --set batch_age_ms_max=500
      adledger run --config adledger.toml --until-caught-up --json
    """
    if as_json and not until_caught_up:
        raise UsageError(
            "--json without --until-caught-up has nothing to report", remedy="give both, or neither"
        )
    settings = options.load_settings(
        config_file, assignments, source=source, clickhouse=clickhouse, database=database, group=group
    ).settings

    from pipeline.lanes.start import run_worker

    summary = run_worker(settings, until_caught_up=until_caught_up, progress=err)
    if summary is None:
        return
    out_json(summary.as_json()) if as_json else print_summary(summary)
    if not (summary.conserved and summary.continuous):
        raise typer.Exit(1)
