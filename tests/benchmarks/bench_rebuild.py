"""What it costs a lane to rebuild its dedupe state: 50 million ids wanted within 15 s, in bounded memory.

`ADLEDGER_BENCH_IDS` takes another number of ids. The rows are made on the server, so most columns are zeros; those that
the rebuild reads are as unlike each other as real ones.
"""

import asyncio
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.addresses import ServerAddress
from pipeline.stages.dedupe import DedupeState
from schemas.migrate import migrate
from sinks.clickhouse import ClickHouseSink, SinkOptions
from sinks.connection import connect
from sinks.embedded.launch import EmbeddedServer

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1_800)]

IDS = int(os.environ.get("ADLEDGER_BENCH_IDS", "50000000"))
BATCH_ROWS = 131_072
ROWS_AN_INSERT = 4_000_000
CLOCK = 1_767_225_600_000
WINDOW_MS = 24 * 3_600_000
DATABASE = "bench"


def fill(server: EmbeddedServer) -> None:
    """Put one lane's events of a window into the table, in the lane's order."""
    client = connect(ServerAddress(server.host, server.port, server.http_port))
    migrate(client, database=DATABASE, release="bench")
    span = WINDOW_MS - 60_000
    for first in range(0, IDS, ROWS_AN_INSERT):
        rows = min(ROWS_AN_INSERT, IDS - first)
        client.execute(
            f"INSERT INTO {DATABASE}.events (lane, batch_no, send_by, offset, log_time, lane_clock, event_type_code, "
            "event_time, publisher_id, id_hash, user_hash, page_hash, ua_hash, price_micros, class_code) "
            f"SELECT 0, 1 + intDiv(number, {BATCH_ROWS}), 4294967295, number, t, t, 1, t, number % 400000, "
            "cityHash64(number), cityHash64(number, 1), cityHash64(number % 100000), number % 5000, number % 3000000, 1 "
            f"FROM (SELECT number, fromUnixTimestamp64Milli(toInt64({CLOCK} + intDiv(number * {span}, {IDS})), 'UTC') AS t "
            f"FROM numbers({first}, {rows}))",
            settings={"max_insert_threads": 2, "materialize_skip_indexes_on_insert": 0},
        )
    client.disconnect()


async def rebuilt(server: EmbeddedServer) -> tuple[DedupeState, float]:
    """Return a lane's state made from the table, and how long it took."""
    sink = ClickHouseSink(
        ServerAddress(server.host, server.port, server.http_port), SinkOptions(database=DATABASE)
    )
    state = DedupeState(WINDOW_MS)
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as pool:
        began = time.perf_counter()
        async for block in sink.identities(0, CLOCK - 1, IDS):
            state.reserve(block.expected)
            await loop.run_in_executor(pool, lambda b=block: state.load(b.key, b.fingerprint, b.lane_clock))
        seconds = time.perf_counter() - began
    await sink.close()
    return state, seconds


def test_rebuild(tmp_path: Path):
    """Every id is there; seconds and memory are printed."""
    with EmbeddedServer.start(tmp_path / "clickhouse") as server:
        fill(server)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cpu = time.process_time()
        state, seconds = asyncio.run(rebuilt(server))
        cpu = time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert state.taken == IDS
    print(
        f"\n{IDS:,} ids rebuilt in {seconds:.1f} s ({IDS / seconds:,.0f} a second, {cpu:.1f} CPU s here); "
        f"peak {peak:,.0f} MiB, {before:,.0f} MiB before; the state is {state.capacity * 16 / 2**20:,.0f} MiB"
    )
