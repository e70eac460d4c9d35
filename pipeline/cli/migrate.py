"""`adledger migrate`: migrate the database to this release's tables."""

from typing import Annotated

import typer

from adledger import __version__
from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import out, out_json


@options.deployment("clickhouse", "database")
def migrate(
    given: options.Deployment,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the statements; change nothing.")] = False,
    as_json: options.Json = False,
) -> None:
    """Migrate the database to this release's tables.

    Each migration is applied once, in order, and recorded. A migration whose file was edited after it was applied is refused. A second run does nothing.

    \b
    Examples:
      adledger migrate --clickhouse clickhouse://ads:secret@ch1:9440/?secure=1
      adledger migrate --dry-run
      adledger migrate --set cluster=ads
    """
    settings = given.settings

    from adledger.schemas import migrate as migrations
    from adledger.sinks.checks import check_version
    from adledger.sinks.periods import close_delays, refuse_other_delay

    minutes = settings.period_close_delay_minutes
    with connect.client(settings) as client:
        check_version(client)
        applied = migrations.migrate(
            client, database=settings.database, cluster=settings.cluster, release=__version__, dry_run=dry_run,
            close_delay_minutes=minutes,
        )  # fmt: skip
        if not dry_run:
            refuse_other_delay(close_delays(client, settings.database), settings.database, minutes)
    if as_json:
        steps = [{"version": a.version, "name": a.name, "statements": a.statements} for a in applied]
        out_json({"database": settings.database, "dry_run": dry_run, "applied": steps})
        return
    for step in applied:
        if dry_run:
            out(f"-- {step.version:04} {step.name}")
            out("\n".join(f"{statement};\n" for statement in step.statements))
        else:
            out(f"applied {step.version:04} {step.name}")
    if not applied:
        out(f"database {settings.database} is up to date")
