"""`adledger periods`: close billing periods, and see how far they are closed and what a closing covered."""

import getpass
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import err, out_json
from adledger.pipeline.errors import AdledgerError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from adledger.pipeline.billing.closing import LedgerView, NextPeriod
    from adledger.pipeline.billing.plan import BillingPeriod
    from adledger.pipeline.ledger.queries import TableNames
    from adledger.pipeline.settings import Settings
    from adledger.sinks.connection import Client

periods = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)

TIME_FORMATS = ["%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%MZ"]
EVERY_LANE = "all"

Through = Annotated[
    datetime | None,
    typer.Option(formats=TIME_FORMATS, metavar="TIME", help="The last period to close, by its start (UTC)."),
]


@periods.callback()
def root() -> None:
    """Close billing periods of 15 minutes, and explain closed ones.

    \b
    Examples:
      adledger periods status
      adledger periods close
      adledger periods explain 2026-11-30T12:15
    """


@periods.command("status")
@options.deployment("clickhouse", "database")
def status(given: options.Deployment, *, as_json: options.Json = False) -> None:
    """Show how far periods are closed, and what holds the next one open.

    A period closes when every lane's watermark, by the ledger, is past its end plus period_close_delay_minutes. A lane that is halted or behind holds it open: its watermark, when it last completed a batch, and how much money waits are shown. Exit codes: 0 nothing is held, 1 a lane holds periods open that others are past.

    \b
    Examples:
      adledger periods status
      adledger periods status --json | jq '.held_by[].lane'
    """
    from adledger.pipeline.billing.closing import LedgerView
    from adledger.pipeline.billing.status import periods_status
    from adledger.pipeline.cli import periods_output as show

    with _client(given.settings) as client:
        found = periods_status(client, LedgerView.to_look(client, _tables(given.settings)))
    if as_json:
        out_json(show.status_json(found))
    else:
        show.print_status(found)
    if found.periods_waiting and found.held:
        raise typer.Exit(1)


@periods.command("close")
@options.deployment("clickhouse", "database")
def close(
    given: options.Deployment,
    *,
    through: Through = None,
    as_json: options.Json = False,
) -> None:
    """Close every period that may be closed, in order.

    Each period's sums are derived from rollup_minute and again from events; if they differ, nothing is written and the publishers and batches are named. Final sums never change. What comes later is booked as adjustments. Running it twice, or two at once, gives one result. Exit codes: 0 closed, or nothing to close; 1 a lane holds a period open, or sums differ.

    A lane that is halted or behind holds periods open: fix it, or let an operator leave it out (`adledger periods leave-out`).

    \b
    Examples:
      adledger periods close
      adledger periods close --through 2026-11-30T23:45 --json
    """
    from adledger import __version__
    from adledger.pipeline.billing.closing import LedgerView, NextPeriod, close_all
    from adledger.pipeline.cli import periods_output as show

    last = None if through is None else _period_start(through)
    closed, held = [], None
    with _client(given.settings) as client:
        for done in close_all(
            client, LedgerView.to_close(client, _tables(given.settings), __version__), __version__, last
        ):
            if isinstance(done, NextPeriod):
                held = done
                break
            closed.append(done)
            if not as_json:
                show.print_closed(done)
    stuck = held is not None and bool(held.plan.held_by) and _was_wanted(held, last)
    if as_json:
        out_json(show.closed_json(closed, held))
    else:
        show.print_held(closed, held)
    if stuck:
        raise typer.Exit(1)


@periods.command("leave-out")
@options.deployment("clickhouse", "database")
def leave_out(
    given: options.Deployment,
    lanes: Annotated[
        list[str],
        typer.Argument(metavar="LANE...", help="Lanes that hold periods open; `all`: each that does."),
    ],
    *,
    through: Annotated[
        datetime,
        typer.Option(
            formats=TIME_FORMATS,
            metavar="TIME",
            help="The last period that they are left out of, by its start (UTC).",
        ),
    ],
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; stored with the override.")],
    author: options.Author = None,
) -> None:
    """Leave lanes out of the periods that they hold open, so that these can close.

    A lane's events count up to its last batch in the ledger; what it reads later of these periods becomes adjustments, once it is back. This can't be undone. It only writes the override, which takes the operator's role; the next closing counts it. A log in a directory has no idle watermark: its last periods close only this way.

    \b
    Examples:
      adledger periods leave-out 3 --through 2026-11-30T12:15 --reason "broker lost, ticket 901"
      adledger periods leave-out all --through 2026-11-30T23:45 --reason "the log ends here"
    """
    from adledger.pipeline.billing.closing import LedgerView, next_period
    from adledger.pipeline.billing.overrides import iso, leave_out
    from adledger.pipeline.billing.plan import BillingPeriod

    last = _period_start(through)
    if not reason.strip():
        raise UsageError("--reason is empty", remedy="give a reason: it is stored with the override")
    with _client(given.settings) as client:
        view = LedgerView.to_look(client, _tables(given.settings))
        due = next_period(client, view)
        if due is None or due.plan.period.start > last:
            err(f"no period up to {iso(last)} is open")
            return
        until = BillingPeriod.at(last, view.delays)
        holding = [lane for lane in range(due.plan.partitions) if _holds(view, lane, until)]
        for lane in holding if EVERY_LANE in lanes else map(_lane_number, lanes):
            first = due.plan.period
            while first.start < last and not _holds(view, lane, first):
                first = BillingPeriod.at(first.end, view.delays)
            written = leave_out(client, view.tables, lane, first, until, reason, author or getpass.getuser())
            err(
                f"lane {lane} is left out from {iso(first.start)} to {iso(last)}, after its batch {written.batch_no}"
            )


@periods.command("explain")
@options.deployment("clickhouse", "database")
def explain(
    given: options.Deployment,
    period: Annotated[
        datetime, typer.Argument(formats=TIME_FORMATS, metavar="TIME", help="The period's start (UTC).")
    ],
    *,
    as_json: options.Json = False,
) -> None:
    """Show what a closed period's final sums cover: batches, offsets, rule sets, corrections, and whether they are intact.

    Intact: the tables still hold exactly the rows that the closing wrote, by their digest. Exit codes: 0 closed and intact; 1 not closed, altered, or closed twice with different sums.

    \b
    Examples:
      adledger periods explain 2026-11-30T12:15
      adledger periods explain 2026-11-30T12:15 --json | jq '.lanes[] | {lane, included_batch, offsets}'
    """
    from adledger.pipeline.billing.status import explain_period
    from adledger.pipeline.cli import periods_output as show

    start = _period_start(period)
    settings = given.settings
    with _client(settings) as client:
        found = explain_period(client, _tables(settings), start)
    if found is None:
        raise AdledgerError(
            f"the period {show.iso(start)} is not closed",
            remedy="`adledger periods status` shows how far periods are closed; its sums so far are in v_rollup_minute",
        )
    if as_json:
        out_json(show.explained_json(start, found, settings.topics))
    else:
        show.print_explained(start, found, settings.topics)
    if not (found.intact and found.alike):
        raise typer.Exit(1)


@contextmanager
def _client(settings: "Settings") -> "Iterator[Client]":
    """Yield a connection whose reads see, on a cluster, every row that was written."""
    from adledger.pipeline.billing.fence import consistent

    with connect.client(settings) as client:
        client.settings |= consistent(settings.cluster)
        yield client


def _tables(settings: "Settings") -> "TableNames":
    from adledger.pipeline.ledger.queries import TableNames

    return TableNames(settings.database, settings.cluster)


def _holds(view: "LedgerView", lane: int, period: "BillingPeriod") -> bool:
    return lane not in view.ends or view.ends[lane].clock <= period.closes_at


def _lane_number(text: str) -> int:
    if not text.isdigit():
        raise UsageError(f"{text} is not a lane", remedy="pass a lane's number, or `all`")
    return int(text)


def _was_wanted(held: "NextPeriod", last: int | None) -> bool:
    """Whether a period that is held open should have been closed: it was named, or other lanes are past it."""
    return last is not None or len(held.plan.held_by) < held.plan.partitions


def _period_start(time: datetime) -> int:
    """Return the period that begins at a time (ms). Raises UsageError if none does."""
    seconds = int(time.replace(tzinfo=UTC).timestamp())
    if seconds % 900:
        raise UsageError(
            f"no period begins at {time:%Y-%m-%dT%H:%M}", remedy="periods begin at :00, :15, :30 and :45, UTC"
        )
    return seconds * 1000
