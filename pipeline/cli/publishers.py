"""`adledger publishers`: who is paid, for the rules UNKNOWN_PUBLISHER and PUBLISHER_SUSPENDED."""

import csv
import datetime as dt
import getpass
from pathlib import Path
from typing import Annotated

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import err, out, out_json, out_table
from adledger.pipeline.errors import UsageError

COLUMNS = ("publisher_id", "status", "name", "since")
STATUSES = ("active", "suspended")
PUBLISHER_ID_MAX = 2**32 - 1

publishers = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@publishers.callback()
def root() -> None:
    """Import and list publishers. While the table is empty, the rules that need it are not evaluated.

    \b
    Examples:
      adledger publishers import publishers.csv --reason "contracts of November"
      adledger publishers list
    """


@publishers.command("import")
@options.deployment("clickhouse", "database")
def import_(
    given: options.Deployment,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV with a header: publisher_id,status,name,since.")
    ],
    *,
    reason: options.Reason,
    author: options.Author = None,
    as_json: options.Json = False,
) -> None:
    """Import publishers; those that the file does not name stay as they are. Append-only: the newest import counts.

    status is active or suspended, since a day (2026-11-20). A file with a mistake is refused as a whole, and the error names the line.
    Workers load it within rules_poll_seconds, and use it from each lane's next batch on. Make the first import complete: from then on every other publisher is unknown. The command prints how many of those have traffic.

    \b
    Examples:
      adledger publishers import publishers.csv --author mia --reason "contracts of November"
    """
    from adledger.sinks.publishers import PublishersTable

    settings = given.settings
    rows = read_publishers(file)
    with connect.client(settings) as client:
        table = PublishersTable(client, settings.database)
        version = table.add(rows, author or getpass.getuser(), reason)
        unknown = table.unknown()
    if as_json:
        out_json({"publishers": len(rows), "version": version, "unknown_with_traffic": unknown})
    else:
        out(f"{len(rows):,} publishers imported, version {version}")
    if unknown:
        err(
            f"{unknown:,} publishers with traffic in the last day are in no import: from each lane's next batch on, "
            "UNKNOWN_PUBLISHER hits their events"
        )
        err("  remedy: import them too, or publish rules with UNKNOWN_PUBLISHER in mode flag")


@publishers.command("list")
@options.deployment("clickhouse", "database")
def list_(
    given: options.Deployment,
    *,
    as_json: options.Json = False,
) -> None:
    """List the current publishers, by id.

    \b
    Examples:
      adledger publishers list --json
    """
    from adledger.sinks.publishers import PublishersTable

    settings = given.settings
    with connect.client(settings) as client:
        rows = PublishersTable(client, settings.database).rows()
    header = (*COLUMNS, "author", "reason")
    if as_json:
        out_json({"publishers": [dict(zip(header, row, strict=True)) for row in rows]})
    else:
        out_table(header, [(str(row[0]), *row[1:]) for row in rows])


def read_publishers(path: Path) -> list[tuple[int, str, str, dt.date]]:
    """Return the rows of a CSV: id, status, name, since. Raises UsageError with the line of the first mistake."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}", remedy="pass a CSV file in UTF-8") from None
    if not lines or tuple(lines[0]) != COLUMNS:
        raise UsageError(f"{path}, line 1: not the header", remedy=f"begin the file with {','.join(COLUMNS)}")
    rows, seen = [], set()
    for number, line in enumerate(lines[1:], 2):
        try:
            publisher, status, name, since = line
            row = (int(publisher), status, name, dt.date.fromisoformat(since))
        except ValueError as error:
            raise UsageError(
                f"{path}, line {number}: {error}",
                remedy="write a line like 1042,active,Example News,2026-11-20",
            ) from None
        if status not in STATUSES or not 0 < row[0] <= PUBLISHER_ID_MAX or row[0] in seen:
            raise UsageError(
                f"{path}, line {number}: publisher {publisher} with the status {status!r}",
                remedy=f"an id is 1 to {PUBLISHER_ID_MAX}, used once; a status is one of {', '.join(STATUSES)}",
            )
        seen.add(row[0])
        rows.append(row)
    return rows
