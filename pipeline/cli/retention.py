"""`adledger retention`: drop old days of the tables, by the lanes' watermarks."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import err, out_json, out_table
from adledger.pipeline.errors import UsageError

if TYPE_CHECKING:
    from adledger.pipeline.retention.plan import RetentionPlan
    from adledger.pipeline.settings import Settings

retention = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@retention.callback()
def root() -> None:
    """Drop days that are older than the tables' retention.

    \b
    Examples:
      adledger retention plan
      adledger retention run --execute
    """


@retention.command("plan")
@options.deployment("source", "clickhouse", "database")
def plan(
    given: options.Deployment,
    *,
    as_json: options.Json = False,
) -> None:
    """Show which days would be dropped, and which lane holds the others back.

    Ages are measured from the watermark of the lane that is furthest behind, never from a server's clock. The settings are retention_events_days, retention_rollups_days and retention_ledger_days.

    \b
    Examples:
      adledger retention plan
      adledger retention plan --set retention_events_days=30 --json
    """
    settings = given.settings
    _report(_run(settings, executed=False), executed=False, as_json=as_json)


@retention.command("run")
@options.deployment("source", "clickhouse", "database")
def run(
    given: options.Deployment,
    *,
    days: Annotated[
        int | None,
        typer.Option(
            "--days", min=1, max=36_500, metavar="N", help="Override retention_events_days for this run."
        ),
    ] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Drop them; without it they are only shown.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Drop what `adledger retention plan` shows.

    Drops are recorded first, so that `adledger ledger check` can tell them from losses. Workers on Kafka do the same every hour if retention_enabled is set.

    \b
    Examples:
      adledger retention run --execute
      adledger retention run --days 30 --execute --json
    """
    extra = [] if days is None else [f"retention_events_days={days}"]
    if extra and any(text.startswith("retention_events_days=") for text in given.assignments):
        raise UsageError(
            "--days and --set retention_events_days contradict each other", remedy="use only one of them"
        )
    settings = given.load(*extra).settings
    _report(_run(settings, executed=execute), executed=execute, as_json=as_json)


def _run(settings: "Settings", *, executed: bool) -> "RetentionPlan":
    import asyncio

    from adledger.pipeline.lanes.inspect import inspected
    from adledger.pipeline.retention.job import planned, run_once

    async def work(server: Any) -> "RetentionPlan":
        async with inspected(settings, server) as environment:
            call = run_once if executed else planned
            return await call(settings, server, environment.source, environment.topology.partitions)

    with connect.server(settings) as server:
        return asyncio.run(work(server))


def _report(plan: "RetentionPlan", *, executed: bool, as_json: bool) -> None:
    if as_json:
        out_json({
            "executed": executed,
            "clock_ms": plan.clock_min,
            "lane": plan.lane,
            "blocked": plan.blocked or None,
            "partitions": [
                {"table": p.table, "day": p.day.isoformat(), "rows": p.rows, "bytes": p.bytes} for p in plan.drops
            ],
        })  # fmt: skip
        return
    out_table(("day", "table", "rows", "bytes"), [(p.day, p.table, p.rows, p.bytes) for p in plan.drops])
    if plan.clock_min is not None:
        from datetime import UTC, datetime

        watermark = datetime.fromtimestamp(plan.clock_min / 1000, UTC).isoformat(timespec="seconds")
        err(f"lane {plan.lane} is furthest behind: its watermark is {watermark}")
    if plan.blocked:
        err(f"nothing is dropped: {plan.blocked}")
    elif plan.drops and not executed:
        err("nothing has been dropped yet: adledger retention run --execute drops these days")
    elif plan.drops:
        err("dropped")
