"""Retention against ClickHouse: reads what the tables hold, and drops old days. Each drop is written to `retention_log` first."""

# ruff: noqa: S608 - names of tables are ours, the database's is a setting with a pattern

import asyncio
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.lanes.server import connected
from adledger.pipeline.ledger.queries import QueryClient, TableNames
from adledger.pipeline.log.source import Source
from adledger.pipeline.retention.plan import Keep, Partition, RetentionPlan, plan
from adledger.pipeline.settings import Settings
from adledger.schemas.tables import PROTOCOL_TABLES

HOUR_MS, MINUTE_MS = 3_600_000, 60_000
EVERY_SECONDS = 3_600

NO_SIZE_LIMIT = {"max_partition_size_to_drop": 0}
"""ClickHouse refuses to drop more than 50 GB; a day of events may be larger, and is dropped on purpose."""


def keep_of(settings: Settings) -> Keep:
    """Return how long the settings keep each table's rows."""
    return Keep(
        days={
            "events": settings.retention_events_days,
            "dead_letters": settings.retention_events_days,
            "rollup_minute": settings.retention_rollups_days,
            "ledger": settings.retention_ledger_days,
        },
        state_ms=settings.dedupe_window_hours * HOUR_MS + settings.rule_horizon_minutes_max * MINUTE_MS,
    )


def lane_clocks(client: QueryClient, tables: TableNames) -> dict[int, int]:
    """Return lane -> its watermark in the ledger (ms)."""
    rows = client.execute(
        f"SELECT lane, toUnixTimestamp64Milli(argMax(clock_after, batch_no)) FROM {tables('ledger')} GROUP BY lane"
    )
    return {int(lane): int(clock) for lane, clock in rows}


def partitions(client: QueryClient, settings: Settings) -> list[Partition]:
    """Return what the protocol's tables hold, by day; on a cluster, on all shards."""
    parts = (
        "system.parts"
        if settings.cluster is None
        else f"clusterAllReplicas('{settings.cluster}', system.parts)"
    )
    rows = client.execute(
        f"SELECT table, partition_id, sum(rows), sum(bytes_on_disk) FROM {parts} "
        "WHERE active AND database = %(database)s AND table IN %(tables)s GROUP BY table, partition_id",
        {"database": settings.database, "tables": PROTOCOL_TABLES},
    )
    return [
        Partition(table, datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).date(), int(n), int(size))
        for table, day, n, size in rows
    ]


async def lanes_at_work(source: Source, lanes: int, known: Mapping[int, int]) -> set[int]:
    """Return the lanes that have records to read and no ledger row yet. Raises LogError."""
    found = set()
    for lane in set(range(lanes)) - known.keys():
        if any(b.end > b.first for b in (await source.bounds(lane)).values()):
            found.add(lane)
    return found


def carry_out(client: QueryClient, settings: Settings, found: RetentionPlan) -> None:
    """Drop what a plan names, the ledger's rows last; dropping a day twice is harmless."""
    keep = keep_of(settings)
    where = f"ON CLUSTER {settings.cluster}" if settings.cluster is not None else ""
    for gone in sorted(found.drops, key=lambda p: PROTOCOL_TABLES.index(p.table)):
        client.execute(
            f"INSERT INTO {settings.database}.retention_log "
            "(table, day, rows, bytes, clock_min, retention_days) VALUES",
            [
                (
                    gone.table, gone.day, gone.rows, gone.bytes,
                    datetime.fromtimestamp((found.clock_min or 0) / 1000, UTC), keep.days[gone.table],
                )
            ],
            settings={"async_insert": 0},
        )  # fmt: skip
        client.execute(
            f"ALTER TABLE {settings.database}.{gone.table} {where} DROP PARTITION ID '{_id(gone.day)}'",
            settings=NO_SIZE_LIMIT,
        )


async def planned(settings: Settings, address: ServerAddress, source: Source, lanes: int) -> RetentionPlan:
    """Return which partitions may be dropped now. `lanes` is the log's number of lanes. Raises LogError, SinkError."""
    tables = TableNames(settings.database, settings.cluster)

    def read() -> tuple[dict[int, int], list[Partition]]:
        with connected(address) as client:
            return lane_clocks(client, tables), partitions(client, settings)

    clocks, found = await asyncio.to_thread(read)
    return plan(clocks, await lanes_at_work(source, lanes, clocks), found, keep_of(settings))


async def run_once(settings: Settings, address: ServerAddress, source: Source, lanes: int) -> RetentionPlan:
    """Plan and carry out. Raises LogError, SinkError."""
    found = await planned(settings, address, source, lanes)

    def drop() -> None:
        with connected(address) as client:
            carry_out(client, settings, found)

    await asyncio.to_thread(drop)
    return found


async def run_hourly(
    settings: Settings,
    address: ServerAddress,
    source: Source,
    lanes: Callable[[], int | None],
    say: Callable[[str], None],
) -> None:
    """Carry out retention every hour, if it is enabled, until cancelled.

    `lanes` returns how many lanes the log has if this worker owns lane 0, whose owner runs retention; else None.
    """
    while settings.retention_enabled:
        await asyncio.sleep(EVERY_SECONDS)
        count = lanes()
        if count is None:
            continue
        try:
            done = await run_once(settings, address, source, count)
        except AdledgerError as error:
            say(f"retention: {error.message}; the next attempt is in an hour")
            continue
        for gone in done.drops:
            say(f"retention: dropped {gone.day} of {gone.table}, {gone.rows:,} rows")


def _id(day: date) -> str:
    return day.strftime("%Y%m%d")
