"""What explanations read from ClickHouse. Our own numbers are formatted into queries; strings are parameters."""

# ruff: noqa: S608 - names of tables are settings with a pattern, numbers are formatted as integers

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adledger.pipeline.explain.rows import COLUMNS, TIMES, EventRow
from adledger.pipeline.ledger.queries import QueryClient, TableNames
from adledger.pipeline.lists.publishers import PublisherStatus
from adledger.schemas.classes import Class
from adledger.schemas.wire import EventType, Flag
from adledger.sinks.rules import publishers_sql

MATCHES_MAX = 100
"""The most events of one id that are shown."""

_COLUMNS = ", ".join(f"toUnixTimestamp64Milli({c})" if c in TIMES else c for c in COLUMNS)
_PLACE = "batch_no, toUnixTimestamp64Milli(lane_clock), topic, offset"
_ORDER = "ORDER BY lane, batch_no, events.lane_clock, topic, offset"


@dataclass(frozen=True, slots=True)
class StoredEvaluator:
    """A row of `judges`: the rule set's text, bits of the enforced rules, rules not evaluated (and why), lists by content."""

    version: int
    rules: str
    enforced: int
    not_evaluated: Mapping[str, str]
    list_contents: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """The ledger's row of a batch: ranges (topic, start, end), records, and when it was written."""

    ranges: tuple[tuple[int, int, int], ...]
    clock_before: int
    clock_after: int
    records_received: int
    written_at: str


class Store:
    """The tables of one database."""

    def __init__(self, client: QueryClient, tables: TableNames) -> None:
        self._client, self._tables = client, tables

    def find(self, id_hash: int, event_type: EventType | None, publisher_id: int | None) -> list[EventRow]:
        """Return the events of an id, oldest first, at most MATCHES_MAX."""
        where = f"id_hash = {id_hash:d}"
        where += f" AND event_type_code = {event_type:d}" if event_type is not None else ""
        where += f" AND publisher_id = {publisher_id:d}" if publisher_id is not None else ""
        return self._events(
            f"WHERE {where} ORDER BY events.log_time, lane, batch_no, topic, offset LIMIT {MATCHES_MAX}"
        )

    def copies(self, row: EventRow) -> list[EventRow]:
        """Return all events of one identity in a lane, in its order: a first, its duplicates, and later firsts."""
        return self._events(
            f"WHERE id_hash = {row.id_hash:d} AND publisher_id = {row.publisher_id:d} AND lane = {row.lane:d} "
            f"AND event_type_code = {row.event_type_code:d} {_ORDER} LIMIT {MATCHES_MAX}"
        )

    def sample(self, bits: int, of_each: int, of_the_rest: int) -> list[EventRow]:
        """Return some first events for each set of these reasons (bits) that any has, and some that have none; always the same."""
        counted = f"class_code != {Class.DUPLICATE:d}"
        hit = f"bitAnd(reasons, {bits:d})"
        return [
            *self._events(
                f"WHERE {counted} AND {hit} != 0 ORDER BY id_hash, lane LIMIT {of_each:d} BY {hit}"
            ),
            *self._events(f"WHERE {counted} AND {hit} = 0 ORDER BY id_hash, lane LIMIT {of_the_rest:d}"),
        ]

    def earlier(self, row: EventRow, horizon_ms: int) -> list[EventRow]:
        """Return the lane's firsts before an event, within a horizon, that rules may compare it with, in its order.

        Those of its person, its impression's id, and clicks on the same impression.
        """
        related = [
            f"(bitTest(flags, {Flag.KEYED_BY_IP:d}) AND ip_hi = {row.ip_hi:d} AND ip_lo = {row.ip_lo:d} "
            f"AND ua_hash = {row.ua_hash:d})"
            if row.cookieless
            else f"user_hash = {row.user_hash:d}"
        ]
        if row.event_type_code == EventType.CLICK:
            shown = row.impression_hash
            related += [f"(event_type_code = {EventType.IMPRESSION:d} AND id_hash = {shown:d})"]
            related += [f"(event_type_code = {EventType.CLICK:d} AND impression_hash = {shown:d})"]
        since = f"fromUnixTimestamp64Milli({row.lane_clock - horizon_ms:d}, 'UTC')"
        until = f"fromUnixTimestamp64Milli({row.lane_clock:d}, 'UTC')"
        first = f"(SELECT min(batch_no) FROM {self._tables('ledger')} WHERE lane = {row.lane:d} AND clock_after >= {since})"
        return self._events(
            f"WHERE lane = {row.lane:d} AND batch_no >= {first} AND batch_no <= {row.batch_no:d} "
            f"AND events.lane_clock >= {since} AND events.lane_clock <= {until} AND class_code != {Class.DUPLICATE:d} "
            f"AND ({' OR '.join(related)}) "
            f"AND ({_PLACE}) < ({row.batch_no:d}, {row.lane_clock:d}, {row.topic:d}, {row.offset:d}) {_ORDER}"
        )

    def evaluator(self, version: int) -> StoredEvaluator | None:
        """Return what an evaluator version is made of; None if it is not stored (no rules, or from before it was kept)."""
        rows = self._client.execute(
            "SELECT rules, enforced, not_evaluated, mapFromArrays(list_names, list_contents) "
            f"FROM {self._tables.database}.judges WHERE version = {version:d} LIMIT 1"
        )
        return StoredEvaluator(version, *rows[0]) if rows else None

    def ledger_row(self, lane: int, batch_no: int) -> LedgerRow | None:
        """Return the ledger's row of a batch, None if it is not done yet."""
        rows = self._client.execute(
            "SELECT arrayZip(range_topic, range_start, range_end), toUnixTimestamp64Milli(clock_before), "
            "toUnixTimestamp64Milli(clock_after), records_received, toString(written_at) "
            f"FROM {self._tables('ledger')} WHERE lane = {lane:d} AND batch_no = {batch_no:d} LIMIT 1"
        )
        return LedgerRow(tuple(map(tuple, rows[0][0])), *rows[0][1:]) if rows else None

    def publishers(self) -> dict[int, PublisherStatus]:
        """Return the status of each publisher as it is now; those of a status that is unknown here are left out."""
        rows = self._client.execute(publishers_sql(self._tables.database))
        names = {status.name.lower(): status for status in PublisherStatus if status}
        return {int(publisher): names[status] for publisher, status in rows if status in names}

    def text(self, table: str, column: str, value: int) -> bytes | None:
        """Return the text behind a hash in `user_agents` or `pages`, None where it is not stored."""
        rows = self._client.execute(
            f"SELECT text FROM {self._tables(table)} WHERE {column} = {value:d} LIMIT 1",
            settings={"strings_as_bytes": True},
        )
        return rows[0][0] if rows else None

    def dead_letters(self, event_id: str, rows_max: int) -> Sequence[tuple[int, int, int, int]]:
        """Return (topic, lane, offset, reason code) of malformed records whose bytes hold an id."""
        return [
            (int(topic), int(lane), int(offset), int(code))
            for topic, lane, offset, code in self._client.execute(
                f"SELECT topic, lane, offset, reason_code FROM {self._tables('dead_letters')} "
                f"WHERE position(value, %(id)s) > 0 ORDER BY log_time LIMIT {rows_max:d}",
                {"id": event_id},
            )
        ]

    def _events(self, rest: str) -> list[EventRow]:
        rows = self._client.execute(f"SELECT {_COLUMNS} FROM {self._tables('events')} AS events {rest}")
        return [EventRow(*row) for row in rows]
