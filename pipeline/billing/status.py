"""What `adledger periods status` and `explain` show: how far periods are closed, what holds the next one, and one period whole."""

# ruff: noqa: S608 - names of tables are ours, the database's is a setting with a pattern

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from adledger.pipeline.billing import marks, sums
from adledger.pipeline.billing.closing import LedgerView, NextPeriod, next_period, stored_sums
from adledger.pipeline.billing.closings import StoredSums, last_closing
from adledger.pipeline.billing.plan import BillingPeriod
from adledger.pipeline.ledger.queries import BatchSpan, QueryClient, TableNames
from adledger.schemas.classes import Class

ClassSums = Sequence[tuple[int, int, int, int]]
"""Class code, currency code, records, nanos."""


@dataclass(frozen=True, slots=True)
class WaitingLane:
    """A lane that holds the next period open: its watermark (ms), and the server's time (ms) of its last ledger row."""

    lane: int
    clock: int | None
    written_at: int | None


@dataclass(frozen=True, slots=True)
class PeriodsStatus:
    """How far periods are closed (ms, exclusive; None: none is), and the next one.

    `waiting` are billable nanos by currency code of periods that are past their close in some lane, and not closed; `held` are
    the lanes that hold the first of them, `lanes` how many it needs.
    """

    closed_end: int | None
    books_begin: int | None
    due: NextPeriod | None
    lanes: int
    held: Sequence[WaitingLane]
    periods_waiting: int
    waiting: Mapping[int, int]


def periods_status(client: QueryClient, view: LedgerView) -> PeriodsStatus:
    """Return how far periods are closed. Raises SinkError."""
    last = last_closing(client, view.tables)
    due = next_period(client, view)
    closed_end = None if last is None else BillingPeriod.at(last.period_start, view.delays).end
    begin = due.books_begin if due is not None else last.books_begin if last is not None else None
    if due is None:
        return PeriodsStatus(closed_end, begin, None, 0, (), 0, {})
    until = _first_open(due.plan.period, max((end.clock for end in view.ends.values()), default=0), view)
    held = [WaitingLane(h.lane, h.clock, _written_at(client, view.tables, h.lane)) for h in due.plan.held_by]
    count = (until.start - due.plan.period.start) // (until.end - until.start)
    waiting = _waiting(client, view, due.plan.period, until) if count else {}
    return PeriodsStatus(closed_end, begin, due, due.plan.partitions, held, count, waiting)


@dataclass(frozen=True, slots=True)
class LaneInClosing:
    """A lane of a closing: batches, the watermark (ms) after the included one, the override that leaves it out, topic -> offset."""

    lane: int
    included: int
    booked: int
    clock: int
    left_out: str
    ends: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class ExplainedClosing:
    """A closed period: the attempt that counts, the others' number, what it wrote, and what the tables hold of it now."""

    run_id: UUID
    closed_at: int
    author: str
    release: str
    attempts: int
    lanes: Sequence[LaneInClosing]
    judge_versions: Sequence[int]
    money: ClassSums
    corrections: ClassSums  # adjustments of this period, by class and currency
    booked: ClassSums  # adjustments that are booked in it
    intact: bool
    alike: bool


def explain_period(client: QueryClient, tables: TableNames, start: int) -> ExplainedClosing | None:
    """Return a closed period by its start (ms), or None: it is not closed."""
    at = f"toDateTime({start // 1000}, 'UTC')"
    rows = client.execute(
        "SELECT run_id, toUnixTimestamp64Milli(closed_at), author, release, lanes, included_batch, booked_batch, "
        "arrayMap(t -> toUnixTimestamp64Milli(t), included_clock), left_out, range_topic, range_end, judge_versions, "
        "money.class_code, money.currency_code, money.records, money.money_nanos, publisher_rows, publisher_digest, "
        f"adjustment_rows, adjustment_digest FROM {tables.database}.v_closings WHERE charge_period_start = {at}"
    )
    if not rows:
        return None
    run_id, closed_at, author, release, *rest = rows[0]
    lanes = [
        LaneInClosing(
            int(lane), int(i), int(b), int(clock), out, dict(zip(topics, map(int, ends), strict=True))
        )
        for lane, i, b, clock, out, topics, ends in zip(*rest[:7], strict=True)
    ]
    written = tuple(map(int, rest[12:]))
    publishers, adjustments = stored_sums(client, tables, start, run_id)
    attempts, results = client.execute(
        "SELECT count(), uniqExact(publisher_rows, publisher_digest, adjustment_rows, adjustment_digest) "
        f"FROM {tables.database}.closings WHERE charge_period_start = {at}"
    )[0]
    return ExplainedClosing(
        run_id, int(closed_at), author, release, int(attempts), lanes, list(rest[7]),
        [(int(c), int(u), int(n), int(v)) for c, u, n, v in zip(*rest[8:12], strict=True)],
        _adjusted(client, tables, f"charge_period_start = {at}"),
        _adjusted(client, tables, f"booked_period_start = {at}"),
        intact=written == (publishers.rows, publishers.digest, adjustments.rows, adjustments.digest)
        and _same_money(publishers, rest[10], rest[11]),
        alike=results == 1,
    )  # fmt: skip


def _same_money(found: StoredSums, records: Sequence[int], nanos: Sequence[int]) -> bool:
    return (found.records, found.nanos) == (sum(records), sum(nanos))


def _adjusted(client: QueryClient, tables: TableNames, where: str) -> ClassSums:
    rows = client.execute(
        f"SELECT class_code, currency_code, sum(records), sum(money_nanos) FROM {tables.database}.adjustments "
        f"WHERE {where} AND billing_account_type = 'publisher' AND (booked_period_start, run_id) IN "
        f"(SELECT charge_period_start, run_id FROM {tables.database}.v_closings) "
        "GROUP BY class_code, currency_code ORDER BY class_code, currency_code"
    )
    return [(int(c), int(u), int(n), int(nanos)) for c, u, n, nanos in rows]


def _first_open(period: BillingPeriod, clock: int, view: LedgerView) -> BillingPeriod:
    """Return the first period from this one on that not even a lane at `clock` is past the close of."""
    longest = max(step.delay_ms for step in view.delays.steps)
    found = BillingPeriod.at(max(period.start, clock - longest - (period.end - period.start)), view.delays)
    while found.closes_at < clock:
        found = BillingPeriod.at(found.end, view.delays)
    return found


def _waiting(
    client: QueryClient, view: LedgerView, first: BillingPeriod, until: BillingPeriod
) -> dict[int, int]:
    spans = [BatchSpan(lane, 1, end.batch_no) for lane, end in view.ends.items()]
    rows = client.execute(
        f"SELECT currency_code, sum(toInt128(money_nanos)) FROM {view.tables(sums.Road.STREAM)} "
        f"WHERE {marks.in_spans(spans)} AND class_code = {Class.BILLABLE:d} AND after_close = 0 "
        f"AND minute >= toDateTime({first.start // 1000}, 'UTC') AND minute < toDateTime({until.start // 1000}, 'UTC') "
        f"AND clock_day >= toDateTime({first.first_clock // sums.DAY_MS * sums.DAY_MS // 1000}, 'UTC') "
        "GROUP BY currency_code ORDER BY currency_code"
    )
    return {int(currency): int(nanos) for currency, nanos in rows}


def _written_at(client: QueryClient, tables: TableNames, lane: int) -> int | None:
    rows = client.execute(
        f"SELECT toUnixTimestamp64Milli(written_at) FROM {tables('ledger')} WHERE lane = {lane} "
        "ORDER BY batch_no DESC LIMIT 1"
    )
    return int(rows[0][0]) if rows else None
