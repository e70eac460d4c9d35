"""The SQL of a period's sums, by two roads: from `rollup_minute`, which the stream wrote, and again from `events`.

The second road uses no mark and no rollup of the stream: whether an event came in time is decided again by its time and
watermark. Both give the same columns, so they can be compared row by row, and the first is what is stored.
"""

# ruff: noqa: S608 - names of tables are ours, the database's is a setting with a pattern; numbers are integers

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from adledger.pipeline.billing.marks import Covered, in_spans
from adledger.pipeline.billing.plan import BillingPeriod, PeriodPlan
from adledger.pipeline.ledger.queries import BatchSpan, TableNames
from adledger.pipeline.stages.periods import past_close_sql
from adledger.schemas.periods import PERIOD_MS, CloseDelays

DAY_MS = 86_400_000

FINAL_COLUMNS = ("publisher_id", "event_type_code", "class_code", "currency_code", "records", "money_nanos")
"""Columns of a final sum, but for the period and the attempt."""

LATE_COLUMNS = (
    "cause", "publisher_id", "charge_period_start", "event_type_code", "class_code", "currency_code", "records", "money_nanos",
)  # fmt: skip
"""Columns of an adjustment's sum, but for the booked period and the attempt."""

DIGEST_DEFINITION = 1
"""The digest of sums: their columns as text, slashes between them, xxHash64, summed."""


class Road(StrEnum):
    """From which table sums are derived."""

    STREAM = "rollup_minute"
    EVENTS = "events"


@dataclass(frozen=True, slots=True)
class SumSource:
    """What sums are derived from: tables, delays, and where the books begin (ms)."""

    tables: TableNames
    delays: CloseDelays
    books_begin: int


def final_spans(plan: PeriodPlan) -> list[BatchSpan]:
    """Return the batches that may have events of the period that came in time."""
    return [
        BatchSpan(s.closed.lane, s.final_from, s.closed.included)
        for s in plan.shares
        if s.final_from <= s.closed.included
    ]


def late_spans(plan: PeriodPlan) -> list[BatchSpan]:
    """Return the batches whose late events are booked in the period."""
    return [
        BatchSpan(s.closed.lane, s.booked_before + 1, s.closed.booked)
        for s in plan.shares
        if s.booked_before < s.closed.booked
    ]


def final_sums(
    road: Road, source: SumSource, period: BillingPeriod, spans: Sequence[BatchSpan], of: Covered
) -> str:
    """Return the query for the period's final sums: FINAL_COLUMNS."""
    return (
        f"SELECT publisher_id, event_type_code, class_code, currency_code, sum(n) AS records, sum(nanos) AS money_nanos "
        f"FROM ({_rows(road, source, spans, of)}) "
        f"WHERE NOT late AND period = {_time(period.start)} "
        "GROUP BY publisher_id, event_type_code, class_code, currency_code"
    )


def late_sums(
    road: Road, source: SumSource, period: BillingPeriod, spans: Sequence[BatchSpan], of: Covered
) -> str:
    """Return the query for the adjustments that are booked in the period: LATE_COLUMNS.

    An event of an earlier period is late if it came after that period's close, and left out if it came in time, in a batch
    after the last that the period's closing included of its lane.
    """
    columns = "cause, publisher_id, period, event_type_code, class_code, currency_code"
    return (
        "SELECT cause, publisher_id, period AS charge_period_start, event_type_code, class_code, currency_code, "
        "sum(n) AS records, sum(nanos) AS money_nanos "
        f"FROM (SELECT *, if(late, 'after_close', 'lane_left_out') AS cause FROM ({_rows(road, source, spans, of)}) AS r "
        f"LEFT JOIN ({_closings(source, period, of)}) AS c "
        "ON r.period = c.charge_period_start "
        f"WHERE period >= {_time(source.books_begin)} AND period < {_time(period.start)} "
        f"AND (late OR batch_no > included_batch[indexOf(lanes, lane)])) GROUP BY {columns}"
    )


def by_class(road: Road, source: SumSource, spans: Sequence[BatchSpan], of: Covered) -> str:
    """Return the query for class, currency, records and nanos that a table has of some batches: what the ledger says of them."""
    key = "class_code, currency_code"
    return f"SELECT {key}, sum(n), sum(nanos) FROM ({_rows(road, source, spans, of)}) GROUP BY {key}"


def differences(first: str, second: str, columns: Sequence[str], rows_max: int) -> str:
    """Return the query for the rows in which two queries of sums disagree: keys, then both roads' records and nanos."""
    keys = ", ".join(columns[:-2])
    roads = " UNION ALL ".join(
        f"SELECT {keys}, {', '.join(f'{value} AS {name}' for name, value in values)} FROM ({query})"
        for query, values in (
            (first, (("a", "toInt128(records)"), ("b", "toInt128(money_nanos)"), ("c", "toInt128(0)"), ("d", "toInt128(0)"))),
            (second, (("a", "toInt128(0)"), ("b", "toInt128(0)"), ("c", "toInt128(records)"), ("d", "toInt128(money_nanos)"))),
        )
    )  # fmt: skip
    return (
        f"SELECT {keys}, sum(a), sum(b), sum(c), sum(d) FROM ({roads}) GROUP BY {keys} "
        f"HAVING sum(a) != sum(c) OR sum(b) != sum(d) ORDER BY {keys} LIMIT {rows_max}"
    )


def batch_differences(
    source: SumSource, period: BillingPeriod, spans: Sequence[BatchSpan], of: Covered, publishers: Sequence[int], rows_max: int
) -> str:  # fmt: skip
    """Return the query for the batches behind a difference: lane, batch, publisher, both roads' records and nanos.

    Of some publishers, and of events up to the period's end.
    """
    some = f"publisher_id IN ({', '.join(map(str, publishers))}) AND period <= {_time(period.start)}"
    key = "lane, batch_no, publisher_id, period, event_type_code, class_code, currency_code, late"

    def road(which: Road) -> str:
        rows = _rows(which, source, spans, of)
        return f"SELECT {key}, sum(n) AS records, sum(nanos) AS money_nanos FROM ({rows}) WHERE {some} GROUP BY {key}"

    columns = (*key.split(", "), "records", "money_nanos")
    found = differences(road(Road.STREAM), road(Road.EVENTS), columns, rows_max)
    return f"SELECT DISTINCT lane, batch_no, publisher_id FROM ({found})"


def summary(query: str, columns: Sequence[str]) -> str:
    """Return the query for rows, records, nanos and the digest of a query of sums."""
    text = ", '/', ".join(
        f"toString(toUnixTimestamp({c}))" if c == "charge_period_start" else f"toString({c})" for c in columns
    )
    return (
        "SELECT count(), toInt128(sum(records)), toInt128(sum(money_nanos)), "
        f"sumWithOverflow(xxHash64(concat({text}))) FROM ({query})"
    )


def adjustment_id(booked: BillingPeriod) -> str:
    """Return the expression of an adjustment's id, from LATE_COLUMNS: the same, whichever attempt makes it."""
    parts = (
        "cause", "'publisher'", "toString(publisher_id)", f"'{booked.start // 1000}'",
        "toString(toUnixTimestamp(charge_period_start))", "toString(event_type_code)", "toString(class_code)", "toString(currency_code)",
    )  # fmt: skip
    text = ", '/', ".join(parts)
    return f"lower(hex(substring(SHA256(concat({text})), 1, 16)))"


def _rows(road: Road, source: SumSource, spans: Sequence[BatchSpan], of: Covered) -> str:
    """Return the query for lane, batch_no, the key, period, late, n, nanos of some batches' rows."""
    keys = "lane, batch_no, publisher_id, event_type_code, class_code, currency_code"
    table = source.tables(road)
    first_day = (
        of.clock_min // DAY_MS * DAY_MS
    )  # a batch is cut at midnight: its events are of its watermark's day
    if road is Road.STREAM:
        return (
            f"SELECT {keys}, toStartOfFifteenMinutes(minute) AS period, after_close = 1 AS late, records AS n, "
            f"toInt128(money_nanos) AS nanos FROM {table} WHERE {in_spans(spans)} "
            f"AND clock_day >= {_time(first_day)} AND clock_day <= {_time(of.clock_max)}"
        )
    return (
        f"SELECT {keys}, toStartOfFifteenMinutes(toDateTime(event_time, 'UTC')) AS period, "
        f"{past_close_sql(source.delays)} AS late, 1 AS n, toInt128(money_nanos) AS nanos "
        f"FROM {table} WHERE {in_spans(spans)} "
        f"AND lane_clock >= fromUnixTimestamp64Milli(toInt64({first_day}), 'UTC') "
        f"AND lane_clock <= fromUnixTimestamp64Milli(toInt64({of.clock_max}), 'UTC')"
    )


def _closings(source: SumSource, period: BillingPeriod, of: Covered) -> str:
    """Return the query for the included batches of the closings that events in time of these batches may have missed."""
    longest = max(step.delay_ms for step in source.delays.steps)
    since = max(0, of.begin - longest - PERIOD_MS)
    return (
        f"SELECT charge_period_start, lanes, included_batch FROM {source.tables.database}.v_closings "
        f"WHERE charge_period_start >= {_time(since)} AND charge_period_start < {_time(period.start)}"
    )


def _time(ms: int) -> str:
    return f"toDateTime({ms // 1000}, 'UTC')"
