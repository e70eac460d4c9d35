"""`adledger query`: SQL, with ClickHouse's own output formats."""

import sys
from typing import Annotated

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import out_bytes
from adledger.pipeline.errors import UsageError


@options.deployment("clickhouse", "database")
def query(
    given: options.Deployment,
    sql: Annotated[str, typer.Argument(metavar="SQL", help="The statement; - reads it from stdin.")],
    *,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="Any ClickHouse format (default: PrettyCompact on a terminal, else TabSeparated).",
        ),
    ] = None,
    write: Annotated[bool, typer.Option("--write", help="Allow the statement to change something.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format JSON.")] = False,
) -> None:
    """Run SQL, with ClickHouse's own output formats.

    Queries are read-only: a statement that changes something needs --write.

    The result comes over ClickHouse's HTTP port (8123, or 8443 with secure=1; http_port=... in the address changes it). With
    embedded:DIR, the query goes to the server that runs there; if none runs, one is started for the query.

    \b
    Examples:
      adledger query "SELECT class, count() FROM events GROUP BY class" --clickhouse embedded:data/clickhouse
      adledger query "SELECT * FROM v_rollup_minute LIMIT 3" --format Vertical
      adledger query "SELECT publisher_id, sum(money) FROM v_rollup_minute GROUP BY 1" --format CSVWithNames > money.csv
      adledger query - < report.sql
    """
    if as_json and output_format not in (None, "JSON"):
        raise UsageError(f"--json contradicts --format {output_format}", remedy="use only one of them")
    text = sys.stdin.read() if sql == "-" else sql
    chosen = output_format or (
        "JSON" if as_json else "PrettyCompact" if sys.stdout.isatty() else "TabSeparated"
    )
    loaded = given.load()

    from adledger.pipeline.cli.http_query import run_query

    with connect.server(loaded.settings) as address:
        for piece in run_query(
            address, text, database=loaded.settings.database, output_format=chosen, write=write
        ):
            out_bytes(piece)
