"""The sink's queries are served by a projection or the primary key, on the engine itself, in old databases and new ones."""

import re
from collections.abc import AsyncIterator, Iterator

import numpy as np
import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.schemas.migrate import load, migrate
from adledger.schemas.statements import Target, render
from adledger.sinks import queries
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.sink import Stamp
from tests.contracts.sink_suite import CLOCK, entry, events, rollups

DATABASE, OLD_DATABASE = "queries", "queries_old"
LANES, BATCHES, ROWS = 3, 3, 20_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as running:
        yield ServerAddress(running.host, running.port, running.http_port)


@pytest.fixture
async def client(server: ServerAddress) -> AsyncIterator[Client]:
    """Two databases with three lanes of three batches, merged into one part, so that only an index separates them.

    The old one's `events` is as the first migration creates it.
    """
    with connect(server) as client:
        if migrate(client, database=DATABASE, release="test"):
            await fill(server, client, DATABASE)
            client.execute(f"CREATE DATABASE {OLD_DATABASE}")
            for statement in render(load()[0].sql, Target(OLD_DATABASE)):
                client.execute(statement)
            migrate(client, database=OLD_DATABASE, release="test")
            await fill(server, client, OLD_DATABASE)
        yield client


async def fill(server: ServerAddress, client: Client, database: str) -> None:
    sink = ClickHouseSink(server, SinkOptions(database=database))
    for lane in range(LANES):
        for number in range(BATCHES):
            stamp = Stamp(lane, number, 2**32 - 1)
            await sink.insert("events", events(ROWS, seed=number), stamp)
            await sink.insert("rollup_minute", rollups(ROWS), stamp)
            await sink.insert("ledger", ledger_columns(entry(lane, number)), stamp)
    await sink.close()
    for table in ("events", "rollup_minute", "ledger"):
        client.execute(f"OPTIMIZE TABLE {database}.{table} FINAL")


def plan(client: Client, query: str) -> str:
    return "\n".join(line for (line,) in client.execute(f"EXPLAIN indexes = 1, projections = 1 {query}"))


def of_lane(database: str) -> list[str]:
    """Return what a lane reads of `events`."""
    return [
        queries.stored_events(database, 1, 1),
        queries.identities(database, 1, CLOCK, 2),
        queries.rule_events(database, 1, CLOCK, 2),
        f"SELECT count() FROM {database}.events WHERE lane = 1 AND batch_no = 1",
    ]


@pytest.mark.parametrize(
    ("database", "source"), [(DATABASE, f"{DATABASE}.events"), (OLD_DATABASE, "by_lane")]
)
@pytest.mark.parametrize("which", range(4))
async def test_a_lane_is_read_in_its_order(client: Client, database: str, source: str, which: int) -> None:
    """The primary key finds one of three lanes with at most a third of the rows, and a granule at each end."""
    explained = plan(client, of_lane(database)[which])
    assert f"ReadFromMergeTree ({source})" in explained
    selected, total = map(int, re.findall(r"Granules: (\d+)/(\d+)", explained)[-1])
    assert selected <= total / LANES + 2


@pytest.mark.parametrize("which", range(3))
async def test_a_lane_is_read_without_sorting(client: Client, which: int) -> None:
    """What is asked for in the lane's order streams in the order in which it is stored, at most a batch held back."""
    for database in (DATABASE, OLD_DATABASE):
        explained = "\n".join(
            row for (row,) in client.execute(f"EXPLAIN PLAN actions = 1 {of_lane(database)[which]}")
        )
        ordered = "ORDER BY" in of_lane(database)[which]
        assert ("Prefix sort description" in explained or "Read type: InOrder" in explained) == ordered


async def test_a_publisher_is_read_through_its_projection(client: Client) -> None:
    """v_reasons of one publisher reads its rows alone, on servers of any supported release."""
    ((publisher,),) = client.execute(f"SELECT any(publisher_id) FROM {DATABASE}.events")
    explained = plan(
        client,
        f"SELECT step, reason, sum(events), sum(money) FROM {DATABASE}.v_reasons WHERE publisher_id = {publisher} "
        "GROUP BY step, reason",
    )
    assert "ReadFromMergeTree (by_publisher)" in explained
    selected, total = map(int, re.findall(r"Granules: (\d+)/(\d+)", explained)[-1])
    assert selected < total


async def test_a_period_of_events_reads_few_granules(client: Client) -> None:
    """A granule of a lane spans little time, so the minmax index of event times leaves out the others."""
    ((first,),) = client.execute(f"SELECT min(toUnixTimestamp64Milli(event_time)) FROM {DATABASE}.events")
    explained = plan(
        client,
        f"SELECT * FROM {DATABASE}.events WHERE event_time < fromUnixTimestamp64Milli(toInt64({first}), 'UTC')",
    )
    assert "by_time" in explained
    selected, _ = map(int, re.findall(r"Granules: (\d+)/(\d+)", explained)[-1])
    assert selected == 0


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
