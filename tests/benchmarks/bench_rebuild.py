"""What rebuilding its dedupe state costs a lane. Target: 50 million ids within 15 s, in bounded memory.

`ADLEDGER_BENCH_IDS` sets another number of ids. The rows are generated on the server; the columns that the rebuild reads
have as many distinct values as real ones, the others are zeros. Seconds depend on the machine's other load; CPU seconds,
printed by part, hardly do.
"""

import asyncio
import os
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.lanes.warm import compile_kernels
from adledger.pipeline.stages.dedupe import DedupeState
from adledger.schemas.migrate import migrate
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.sink import Identities

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
            "event_time, publisher_id, site_id, campaign_id, creative_id, advertiser_id, id_hash, user_hash, impression_hash, "
            "price_micros, currency_code, class_code) "
            f"SELECT 0, 1 + intDiv(number, {BATCH_ROWS}), 4294967295, number, t, t, 1 + c, "
            "t - toIntervalMillisecond(h % 60000), p, p * 3 + h % 3, h % 20000, h % 200000, h % 5000, cityHash64(number), "
            "cityHash64(number % 1000003), c * cityHash64(number, 2), h % 5000, 1 + h % 3, 1 "
            "FROM (SELECT number, number % 100 = 0 AS c, intHash64(number) AS h, h % 400000 AS p, "
            f"fromUnixTimestamp64Milli(toInt64({CLOCK} + intDiv(number * {span}, {IDS})), 'UTC') AS t "
            f"FROM numbers({first}, {rows}))",
            settings={"max_insert_threads": 2, "materialize_skip_indexes_on_insert": 0},
        )
    client.execute(
        f"INSERT INTO {DATABASE}.ledger (lane, batch_no, send_by, clock_after, records_received) "
        f"SELECT lane, batch_no, 4294967295, max(lane_clock), count() FROM {DATABASE}.events GROUP BY lane, batch_no",
        settings={"max_partitions_per_insert_block": 0},
    )
    client.disconnect()


def cpu_of(pid: int) -> float:
    """Return the CPU seconds of another process."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


async def rebuilt(server: EmbeddedServer) -> tuple[DedupeState, float, float]:
    """Return a lane's state rebuilt from the table, how long it took, and the CPU seconds of loading alone."""
    sink = ClickHouseSink(
        ServerAddress(server.host, server.port, server.http_port), SinkOptions(database=DATABASE)
    )
    state, loading = DedupeState(WINDOW_MS), 0.0
    loop = asyncio.get_running_loop()

    def load(block: Identities) -> None:
        nonlocal loading
        began = time.thread_time()
        state.load(block.key, block.source, block.fingerprint, block.lane_clock)
        loading += time.thread_time() - began

    with ThreadPoolExecutor(1) as pool:
        began = time.perf_counter()
        async for block in sink.identities(0, CLOCK - 1, IDS):
            state.reserve(block.expected)
            await loop.run_in_executor(pool, load, block)
        seconds = time.perf_counter() - began
    await sink.close()
    return state, seconds, loading


def test_rebuild(tmp_path: Path):
    """Every id is there; seconds and memory are printed."""
    with EmbeddedServer.start(tmp_path / "clickhouse") as server:
        fill(server)
        compile_kernels()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        cpu, server_cpu = time.process_time(), cpu_of(server.pid)
        state, seconds, loading = asyncio.run(rebuilt(server))
        cpu, server_cpu = time.process_time() - cpu, cpu_of(server.pid) - server_cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    assert state.taken == IDS
    print(
        f"\n{IDS:,} ids rebuilt in {seconds:.1f} s ({IDS / seconds:,.0f} a second); CPU: {server_cpu:.1f} s in ClickHouse, "
        f"{cpu:.1f} s here, of which {loading:.1f} s load the table; "
        f"peak {peak:,.0f} MiB, {before:,.0f} MiB before; the state is {state.capacity * 16 / 2**20:,.0f} MiB"
    )
