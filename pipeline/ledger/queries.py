"""The SQL of the ledger's readers: entries, the rows that tables hold for a span of batches, and rows without a ledger row.

Every query that counts is bounded to one lane and a span of batch numbers, which the tables' lane order (and the
projection of `events`) answers without reading the rest.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from adledger.pipeline.ledger.check import OffsetCount, Recount, StoredEntry, Unledgered
from adledger.pipeline.ledger.totals import Totals
from adledger.pipeline.stages import digest
from adledger.pipeline.stages.periods import misplaced_sql
from adledger.schemas.classes import CLASS_NAMES
from adledger.schemas.digests import DEFINITIONS
from adledger.schemas.periods import CloseDelays
from adledger.schemas.tables import PROTOCOL_TABLES
from adledger.schemas.wire import NANOS_PER_MICRO_CPC, NANOS_PER_MICRO_CPM, EventType, Flag
from adledger.sinks.ledger import ledger_entry
from adledger.sinks.queries import LEDGER_COLUMNS

_TIMES = ("cut_time", "clock_before", "clock_after")


class QueryClient(Protocol):
    """What reading needs of clickhouse-driver's client."""

    def execute(self, query: str, params: Any = None, **options: Any) -> Any:
        """Return the rows of a SELECT as tuples."""


@dataclass(frozen=True, slots=True)
class TableNames:
    """Names of the tables: on one server, or over all shards of a cluster."""

    database: str
    cluster: str | None = None

    def __call__(self, table: str) -> str:
        """Return a table's full name."""
        return f"{self.database}.{table}{'' if self.cluster is None else '_all'}"


@dataclass(frozen=True, slots=True)
class BatchSpan:
    """Batches of one lane, both ends included."""

    lane: int
    first: int
    last: int

    @property
    def where(self) -> str:
        """The condition that bounds a query to them."""
        return f"lane = {self.lane} AND batch_no BETWEEN {self.first} AND {self.last}"


def lanes(client: QueryClient, tables: TableNames) -> list[tuple[int, int]]:
    """Return (lane, last batch number) of each lane that the ledger knows, in order."""
    rows = client.execute(f"SELECT lane, max(batch_no) FROM {tables('ledger')} GROUP BY lane ORDER BY lane")
    return [(int(lane), int(last)) for lane, last in rows]


def entries(client: QueryClient, tables: TableNames, where: str, rows_max: int) -> list[StoredEntry]:
    """Return the ledger rows that a condition selects, by lane and batch number; doubled rows are kept.

    At most `rows_max` rows are returned, cut at a batch.
    """
    columns = ", ".join(f"toUnixTimestamp64Milli({n})" if n in _TIMES else f"`{n}`" for n in LEDGER_COLUMNS)
    rows = client.execute(
        f"SELECT {columns} FROM {tables('ledger')} WHERE {where} ORDER BY lane, batch_no LIMIT {rows_max} WITH TIES",
        settings={"strings_as_bytes": True},
    )
    named = [dict(zip(LEDGER_COLUMNS, row, strict=True)) for row in rows]
    return [StoredEntry(ledger_entry(row), int(row["seal"])) for row in named]


def totals(client: QueryClient, tables: TableNames) -> Totals:
    """Return the sums over the whole ledger, made by the server."""
    classes = ", ".join(f"sum({name})" for name in CLASS_NAMES.values())
    ((received, *counts),) = client.execute(
        f"SELECT sum(records_received), {classes} FROM {tables('ledger')}"
    )
    money = client.execute(
        "SELECT class_code, currency_code, sum(records), sum(toInt128(nanos)) "
        f"FROM {tables('ledger')} ARRAY JOIN money.class_code AS class_code, money.currency_code AS currency_code, "
        "money.records AS records, money.money_nanos AS nanos GROUP BY class_code, currency_code"
    )
    return Totals(
        received,
        {int(code): n for code, n in zip(CLASS_NAMES, counts, strict=True) if n},
        {(code, currency): records for code, currency, records, _ in money},
        {(code, currency): nanos for code, currency, _, nanos in money},
    )


def recounts(
    client: QueryClient, tables: TableNames, span: BatchSpan, definition: int, delays: CloseDelays
) -> dict[int, Recount]:
    """Return batch number -> what `events`, `rollup_minute` and `dead_letters` hold; batches without rows are absent.

    Digests follow a definition; there are none of one that this release does not know.
    """
    events = _sums(client, f"count(), sum(toInt128(money_nanos)) FROM {tables('events')}", span)
    rollups = _sums(client, f"sum(records), sum(toInt128(money_nanos)) FROM {tables('rollup_minute')}", span)
    rollup_rows = _counts(client, f"FROM {tables('rollup_minute')} WHERE {span.where}")
    dead_letters = _counts(client, f"FROM {tables('dead_letters')} WHERE {span.where}", "sum(records)")
    covered = DEFINITIONS[definition].columns if definition in DEFINITIONS else ()
    digests = {table: _digests(client, tables, table, span, definition) for table in covered}
    mispriced = _counts(client, f"FROM {tables('events')} WHERE {span.where} AND money_nanos != {_MONEY}")
    misplaced = _counts(client, f"FROM {tables('events')} WHERE {span.where} AND {misplaced_sql(delays)}")
    differences = _counts(client, f"FROM ({_differences(tables, span)})")
    offsets = _offsets(client, tables, span)
    batches = {*events, *rollups, *rollup_rows, *dead_letters, *offsets}
    return {
        batch_no: Recount(
            events=events.get(batch_no, {}),
            rollups=rollups.get(batch_no, {}),
            rollup_rows=rollup_rows.get(batch_no, 0),
            rollup_differences=differences.get(batch_no, 0),
            dead_letters=dead_letters.get(batch_no, 0),
            mispriced=mispriced.get(batch_no, 0),
            misplaced=misplaced.get(batch_no, 0),
            digests={table: found.get(batch_no, 0) for table, found in digests.items()},
            offsets=tuple(count for count, _, _ in offsets.get(batch_no, ())),
            clock_first=min((first for _, first, _ in offsets.get(batch_no, ())), default=0),
            clock_last=max((last for _, _, last in offsets.get(batch_no, ())), default=0),
        )
        for batch_no in batches
    }


def unledgered(client: QueryClient, tables: TableNames, lanes: Sequence[int]) -> Iterator[Unledgered]:
    """Yield the batches (of some lanes; none: all) that have rows in a table and no ledger row."""
    of_lanes = f"lane IN ({', '.join(map(str, lanes))}) AND " if lanes else ""
    for table in (table for table in PROTOCOL_TABLES if table != "ledger"):
        rows = client.execute(
            f"SELECT lane, batch_no, count(), max(send_by) FROM {tables(table)} "
            f"WHERE {of_lanes}(lane, batch_no) NOT IN (SELECT lane, batch_no FROM {tables('ledger')}) "
            "GROUP BY lane, batch_no ORDER BY lane, batch_no"
        )
        yield from (Unledgered(table, *map(int, row)) for row in rows)


def dropped_days(client: QueryClient, tables: TableNames) -> dict[int, set[str]]:
    """Return day of the watermark (days since 1970) -> the tables whose rows of that day retention has dropped."""
    found: dict[int, set[str]] = {}
    for table, day in client.execute(f"SELECT DISTINCT table, toUInt32(day) FROM {tables('retention_log')}"):
        found.setdefault(int(day), set()).add(table)
    return found


def server_seconds(client: QueryClient) -> int:
    """Return the server's clock, seconds since the epoch."""
    return int(client.execute("SELECT toUnixTimestamp(now())")[0][0])


_MONEY = f"toInt64(price_micros) * if(event_type_code = {EventType.CLICK:d}, {NANOS_PER_MICRO_CPC}, {NANOS_PER_MICRO_CPM})"


def _sums(
    client: QueryClient, what: str, span: BatchSpan
) -> dict[int, dict[tuple[int, int], tuple[int, int]]]:
    found: dict[int, dict[tuple[int, int], tuple[int, int]]] = {}
    for batch_no, class_code, currency_code, records, nanos in client.execute(
        f"SELECT batch_no, class_code, currency_code, {what} WHERE {span.where} "
        "GROUP BY batch_no, class_code, currency_code"
    ):
        found.setdefault(batch_no, {})[class_code, currency_code] = (records, nanos)
    return found


def _counts(client: QueryClient, from_where: str, what: str = "count()") -> dict[int, int]:
    return dict(client.execute(f"SELECT batch_no, {what} {from_where} GROUP BY batch_no"))


def _digests(
    client: QueryClient, tables: TableNames, table: str, span: BatchSpan, definition: int
) -> dict[int, int]:
    return _counts(client, f"FROM {tables(table)} WHERE {span.where}", digest.sql(table, definition))


def _differences(tables: TableNames, span: BatchSpan) -> str:
    """Return a query of the rollup's keys in which `events`, rolled up again, and `rollup_minute` disagree."""
    key = "batch_no, publisher_id, minute, event_type_code, class_code, currency_code, after_close"
    return (
        f"SELECT {key} FROM ("
        f"SELECT batch_no, publisher_id, toStartOfMinute(event_time) AS minute, event_type_code, class_code, "
        f"currency_code, toUInt8(bitTest(flags, {Flag.AFTER_CLOSE:d})) AS after_close, toInt64(1) AS records, toInt128(money_nanos) AS nanos "
        f"FROM {tables('events')} WHERE {span.where} "
        f"UNION ALL SELECT {key}, -toInt64(records), -toInt128(money_nanos) "
        f"FROM {tables('rollup_minute')} WHERE {span.where}"
        f") GROUP BY {key} HAVING sum(records) != 0 OR sum(nanos) != 0"
    )


def _offsets(
    client: QueryClient, tables: TableNames, span: BatchSpan
) -> dict[int, list[tuple[OffsetCount, int, int]]]:
    """Return batch number -> for each topic its offsets, and the first and last watermark (ms)."""
    found: dict[int, list[tuple[OffsetCount, int, int]]] = {}
    columns = "batch_no, topic, offset, lane_clock"
    for batch_no, *counts, clock_first, clock_last in client.execute(
        "SELECT batch_no, topic, count(), uniqExact(offset), min(offset), max(last), "
        "toUnixTimestamp64Milli(min(lane_clock)), toUnixTimestamp64Milli(max(lane_clock)) FROM ("
        f"SELECT {columns}, offset AS last FROM {tables('events')} WHERE {span.where} "
        f"UNION ALL SELECT {columns}, offset + records - 1 AS last FROM {tables('dead_letters')} WHERE {span.where}"
        ") GROUP BY batch_no, topic ORDER BY batch_no, topic"
    ):
        found.setdefault(batch_no, []).append((OffsetCount(*counts), clock_first, clock_last))
    return found
