"""What the sink costs: an insert's CPU on the client and its rows a second, reading back, rebuilding state.

Target: at most 0.2 us of client CPU an event inserted; 50 million ids of a lane rebuilt in 15 s (5 million here). The server
is the embedded one: its own transport, in Python, is part of the wall times.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.records.columns import U64
from adledger.schemas.classes import Class
from adledger.schemas.migrate import migrate
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.sink import Columns, Stamp

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(600)]

ROWS = 131_072
INSERTS = 12
LANE_BATCHES = 38  # 5 million ids
CLOCK = 1_767_225_600_000
DATABASE = "bench"
FOREVER = 2**32 - 1


def mixed(x: U64) -> U64:
    """Return numbers that look like hashes."""
    x = (x + np.uint64(0x9E3779B97F4A7C15)) * np.uint64(0xBF58476D1CE4E5B9)
    return x ^ (x >> np.uint64(31))


def a_batch(number: int) -> Columns:
    """Return a realistic batch: 400,000 publishers in a Zipf curve, heavy users, hashes that don't compress."""
    rng = np.random.default_rng(number)
    weights = np.cumsum(1 / np.arange(1, 400_001))
    publisher = np.searchsorted(weights / weights[-1], rng.random(ROWS)).astype("u4")
    users = (rng.random(ROWS) ** 2 * 5_000_000).astype("u8")
    campaign = rng.integers(0, 5000, ROWS, "u4")
    clicks = rng.random(ROWS) < 0.02
    log_time = CLOCK + number * 1000 + np.sort(rng.integers(0, 1000, ROWS))
    price = (campaign * np.uint32(7919)) % np.uint32(3_000_000)
    ids = mixed(np.arange(ROWS, dtype="u8") + np.uint64(number * ROWS))
    size = rng.integers(0, 4, ROWS)
    return {
        "event_type_code": clicks.astype("u1") + np.uint8(1),
        "event_time": log_time - rng.integers(0, 5000, ROWS),
        "publisher_id": publisher,
        "site_id": publisher * np.uint32(3),
        "campaign_id": campaign,
        "creative_id": campaign * np.uint32(4) + rng.integers(0, 4, ROWS, "u4"),
        "advertiser_id": campaign // np.uint32(5),
        "placement_id": rng.integers(0, 20, ROWS, "u4"),
        "id_hash": ids,
        "user_hash": mixed(users),
        "ua_hash": mixed(users % np.uint64(3000)),
        "page_hash": mixed(publisher.astype("u8")),
        "impression_hash": np.where(clicks, ids, np.uint64(0)),
        "ip_hi": np.zeros(ROWS, "u8"),
        "ip_lo": np.uint64(0xFFFF00000000) | (mixed(users) >> np.uint64(32)),
        "price_micros": price,
        "currency_code": np.full(ROWS, 14_000, "u2"),
        "country_code": (users % np.uint64(60)).astype("u2"),
        "width_px": np.array([300, 728, 160, 320], "u2")[size],
        "height_px": np.array([250, 90, 600, 50], "u2")[size],
        "flags": np.full(ROWS, 3, "u2"),
        "topic": clicks.astype("u1"),
        "offset": np.arange(ROWS) + number * ROWS,
        "log_time": log_time,
        "lane_clock": log_time,
        "class_code": np.where(rng.random(ROWS) < 0.01, Class.DUPLICATE, Class.BILLABLE).astype("u1"),
        "reasons": np.zeros(ROWS, "u8"),
        "money_nanos": price.astype("i8"),
        "judge_version": np.full(ROWS, 12_345_678_901, "u8"),
    }


def rollup_of(columns: Columns) -> Columns:
    """Return as many rollup rows as such a batch has: one for each of its publishers."""
    publishers, counts = np.unique(columns["publisher_id"], return_counts=True)
    n = len(publishers)
    return {
        "publisher_id": publishers,
        "minute": np.full(n, CLOCK // 60_000 * 60, "u4"),
        "event_type_code": np.ones(n, "u1"),
        "class_code": np.ones(n, "u1"),
        "currency_code": np.full(n, 14_000, "u2"),
        "records": counts.astype("u4"),
        "money_nanos": counts * 1000,
        "clock_day": np.full(n, CLOCK // 1000, "u4"),
    }


@pytest.fixture
async def sink(tmp_path: Path) -> AsyncIterator[ClickHouseSink]:
    with EmbeddedServer.start(tmp_path) as server:
        address = ServerAddress(server.host, server.port, server.http_port)
        with connect(address) as client:
            migrate(client, database=DATABASE, release="bench")
        sink = ClickHouseSink(address, SinkOptions(database=DATABASE))
        yield sink
        await sink.close()


async def measured(what: str, rows: int, work: Callable[[], Awaitable[Any]]) -> None:
    """Print the wall time and client CPU of some work."""
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(
        f"\n{what:44} {wall * 1e3:9.1f} ms {rows / wall / 1e3:9.0f} k rows/s "
        f"client CPU {cpu * 1e3:8.1f} ms {cpu / rows * 1e6:7.3f} us/row"
    )


async def test_inserting(sink: ClickHouseSink) -> None:
    """Batches of events and of their rollups, one after the other and two lanes at once."""
    batches = [a_batch(number) for number in range(INSERTS)]
    rollups = [rollup_of(columns) for columns in batches]

    async def insert(table: str, lanes: int) -> None:
        async def one_lane(lane: int) -> None:
            for number in range(lane, INSERTS, lanes):
                columns = (batches if table == "events" else rollups)[number]
                await sink.insert(table, columns, Stamp(lane, number, FOREVER))

        await asyncio.gather(*(one_lane(lane) for lane in range(lanes)))

    for lanes in (1, 2):
        await measured(f"events, {lanes} lane(s)", INSERTS * ROWS, lambda n=lanes: insert("events", n))
    rows = sum(len(columns["records"]) for columns in rollups)
    await measured("rollup_minute, 1 lane", rows, lambda: insert("rollup_minute", 1))


async def test_reading_back(sink: ClickHouseSink) -> None:
    """What recovery and a rebuild query, with 5 million events of the lane and as many of another."""
    for number in range(LANE_BATCHES):
        columns = a_batch(number)
        await asyncio.gather(*(sink.insert("events", columns, Stamp(n, number, FOREVER)) for n in (1, 2)))

    async def rebuild() -> None:
        found = 0
        async for block in sink.identities(1, 0, LANE_BATCHES):
            found += len(block.key)
        assert found > LANE_BATCHES * ROWS * 0.98

    for _ in range(2):
        await measured("identities, 5 million of a lane", LANE_BATCHES * ROWS, rebuild)
    last = LANE_BATCHES - 1
    await measured("stored_events, one batch", ROWS, lambda: sink.stored_events(1, last))
    await measured("batch_rows", 1, lambda: sink.batch_rows(1, last))
    await measured("last_batches, from the last", 1, lambda: sink.last_batches(1, last))
    await measured("ledger_end", 1, lambda: sink.ledger_end(1))
    await measured("server_time", 1, sink.server_time)
