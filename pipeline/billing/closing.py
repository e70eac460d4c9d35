"""Closing periods, in order: read, wait, derive by two roads, write under an attempt's id, and last the row that makes it count.

Nothing here decides what a period's sums are: they follow from the ledger and from overrides that can't change any more. So
an attempt that dies leaves rows that no view shows, and two at once write the same twice. The order must not change: without
the wait an override could come between two attempts; with `closings` before the sums a reader would see half of them.
"""

# ruff: noqa: S608 - names of tables are ours, the database's is a setting with a pattern

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid4

from adledger.pipeline.billing import marks, sums
from adledger.pipeline.billing.books import Books, open_books, opened_books, propose
from adledger.pipeline.billing.closings import (
    ClosingAttempt,
    StoredSums,
    last_closing,
    write_closing,
)
from adledger.pipeline.billing.fence import Sleep, fenced_until
from adledger.pipeline.billing.marks import LaneEnd
from adledger.pipeline.billing.overrides import PeriodOverride, iso, of_period, overrides_until
from adledger.pipeline.billing.plan import BillingPeriod, BooksSoFar, PeriodPlan, plan_period
from adledger.pipeline.billing.roads import Summed, agreed, summary
from adledger.pipeline.billing.sums import FINAL_COLUMNS, LATE_COLUMNS, Road, SumSource
from adledger.pipeline.errors import SinkError
from adledger.pipeline.ledger.queries import QueryClient, TableNames, server_seconds
from adledger.schemas.periods import PERIOD_MS, CloseDelays
from adledger.sinks.periods import close_delays


@dataclass(frozen=True, slots=True)
class LedgerView:
    """What is known before periods are planned: lanes' ends, and what was settled by then. `books` None: nothing to close."""

    tables: TableNames
    delays: CloseDelays
    ends: dict[int, LaneEnd]
    overrides: Sequence[PeriodOverride]
    books: Books | None

    @classmethod
    def to_close(
        cls, client: QueryClient, tables: TableNames, release: str, sleep: Sleep | None = time.sleep
    ) -> "LedgerView":
        """Return the view for closing; it takes some seconds, and opens the books where they are not open.

        `sleep` None: without waiting, where no override can be under way.
        """
        delays = close_delays(client, tables.database)
        if opened_books(client, tables, server_seconds(client)) is None:
            proposal = propose(client, tables, delays)
            if proposal is not None:
                open_books(client, tables, proposal, release)
        ends = _ends(client, tables)  # before the fence
        by = fenced_until(client, tables, sleep)
        return cls(
            tables, delays, ends, overrides_until(client, tables, by), opened_books(client, tables, by)
        )

    @classmethod
    def to_look(cls, client: QueryClient, tables: TableNames) -> "LedgerView":
        """Return the view as it is now, without waiting: what closing will find may differ."""
        delays, by = close_delays(client, tables.database), server_seconds(client)
        books = opened_books(client, tables, by) or propose(client, tables, delays)
        return cls(tables, delays, _ends(client, tables), overrides_until(client, tables, by), books)


@dataclass(frozen=True, slots=True)
class NextPeriod:
    """The period that closes next: its plan, and where the books begin (ms)."""

    plan: PeriodPlan
    books_begin: int


def next_period(client: QueryClient, view: LedgerView) -> NextPeriod | None:
    """Return the plan of the period after the last closed one; None where the tables have no event in time yet."""
    last = last_closing(client, view.tables)
    if view.books is None:
        return None
    start = view.books.first_period if last is None else last.period_start + PERIOD_MS
    period = BillingPeriod.at(start, view.delays)
    near = marks.lane_marks(client, view.tables, period, view.ends, whole_ledger=last is None)
    before = BooksSoFar() if last is None else last.books
    plan = plan_period(period, near, before, of_period(view.overrides, period), marks.server_ms(client))
    return NextPeriod(plan, view.books.begin)


def close_next(
    client: QueryClient, view: LedgerView, release: str, run_id: Callable[[], UUID] = uuid4
) -> ClosingAttempt | NextPeriod | None:
    """Close the next period and return the attempt, or what holds it open; None: there is nothing to close.

    Raises RoadsDiffer, SinkError, and what the client raises: then the period is closed, or not, and may be closed again.
    """
    due = next_period(client, view)
    if due is None or not due.plan.may_close:
        return due
    attempt = _attempt(client, view, due, run_id(), release)
    included = {s.closed.lane: s.closed.included for s in due.plan.shares if s.closed.included}
    write_closing(client, view.tables, attempt, marks.range_ends(client, view.tables, included))
    return attempt


def close_all(
    client: QueryClient, view: LedgerView, release: str, through: int | None
) -> Iterator[ClosingAttempt | NextPeriod]:
    """Close every period that may be closed, up to the one that begins at `through` (ms); the last one yielded may be held."""
    while True:
        last = last_closing(client, view.tables)
        if through is not None and last is not None and last.period_start >= through:
            return
        done = close_next(client, view, release)
        if done is None:
            return
        yield done
        if isinstance(done, NextPeriod):
            return


def _ends(client: QueryClient, tables: TableNames) -> dict[int, LaneEnd]:
    last = last_closing(client, tables)
    lanes = () if last is None else tuple(last.books.lanes or {})
    return marks.lane_ends(client, tables, 0 if last is None else last.period_start, lanes)


def _attempt(
    client: QueryClient, view: LedgerView, due: NextPeriod, run_id: UUID, release: str
) -> ClosingAttempt:
    """Derive and write an attempt's rows."""
    plan, period = due.plan, due.plan.period
    # With the books' first period nothing earlier is in them: batches of years, perhaps dropped by now, are not read.
    final, late = sums.final_spans(plan), [] if period.start == due.books_begin else sums.late_spans(plan)
    source = SumSource(view.tables, view.delays, due.books_begin)
    of_final = marks.covered(client, view.tables, final)
    of_late = marks.covered(client, view.tables, late)
    finals = Summed(source, period, final, of_final, sums.final_sums, FINAL_COLUMNS)
    after_close = Summed(source, period, late, of_late, sums.late_sums, LATE_COLUMNS)
    publishers, adjustments = agreed(client, finals), agreed(client, after_close)
    if publishers.rows:
        _write_publishers(client, view.tables, period, run_id, finals.by(Road.STREAM))
    if adjustments.rows:
        _write_adjustments(client, view.tables, period, run_id, after_close.by(Road.STREAM))
    if stored_sums(client, view.tables, period.start, run_id) != (publishers, adjustments):
        raise SinkError(
            f"publisher_periods and adjustments don't hold what attempt {run_id} at the period {iso(period.start)} derived, "
            f"{publishers.rows} and {adjustments.rows} rows; no closing was written",
            remedy="close again; if it fails again, see ClickHouse's log",
        )
    versions = {v for of in (of_final, of_late) if of is not None for v in of.judge_versions}
    money = _final_money(client, view.tables, period, run_id)
    return ClosingAttempt(
        run_id, plan, due.books_begin, publishers, adjustments, sorted(versions), money, release
    )


def stored_sums(
    client: QueryClient, tables: TableNames, start: int, run_id: UUID
) -> tuple[StoredSums, StoredSums]:
    """Return what publisher_periods and adjustments hold of an attempt at the period that begins at `start` (ms)."""
    at, run = f"toDateTime({start // 1000}, 'UTC')", f"run_id = toUUID('{run_id}')"
    publishers = f"SELECT {', '.join(FINAL_COLUMNS)} FROM {tables.database}.publisher_periods WHERE charge_period_start = {at} AND {run}"
    adjustments = (
        f"SELECT cause, billing_account_id AS publisher_id, {_KEY_AND_SUMS} FROM {tables.database}.adjustments "
        f"WHERE booked_period_start = {at} AND {run} AND billing_account_type = 'publisher'"
    )
    return summary(client, publishers, FINAL_COLUMNS), summary(client, adjustments, LATE_COLUMNS)


_KEY_AND_SUMS = "charge_period_start, event_type_code, class_code, currency_code, records, money_nanos"


def _write_publishers(
    client: QueryClient, tables: TableNames, period: BillingPeriod, run_id: UUID, query: str
) -> None:
    columns = ", ".join(FINAL_COLUMNS)
    client.execute(
        f"INSERT INTO {tables.database}.publisher_periods ({columns}, charge_period_start, run_id) "
        f"SELECT {columns}, toDateTime({period.start // 1000}, 'UTC'), toUUID('{run_id}') FROM ({query})"
    )


def _write_adjustments(
    client: QueryClient, tables: TableNames, period: BillingPeriod, run_id: UUID, query: str
) -> None:
    client.execute(
        f"INSERT INTO {tables.database}.adjustments (adjustment_id, cause, billing_account_type, billing_account_id, "
        f"{_KEY_AND_SUMS}, booked_period_start, run_id) SELECT {sums.adjustment_id(period)}, cause, 'publisher', publisher_id, "
        f"{_KEY_AND_SUMS}, toDateTime({period.start // 1000}, 'UTC'), toUUID('{run_id}') FROM ({query})"
    )


def _final_money(
    client: QueryClient, tables: TableNames, period: BillingPeriod, run_id: UUID
) -> list[tuple[int, int, int, int]]:
    """Return class, currency, records and nanos of an attempt's final sums."""
    rows = client.execute(
        f"SELECT class_code, currency_code, sum(records), sum(money_nanos) FROM {tables.database}.publisher_periods "
        f"WHERE charge_period_start = toDateTime({period.start // 1000}, 'UTC') AND run_id = toUUID('{run_id}') "
        "GROUP BY class_code, currency_code ORDER BY class_code, currency_code"
    )
    return [(int(c), int(u), int(n), int(nanos)) for c, u, n, nanos in rows]
