"""`adledger periods`: close billing periods, and see how far they are closed and what a closing covered."""

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from adledger.pipeline.cli import connect, options
from adledger.pipeline.cli.output import err, out_json
from adledger.pipeline.errors import AdledgerError, UsageError

if TYPE_CHECKING:
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
WithoutLane = Annotated[
    list[str] | None,
    typer.Option(
        "--without-lane",
        metavar="N",
        help="Leave out a lane that holds periods open, up to --through; `all`: each that does. Repeatable.",
    ),
]
Reason = Annotated[
    str,
    typer.Option("--reason", metavar="TEXT", help="With --without-lane: why; stored with the override."),
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

    with connect.client(given.settings) as client:
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
    without_lane: WithoutLane = None,
    reason: Reason = "",
    author: options.Author = None,
    as_json: options.Json = False,
) -> None:
    """Close every period that may be closed, in order.

    Each period's sums are derived from rollup_minute and again from events; if they differ, nothing is written and the publishers and batches are named. Final sums never change. What comes later is booked as adjustments. Running it twice, or two at once, gives one result. Exit codes: 0 closed, or nothing to close; 1 a lane holds a period open, or sums differ.

    With --without-lane the lane's events count up to its last batch in the ledger; what it reads later of these periods becomes adjustments. A log in a directory has no idle watermark: its last periods close only this way.

    \b
    Examples:
      adledger periods close
      adledger periods close --through 2026-11-30T23:45 --json
      adledger periods close --through 2026-11-30T12:15 --without-lane 3 --reason "broker lost, ticket 901"
    """
    from adledger import __version__
    from adledger.pipeline.billing.closing import LedgerView, NextPeriod, close_all
    from adledger.pipeline.cli import periods_output as show

    last = None if through is None else _period_start(through)
    if without_lane:
        _check_override(last, reason)
    closed, held = [], None
    with connect.client(given.settings) as client:
        if without_lane and last is not None:
            _leave_out(client, given.settings, without_lane, last, (reason, author))
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
    with connect.client(settings) as client:
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


def _tables(settings: "Settings") -> "TableNames":
    from adledger.pipeline.ledger.queries import TableNames

    return TableNames(settings.database, on_cluster=settings.cluster is not None)


def _check_override(last: int | None, reason: str) -> None:
    if not reason.strip():
        raise UsageError("--reason is missing", remedy="give a reason: it is stored with the override")
    if last is None:
        raise UsageError(
            "--without-lane leaves a lane out of every period up to --through, which is missing",
            remedy="name the last period that is closed without it: --through 2026-11-30T12:15",
        )


def _leave_out(
    client: "Client", settings: "Settings", lanes: list[str], last: int, who: tuple[str, str | None]
) -> None:
    """Write an override for each lane, from the next period to the one that begins at `last` (ms)."""
    from adledger.pipeline.billing.closing import LedgerView, next_period
    from adledger.pipeline.billing.overrides import iso, leave_out
    from adledger.pipeline.billing.plan import BillingPeriod

    view = LedgerView.to_look(client, _tables(settings))
    due = next_period(client, view)
    if due is None or due.plan.period.start > last:
        return
    until = BillingPeriod.at(last, view.delays)
    holding = [lane for lane in range(due.plan.partitions) if _holds(view, lane, until)]
    named = holding if EVERY_LANE in lanes else [_lane_number(lane) for lane in lanes]
    for lane in named:
        first = due.plan.period
        while first.start < last and not _holds(view, lane, first):
            first = BillingPeriod.at(first.end, view.delays)
        written = leave_out(client, view.tables, lane, first, until, who[0], who[1] or getpass.getuser())
        err(
            f"lane {lane} is left out from {iso(first.start)} to {iso(last)}, after its batch {written.batch_no}"
        )


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
