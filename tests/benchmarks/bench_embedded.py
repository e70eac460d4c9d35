"""What the embedded server costs: large and small inserts, short queries, large results, and idling.

Target: at least 650,000 rows a second of an events-like table (33 numeric columns) from one client. Also printed: CPU of the
server and of the client. Files deleted shortly before make the kernel search for inodes, and small inserts more expensive
(ext4, five minutes): compare runs on a quiet machine.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import clickhouse_driver
import numpy as np
import psutil
import pytest

from adledger.sinks.embedded.launch import EmbeddedServer

pytestmark = pytest.mark.benchmark

WIDTHS = ("UInt8", "UInt16", "UInt32", "UInt64")
TYPES = [WIDTHS[i % 4] for i in range(33)]
NAMES = [f"c{i}" for i in range(33)]
ROWS = 100_000
LANES, TABLES = 16, 4
IDLE_SECONDS = 5
ONE_PART = {
    "async_insert": 0, "max_insert_threads": 1, "min_insert_block_size_rows": 0, "min_insert_block_size_bytes": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    columns = ", ".join(f"{name} {type_name}" for name, type_name in zip(NAMES, TYPES, strict=True))
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as running:
        with connect(running) as client:
            for table in range(TABLES):
                client.execute(
                    f"CREATE TABLE t{table} ({columns}) ENGINE = MergeTree ORDER BY (c2, c3) "
                    "SETTINGS fsync_after_insert = 1, fsync_part_directory = 1"
                )
        yield running


def connect(server: EmbeddedServer, **options) -> clickhouse_driver.Client:
    return clickhouse_driver.Client(
        server.host,
        port=server.port,
        settings={"use_numpy": True, "insert_block_size": 2**30, **ONE_PART},
        **options,
    )


def events(rows: int) -> list[np.ndarray]:
    random = np.random.default_rng(1)
    dtypes = [np.dtype(name.lower()) for name in TYPES]
    return [
        random.integers(0, 200 if i % 2 else np.iinfo(dtype).max, rows, dtype, endpoint=True)
        for i, dtype in enumerate(dtypes)
    ]


def insert(client: clickhouse_driver.Client, table: int, columns: list[np.ndarray]) -> None:
    client.execute(f"INSERT INTO t{table} ({', '.join(NAMES)}) VALUES", columns, columnar=True)


def report(server: EmbeddedServer, what: str, work: Callable[[], object], count: int, unit: str) -> None:
    """Run the work and print wall and CPU time a unit."""
    process = psutil.Process(server.pid)

    def used() -> tuple[float, float, float]:
        times = process.cpu_times()
        return time.perf_counter(), times.user + times.system, time.process_time()

    before = used()
    work()
    wall, cpu, own = ((b - a) / count * 1e6 for a, b in zip(before, used(), strict=True))
    print(
        f"\n{what}: {wall:,.2f} us a {unit} ({1e6 / wall:,.0f} {unit}s/s); CPU of the server {cpu:,.2f} us, "
        f"of the client {own:,.2f} us"
    )


@pytest.mark.parametrize("compression", [False, "lz4"])
def test_large_inserts(server, compression):
    """One client, 100,000 rows of 33 columns a block."""
    columns = events(ROWS)
    with connect(server, compression=compression) as client:
        insert(client, 0, columns)
        report(
            server,
            f"insert, compression {compression}",
            lambda: [insert(client, 0, columns) for _ in range(8)],
            8 * ROWS,
            "row",
        )


def test_large_inserts_of_four_lanes(server):
    """Four clients at once, each into its own table."""
    columns = events(ROWS)

    def lane(table: int) -> None:
        with connect(server) as client:
            for _ in range(4):
                insert(client, table, columns)

    with ThreadPoolExecutor(TABLES) as pool:
        report(
            server, "insert, 4 lanes", lambda: list(pool.map(lane, range(TABLES))), 4 * TABLES * ROWS, "row"
        )


def test_small_inserts(server):
    """One row an insert, one client: the fixed cost of an insert."""
    columns = events(1)
    with connect(server) as client:
        insert(client, 0, columns)
        report(
            server,
            "insert of one row",
            lambda: [insert(client, 0, columns) for _ in range(100)],
            100,
            "insert",
        )


def test_small_inserts_of_many_lanes(server):
    """Sixteen lanes, four tables."""
    columns = events(1)

    def lane(_: int) -> None:
        with connect(server) as client:
            for i in range(20):
                insert(client, i % TABLES, columns)

    with ThreadPoolExecutor(LANES) as pool:
        report(
            server,
            "insert of one row, 16 lanes",
            lambda: list(pool.map(lane, range(LANES))),
            LANES * 20,
            "insert",
        )


def test_short_queries(server):
    """SELECT 1."""
    with connect(server) as client:
        report(server, "SELECT 1", lambda: [client.execute("SELECT 1") for _ in range(300)], 300, "query")


def test_large_results(server):
    """Three million rows of two columns."""
    query = "SELECT number, number * 2 FROM numbers(3000000)"
    with connect(server) as client:
        client.execute(query, columnar=True)
        report(server, "result", lambda: client.execute(query, columnar=True), 3_000_000, "row")


def test_idling(server):
    """An idle server uses almost no CPU."""
    report(server, "idle", lambda: time.sleep(IDLE_SECONDS), IDLE_SECONDS, "second")
    print(f"memory: {psutil.Process(server.pid).memory_info().rss >> 20} MiB")
