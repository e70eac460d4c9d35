"""The rows of `closings`: what a completed attempt at a period covered, and what it wrote."""

# ruff: noqa: S608 - the name of the database is a setting with a pattern

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

from adledger.pipeline.billing.plan import BooksSoFar, ClosedLane, PeriodPlan
from adledger.pipeline.billing.sums import DIGEST_DEFINITION
from adledger.pipeline.errors import SinkError
from adledger.pipeline.ledger.queries import QueryClient, TableNames
from adledger.schemas.periods import PERIOD_MS


@dataclass(frozen=True, slots=True)
class StoredSums:
    """Rows that belong together: how many, their records and nanos (of all currencies: a checksum), and their digest."""

    rows: int
    records: int
    nanos: int
    digest: int


@dataclass(frozen=True, slots=True)
class LastClosing:
    """The latest closed period (ms), where the books begin (ms), and what its closing covered."""

    period_start: int
    books_begin: int
    books: BooksSoFar


@dataclass(frozen=True, slots=True)
class ClosingAttempt:
    """One attempt at closing a period: its plan, and what it wrote."""

    run_id: UUID
    plan: PeriodPlan
    books_begin: int
    publishers: StoredSums
    adjustments: StoredSums
    judge_versions: Sequence[int]
    money: Sequence[tuple[int, int, int, int]]  # class, currency, records, nanos: final sums
    release: str


def last_closing(client: QueryClient, tables: TableNames) -> LastClosing | None:
    """Return the latest closing. Raises SinkError if a period before it was not closed."""
    rows = client.execute(
        "SELECT toUnixTimestamp(min(charge_period_start)), toUnixTimestamp(max(charge_period_start)), "
        f"uniqExact(charge_period_start) FROM {tables.database}.closings"
    )
    first, last, periods = map(int, rows[0])
    if not periods:
        return None
    if (last - first) * 1000 // PERIOD_MS + 1 != periods:
        raise SinkError(
            f"{tables.database}.closings lacks {(last - first) * 1000 // PERIOD_MS + 1 - periods} periods before its last: "
            "rows were removed, or a backup was restored",
            remedy="restore closings, publisher_periods and adjustments from the same newer backup",
        )
    begin, partitions, *lanes = client.execute(
        "SELECT toUnixTimestamp(books_begin), partitions, lanes, included_batch, booked_batch, left_out "
        f"FROM {tables.database}.v_closings WHERE charge_period_start = toDateTime({last}, 'UTC')"
    )[0]
    closed = {int(lane): ClosedLane(int(lane), int(i), int(b), out) for lane, i, b, out in zip(*lanes, strict=True)}  # fmt: skip
    return LastClosing(last * 1000, int(begin) * 1000, BooksSoFar(int(partitions), closed))


def write_closing(
    client: QueryClient,
    tables: TableNames,
    attempt: ClosingAttempt,
    ends: Mapping[int, tuple[int, list[int], list[int]]],
) -> None:
    """Insert the row that makes an attempt count; `ends`: lane -> watermark, topics and offsets after its included batch."""
    lanes = [share.closed for share in attempt.plan.shares]
    of_lanes = [ends.get(closed.lane, (0, [], [])) for closed in lanes]
    period = attempt.plan.period
    row = {
        "charge_period_start": _date(period.start),
        "run_id": attempt.run_id,
        "closes_at": _date(period.closes_at),
        "books_begin": _date(attempt.books_begin),
        "partitions": attempt.plan.partitions,
        "lanes": [closed.lane for closed in lanes],
        "included_batch": [closed.included for closed in lanes],
        "booked_batch": [closed.booked for closed in lanes],
        "included_clock": [_date(clock) for clock, _, _ in of_lanes],
        "left_out": [closed.left_out for closed in lanes],
        "range_topic": [topics for _, topics, _ in of_lanes],
        "range_end": [offsets for _, _, offsets in of_lanes],
        "judge_versions": list(attempt.judge_versions),
        "publisher_rows": attempt.publishers.rows,
        "publisher_digest": attempt.publishers.digest,
        "adjustment_rows": attempt.adjustments.rows,
        "adjustment_digest": attempt.adjustments.digest,
        "digest_definition": DIGEST_DEFINITION,
        "money.class_code": [m[0] for m in attempt.money],
        "money.currency_code": [m[1] for m in attempt.money],
        "money.records": [m[2] for m in attempt.money],
        "money.money_nanos": [m[3] for m in attempt.money],
        "release": attempt.release,
    }
    columns = ", ".join(f"`{name}`" for name in row)
    client.execute(
        f"INSERT INTO {tables.database}.closings ({columns}) VALUES",
        [tuple(row.values())],
        settings={"async_insert": 0},
    )


def _date(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
