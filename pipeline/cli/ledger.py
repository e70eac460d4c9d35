"""`adledger ledger check`: check that everything adds up, from the log's offsets to every table."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import err, out, out_json, print_summary

if TYPE_CHECKING:
    from adledger.pipeline.ledger.audit import AuditReport

PROBLEMS_SHOWN_MAX = 20

ledger = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

TIME_FORMATS = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


@ledger.callback()
def root() -> None:
    """Check the ledger of batches.

    \b
    Examples:
      adledger ledger check
    """


@ledger.command("check")
@options.deployment("clickhouse", "database")
def check(
    given: options.Deployment,
    *,
    lane: Annotated[
        list[int] | None, typer.Option(metavar="N", min=0, help="Only this lane. Repeatable.")
    ] = None,
    from_batch: Annotated[int, typer.Option(metavar="N", min=0, help="The first batch number.")] = 0,
    to_batch: Annotated[int | None, typer.Option(metavar="N", min=0, help="The last batch number.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            formats=TIME_FORMATS, metavar="TIME", help="Only batches that end at or after this watermark."
        ),
    ] = None,
    until: Annotated[
        datetime | None,
        typer.Option(
            formats=TIME_FORMATS, metavar="TIME", help="Only batches that end before this watermark."
        ),
    ] = None,
    ledger_only: Annotated[bool, typer.Option("--ledger-only", help="Don't recount the tables.")] = False,
    as_json: options.Json = False,
) -> None:
    """Check that everything adds up, in every table.

    Conservation: in each batch the records received are the sum of the classes, and events, rollup_minute and
    dead_letters hold exactly these records and this money. Continuity: each batch begins where the one before
    ended. A row that was deleted, duplicated or altered is found, and its batch is named. Times are UTC.

    \b
    Examples:
      adledger ledger check --clickhouse embedded:data/clickhouse
      adledger ledger check --since 2026-03-01 --until 2026-03-02 --json
      adledger ledger check --lane 3 --from-batch 100 --to-batch 200
    """
    settings = given.settings

    from adledger.pipeline.ledger.audit import Scope, audit
    from adledger.pipeline.ledger.queries import TableNames

    scope = Scope(tuple(lane or ()), from_batch, to_batch, _milliseconds(since), _milliseconds(until))
    with connect.client(settings) as client:
        tables = TableNames(settings.database, settings.cluster)
        report = audit(client, tables, scope, recount=not ledger_only)
    _print_json(report) if as_json else _print_text(report)
    if report.problems:
        raise typer.Exit(1)


def _milliseconds(time: datetime | None) -> int | None:
    return None if time is None else int(time.replace(tzinfo=UTC).timestamp() * 1000)


def _print_json(report: "AuditReport") -> None:
    from adledger.pipeline.ledger.totals import LedgerSummary

    found = LedgerSummary(report.totals, report.conserved, report.continuous).as_json()
    problems = [
        {"kind": p.kind, "lane": p.lane, "batch_no": p.batch_no, "table": p.table, "what": p.what}
        for p in report.problems
    ]
    out_json(found | {"batches": report.batches, "problems": problems})


def _print_text(report: "AuditReport") -> None:
    from adledger.pipeline.ledger.totals import LedgerSummary

    print_summary(LedgerSummary(report.totals, report.conserved, report.continuous))
    out(f"{report.batches:,} batches checked")
    if not report.batches:
        err("the ledger has no batch in this span")
    for problem in report.problems[:PROBLEMS_SHOWN_MAX]:
        err(f"wrong: {problem}")
    if len(report.problems) > PROBLEMS_SHOWN_MAX:
        err(f"... and {len(report.problems) - PROBLEMS_SHOWN_MAX} more: --json lists them")
