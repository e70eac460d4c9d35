"""Reading from the ledger what a period's plan depends on: where each lane is, and its batches around the period."""

# ruff: noqa: S608 - names of tables are ours, the database's is a setting with a pattern

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from adledger.pipeline.billing.plan import BillingPeriod, LaneMarks
from adledger.pipeline.errors import SinkError
from adledger.pipeline.ledger.queries import BatchSpan, QueryClient, TableNames
from adledger.schemas.digests import WITH_AFTER_CLOSE

_PARTITIONS = r"toUInt32OrZero(extract(epoch, '/(\\d+)(?:~\\d+)?$'))"
"""The number of partitions in an epoch (adledger.pipeline.log.epochs)."""


@dataclass(frozen=True, slots=True)
class LaneEnd:
    """The ledger's end in a lane: batch number, watermark (ms), and the partitions of its epoch."""

    batch_no: int
    clock: int
    partitions: int


@dataclass(frozen=True, slots=True)
class Covered:
    """What the ledger has of some batches: watermarks, sums and evaluator versions.

    `begin` (ms) is the lowest watermark that a batch began at: no event of them has a lower one. `clock_min` and `clock_max`
    are the lowest and highest after a batch. `sums`: class and currency code -> records and nanos.
    """

    begin: int
    clock_min: int
    clock_max: int
    sums: Mapping[tuple[int, int], tuple[int, int]]
    judge_versions: Sequence[int]

    @property
    def events(self) -> int:
        """How many events they have."""
        return sum(records for records, _ in self.sums.values())


def lane_ends(
    client: QueryClient, tables: TableNames, clock_from: int, expected: Collection[int]
) -> dict[int, LaneEnd]:
    """Return the ledger's end of each lane, as of some moment during this call.

    Only days from `clock_from` (ms) on are read; of the lanes in `expected`, and those that an epoch names, which are not
    there, the last row is looked up. With `clock_from` 0 all of the ledger is read.
    """
    what = f"batch_no, toUnixTimestamp64Milli(clock_after), {_PARTITIONS}"
    rows = client.execute(
        f"SELECT lane, (argMax(({what}), batch_no) AS last).1, last.2, last.3 FROM {tables('ledger')} "
        f"WHERE {_from(clock_from)} GROUP BY lane"
    )
    found = {int(lane): LaneEnd(*map(int, last)) for lane, *last in rows}
    lanes = max((end.partitions for end in found.values()), default=0)
    behind = sorted({*expected, *range(lanes)} - found.keys())
    if behind and clock_from:
        rows = client.execute(
            f"SELECT lane, {what} FROM {tables('ledger')} WHERE lane IN ({', '.join(map(str, behind))}) "
            "ORDER BY lane, batch_no DESC LIMIT 1 BY lane"
        )
        found |= {int(lane): LaneEnd(*map(int, last)) for lane, *last in rows}
    return found


def lane_marks(
    client: QueryClient,
    tables: TableNames,
    period: BillingPeriod,
    ends: Mapping[int, LaneEnd],
    *,
    whole_ledger: bool,
) -> dict[int, LaneMarks]:
    """Return the lanes' batches around a period; `whole_ledger` also looks for partitions in rows from long before it."""
    past = f"clock_after > {_time(period.closes_at)}"
    rows = client.execute(
        f"SELECT lane, minIf(batch_no, {_from(period.first_clock)}), minIf(batch_no, {_from(period.end)}), "
        f"minIf(batch_no, {past}) AS crossing, "
        f"greatest(maxIf({_PARTITIONS}, NOT {past}), argMinIf({_PARTITIONS}, batch_no, {past})) "
        f"FROM {tables('ledger')} WHERE {'1' if whole_ledger else _from(period.first_clock)} GROUP BY lane"
    )
    marks = {int(row[0]): tuple(map(int, row[1:])) for row in rows}
    return {
        lane: LaneMarks(lane, end.batch_no, end.clock, *marks.get(lane, (0, 0, 0, end.partitions)))
        for lane, end in ends.items()
    }


def covered(client: QueryClient, tables: TableNames, spans: Sequence[BatchSpan]) -> Covered | None:
    """Return what the ledger has of batches, or None where there are none.

    Raises SinkError unless it has exactly one row of each.
    """
    if not spans:
        return None
    rows, distinct, begin, first, last, versions = client.execute(
        "SELECT count(), uniqExact(lane, batch_no), toUnixTimestamp64Milli(min(clock_before)), "
        "toUnixTimestamp64Milli(min(clock_after)), toUnixTimestamp64Milli(max(clock_after)), "
        "arraySort(groupUniqArrayIf(judge_version, records_received > malformed)) "
        f"FROM {tables('ledger')} WHERE {in_spans(spans)}"
    )[0]
    expected = sum(span.last - span.first + 1 for span in spans)
    if (rows, distinct) != (expected, expected):
        raise SinkError(
            f"the ledger has {rows} rows of {distinct} batches where it should have one of each of {expected}: "
            + ", ".join(f"lane {s.lane} batches {s.first} to {s.last}" for s in spans[:3]),
            remedy="adledger ledger check --ledger-only names the batches; nothing was closed",
        )
    sums = client.execute(
        "SELECT class_code, currency_code, sum(n), sum(toInt128(nanos)) "
        f"FROM {tables('ledger')} ARRAY JOIN money.class_code AS class_code, money.currency_code AS currency_code, "
        f"money.records AS n, money.money_nanos AS nanos WHERE {in_spans(spans)} GROUP BY class_code, currency_code"
    )
    by_class = {(int(code), int(currency)): (int(n), int(nanos)) for code, currency, n, nanos in sums}
    return Covered(int(begin), int(first), int(last), by_class, tuple(map(int, versions)))


def range_ends(
    client: QueryClient, tables: TableNames, batches: Mapping[int, int]
) -> dict[int, tuple[int, list[int], list[int]]]:
    """Return of a batch in each lane: the watermark after it (ms), topics and, parallel to them, the offsets after its last."""
    if not batches:
        return {}
    pairs = ", ".join(f"({lane}, {batch_no})" for lane, batch_no in sorted(batches.items()))
    rows = client.execute(
        "SELECT lane, toUnixTimestamp64Milli(clock_after), range_topic, range_end "
        f"FROM {tables('ledger')} WHERE (lane, batch_no) IN ({pairs})"
    )
    return {int(lane): (int(clock), list(topics), list(ends)) for lane, clock, topics, ends in rows}


def unmarked(client: QueryClient, tables: TableNames) -> tuple[int, list[int]]:
    """Return the latest watermark (ms) of batches whose late events are not marked (0: none), and lanes whose last batch is one."""
    rows = client.execute(
        f"SELECT lane, toUnixTimestamp64Milli(maxIf(clock_after, digest_definition < {WITH_AFTER_CLOSE})), "
        f"countIf(digest_definition < {WITH_AFTER_CLOSE}), argMax(digest_definition, batch_no) < {WITH_AFTER_CLOSE} "
        f"FROM {tables('ledger')} GROUP BY lane ORDER BY lane"
    )
    clock = max((int(clock) for _, clock, batches, _ in rows if batches), default=0)
    return clock, [int(lane) for lane, _, _, still in rows if still]


def earliest_event(client: QueryClient, tables: TableNames) -> int | None:
    """Return the minute (ms) of the earliest event in time, or None: there is none."""
    rows = client.execute(
        f"SELECT toUnixTimestamp(min(minute)), count() FROM {tables('rollup_minute')} WHERE after_close = 0"
    )
    return int(rows[0][0]) * 1000 if rows[0][1] else None


def server_ms(client: QueryClient) -> int:
    """Return the server's clock, ms since the epoch."""
    return int(client.execute("SELECT toUnixTimestamp64Milli(now64(3))")[0][0])


def in_spans(spans: Sequence[BatchSpan]) -> str:
    """Return the condition for rows of these batches."""
    return "(" + " OR ".join(f"({span.where})" for span in spans) + ")"


def _from(clock: int) -> str:
    return f"clock_after >= {_time(clock)}"


def _time(ms: int) -> Any:
    return f"fromUnixTimestamp64Milli(toInt64({ms}), 'UTC')"
