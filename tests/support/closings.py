"""Databases of generated traffic to close periods of: filled by a worker once, copied for each test."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.addresses import FilesAddress, ServerAddress
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.start import run_worker
from adledger.pipeline.settings import Settings
from adledger.schemas.migrate import migrate
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.connection import Client
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.sink import OffsetRange, Stamp

MODEL = TrafficModel(
    seed=14, start_ms=1_735_774_200_000, events=4_000, partitions=3, duration_hours=1, publishers=60, campaigns=50, second_currency_share=0.3,
    late_share=0.08, expired_share=0.01, duplicate_share=0.05, malformed_share=0.01,
)  # fmt: skip
"""An hour around midnight with much that is late, in two currencies."""

HOUR_MS = 3_600_000
SEND_BY = 4_000_000_000
COPIED = ("events", "dead_letters", "rollup_minute", "ledger")
FINALS = "SELECT * EXCEPT run_id FROM {}.v_publisher_periods ORDER BY ALL"
ADJUSTMENTS = "SELECT * EXCEPT run_id FROM {}.v_adjustments ORDER BY ALL"


def fill(folder: Path, address: ServerAddress, database: str) -> None:
    """Write MODEL's traffic into a log, and let a worker read it, in batches of a hundred records."""
    with open_log(folder / "log", MODEL.partitions) as writer:
        write_traffic(MODEL, writer, lambda _: None)
    settings = Settings(
        source=FilesAddress(folder / "log"), clickhouse=address, database=database, batch_rows_max=100,
    )  # fmt: skip
    assert run_worker(settings, until_caught_up=True, progress=lambda _: None) is not None


def copy(client: Client, source: str, database: str) -> str:
    """Copy the tables of batches into a new database, without the deadline that their rows have missed by now."""
    migrate(client, database=database, release="test")
    for table in COPIED:
        client.execute(f"ALTER TABLE {database}.{table} DROP CONSTRAINT in_time")
        columns = client.execute(
            "SELECT arrayStringConcat(groupArray(concat('`', name, '`')), ', ') FROM system.columns "
            "WHERE database = %(d)s AND table = %(t)s AND default_kind IN ('', 'DEFAULT')",
            {"d": source, "t": table},
        )[0][0]
        client.execute(f"INSERT INTO {database}.{table} ({columns}) SELECT {columns} FROM {source}.{table}")
    return database


async def advance(address: ServerAddress, database: str, lanes: Iterable[int], by_ms: int) -> None:
    """Write the empty batch that an idle lane of Kafka writes, for each lane: its watermark goes on by `by_ms`."""
    sink = ClickHouseSink(address, SinkOptions(database=database))
    for lane in lanes:
        end = await sink.ledger_end(lane)
        assert end is not None
        entry = replace(
            end, batch_no=end.batch_no + 1, ranges=tuple(OffsetRange(r.topic, r.end, r.end) for r in end.ranges),
            clock_before=end.clock_after, clock_after=end.clock_after + by_ms, cut_time=end.clock_after + by_ms,
            records_received=0, counts={}, money=(), rollup_rows=0, events_digest=0, dead_letters_digest=0,
        )  # fmt: skip
        await sink.insert("ledger", ledger_columns(entry), Stamp(lane, entry.batch_no, SEND_BY))
    await sink.close()


class DyingClient:
    """A client whose process dies at one insert into a table: before it is sent, or after it was answered."""

    class Died(BaseException):
        """The process is gone: nothing after it runs, no handler either."""

    def __init__(self, client: Client, table: str, *, after: bool) -> None:
        self._client, self._table, self._after = client, table, after

    def execute(self, query: str, *arguments: Any, **options: Any) -> Any:
        dies = query.startswith("INSERT INTO") and query.split()[2].endswith(f".{self._table}")
        if dies and not self._after:
            raise self.Died
        answer = self._client.execute(query, *arguments, **options)
        if dies:
            raise self.Died
        return answer


class MeanwhileClient:
    """A client that lets something else happen, once, just before it inserts into a table."""

    def __init__(self, client: Client, table: str, meanwhile: Any) -> None:
        self._client, self._table, self._meanwhile = client, table, meanwhile

    def execute(self, query: str, *arguments: Any, **options: Any) -> Any:
        if query.startswith("INSERT INTO") and query.split()[2].endswith(f".{self._table}"):
            meanwhile, self._meanwhile = self._meanwhile, lambda: None
            meanwhile()
        return self._client.execute(query, *arguments, **options)
