"""The sink's queries are served by a projection or the primary key, on the engine itself."""

import re
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.schemas.migrate import migrate
from adledger.sinks import queries
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.sink import Stamp
from tests.contracts.sink_suite import CLOCK, entry, events, rollups

DATABASE = "queries"
LANES, BATCHES, ROWS = 3, 3, 20_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as running:
        yield ServerAddress(running.host, running.port, running.http_port)


@pytest.fixture
async def client(server: ServerAddress) -> AsyncIterator[Client]:
    """Three lanes of three batches, merged into one part, so that only an index separates them."""
    with connect(server) as client:
        if migrate(client, database=DATABASE, release="test"):
            sink = ClickHouseSink(server, SinkOptions(database=DATABASE))
            for lane in range(LANES):
                for number in range(BATCHES):
                    stamp = Stamp(lane, number, 2**32 - 1)
                    await sink.insert("events", events(ROWS, seed=number), stamp)
                    await sink.insert("rollup_minute", rollups(ROWS), stamp)
                    await sink.insert("ledger", ledger_columns(entry(lane, number)), stamp)
            await sink.close()
            for table in ("events", "rollup_minute", "ledger"):
                client.execute(f"OPTIMIZE TABLE {DATABASE}.{table} FINAL")
        yield client


def plan(client: Client, query: str) -> str:
    return "\n".join(line for (line,) in client.execute(f"EXPLAIN indexes = 1, projections = 1 {query}"))


@pytest.mark.parametrize(
    "query",
    [
        queries.stored_events(DATABASE, 1, 1),
        queries.identities(DATABASE, 1, CLOCK, 2),
        queries.rule_events(DATABASE, 1, CLOCK, 2),
        f"SELECT count() FROM {DATABASE}.events WHERE lane = 1 AND batch_no = 1",
    ],
)
async def test_a_lane_is_read_through_its_projection(client: Client, query: str) -> None:
    """The primary key of by_lane finds one of three lanes with at most a third of the rows, and a granule at each end."""
    explained = plan(client, query)
    assert "ReadFromMergeTree (by_lane)" in explained
    selected, total = map(int, re.findall(r"Granules: (\d+)/(\d+)", explained)[-1])
    assert selected <= total / LANES + 2


async def test_rollup_rows_are_counted_without_reading_them(client: Client) -> None:
    """The projection holds one row for each batch."""
    explained = plan(client, f"SELECT count() FROM {DATABASE}.rollup_minute WHERE lane = 1 AND batch_no = 1")
    assert "ReadFromMergeTree (per_batch)" in explained


async def test_a_look_up_by_id_reads_one_granule(client: Client) -> None:
    """Merged parts have the bloom filters that inserts leave out."""
    wanted = int(np.asarray(events(ROWS, seed=0)["id_hash"])[7])
    explained = plan(client, f"SELECT * FROM {DATABASE}.events WHERE id_hash = {wanted}")
    selected, total = map(int, re.findall(r"Granules: (\d+)/(\d+)", explained)[-1])
    assert total >= LANES
    assert selected <= 2 * LANES
