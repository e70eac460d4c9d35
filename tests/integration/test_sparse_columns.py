"""Columns that ClickHouse stores and sends sparse are read like any other, and the protocol's tables store none sparse."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from adledger import __version__
from adledger.loadtest.lab.clickhouse_server import ClickHouseServer
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.addresses import FilesAddress, ServerAddress
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.start import run_worker
from adledger.pipeline.settings import Settings
from adledger.schemas.migrate import migrate
from adledger.schemas.tables import PROTOCOL_TABLES, TEXT_COLUMNS
from adledger.sinks.connection import Client, connect

LANES = 8
MODEL = TrafficModel(seed=3, events=20_000, partitions=LANES, duration_hours=2, click_share=0.03)
DEFAULT_RATIO = 0.9375
"""ClickHouse's default: a part's column with at least this share of default values is stored sparse."""


@pytest.fixture
def client(clickhouse_server: ClickHouseServer) -> Iterator[Client]:
    with connect(address(clickhouse_server)) as client:
        yield client


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sparse") / "log"
    with open_log(folder, LANES) as writer:
        write_traffic(MODEL, writer, lambda _: None)
    return folder


def address(server: ClickHouseServer) -> ServerAddress:
    return ServerAddress(server.host, server.port, server.http_port)


def run(server: ClickHouseServer, log: Path, database: str, group: str) -> list[str]:
    """Run a worker to the log's end, and return its output."""
    lines: list[str] = []
    settings = Settings(
        source=FilesAddress(log), clickhouse=address(server), database=database, group=group, rules="none",
        write_deadline_seconds=3,
    )  # fmt: skip
    assert run_worker(settings, until_caught_up=True, progress=lines.append) is not None
    return lines


def sparse(client: Client, database: str) -> set[tuple[str, str]]:
    """Return (table, column) of what active parts store sparse."""
    return set(
        client.execute(
            "SELECT table, column FROM system.parts_columns WHERE database = %(database)s AND active "
            "AND serialization_kind = 'Sparse'",
            {"database": database},
        )
    )


def test_a_group_goes_over_to_another_database_with_sparse_columns(
    clickhouse_server: ClickHouseServer, client: Client, log: Path
) -> None:
    """Every lane settles what was in doubt from rows that are read back sparse, and no lane halts."""
    migrate(client, database="sparse_b", release=__version__)
    for table in PROTOCOL_TABLES:
        client.execute(
            f"ALTER TABLE sparse_b.{table} MODIFY SETTING ratio_of_defaults_for_sparse_serialization = {DEFAULT_RATIO}"
        )
    run(clickhouse_server, log, "sparse_a", "sparse")
    lines = run(clickhouse_server, log, "sparse_b", "sparse")
    assert ("events", "topic") in sparse(client, "sparse_b"), "what is read back was stored sparse"
    assert not [line for line in lines if "truncated" in line]
    assert client.execute("SELECT uniqExact(lane) FROM sparse_b.ledger") == [(LANES,)]


def test_tables_store_no_column_sparse(
    clickhouse_server: ClickHouseServer, client: Client, log: Path
) -> None:
    """Neither fresh nor merged parts do, of any table that workers write."""
    run(clickhouse_server, log, "dense", "dense")
    written = {*PROTOCOL_TABLES, *TEXT_COLUMNS}
    for table in written:
        client.execute(f"OPTIMIZE TABLE dense.{table} FINAL")
    assert client.execute("SELECT countIf(topic = 0) / count() > 0.9375 FROM dense.events") == [(1,)]
    assert {(table, column) for table, column in sparse(client, "dense") if table in written} == set()


def test_columns_are_arrays_of_their_declared_dtype(client: Client) -> None:
    """Every type that a query for arrays may return, sparse or not, has the same values, as an array of its dtype."""
    types = {
        **{f"{kind}{bits}": f"{dtype}{bits // 8}" for kind, dtype in (("UInt", "u"), ("Int", "i")) for bits in (8, 16, 32, 64)},
        "Float32": "f4", "Float64": "f8", "Bool": "?",
    }  # fmt: skip
    columns = ", ".join(f"c{n} {type_name}" for n, type_name in enumerate(types))
    client.execute("CREATE DATABASE IF NOT EXISTS kinds")
    for ratio in (DEFAULT_RATIO, 1):
        client.execute(f"CREATE OR REPLACE TABLE kinds.t (n UInt64, {columns}) ENGINE = MergeTree ORDER BY n "
                       f"SETTINGS ratio_of_defaults_for_sparse_serialization = {ratio}")  # fmt: skip
        values = ", ".join(["number = 7"] * len(types))
        client.execute(f"INSERT INTO kinds.t SELECT number, {values} FROM numbers(1000)")
        assert len(sparse(client, "kinds")) == (len(types) if ratio < 1 else 0)
        read = client.columns(
            f"SELECT {', '.join(f'c{n}' for n in range(len(types)))} FROM kinds.t ORDER BY n"
        )
        for array, (type_name, dtype) in zip(read, types.items(), strict=True):
            expected = np.zeros(1000, dtype)
            expected[7] = 1
            assert array.dtype == np.dtype(dtype), type_name
            assert np.array_equal(array, expected), type_name
