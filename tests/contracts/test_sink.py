"""Every sink keeps the laws of `sink_suite`."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clickhouse_driver.errors import ServerException

from adledger.pipeline.addresses import ServerAddress
from adledger.schemas.migrate import migrate
from adledger.schemas.tables import PROTOCOL_COLUMNS
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.connection import connect
from adledger.sinks.insert_settings import insert_settings
from adledger.sinks.memory import MemorySink, SinkFaults
from adledger.sinks.outcomes import TOO_MANY_PARTS, insert_outcome
from adledger.sinks.queries import insert_id_prefix
from adledger.sinks.sink import Stamp
from tests.contracts.sink_suite import SinkContract, events
from tests.support.clickhouse_servers import SERVERS, address_of, running_server


class _Hold(SinkFaults):
    """Inserts of these lanes run until they are killed."""

    def __init__(self) -> None:
        self.lanes: set[int] = set()
        self.arrived = asyncio.Event()

    async def running(self, table: str, stamp: Stamp) -> None:
        if stamp.lane in self.lanes:
            self.arrived.set()
            await asyncio.Event().wait()


class MemoryHarness:
    def __init__(self) -> None:
        self.faults = _Hold()
        self.sink = MemorySink(faults=self.faults)

    async def rows(self, table: str, lane: int) -> list[tuple[Any, ...]]:
        blocks = [block for stamp, block in self.sink.tables[table] if stamp.lane == lane]
        return [
            row
            for block in blocks
            for row in zip(*(np.asarray(v).tolist() for v in block.values()), strict=True)
        ]

    async def texts(self, table: str) -> dict[int, bytes]:
        return self.sink.texts[table]

    async def held_insert(self, stamp: Stamp) -> asyncio.Task[None]:
        self.faults.lanes.add(stamp.lane)
        self.faults.arrived.clear()
        outcome = asyncio.create_task(self.sink.insert("events", events(3), stamp))
        await self.faults.arrived.wait()
        return outcome


class TestMemorySink(SinkContract):
    @pytest.fixture
    def harness(self) -> MemoryHarness:
        return MemoryHarness()


class ClickHouseHarness:
    def __init__(self, address: ServerAddress, database: str) -> None:
        self.address, self.database = address, database
        self.sink = ClickHouseSink(address, SinkOptions(database=database))

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        with connect(self.address) as client:
            return client.execute(sql, settings={"strings_as_bytes": True})

    async def rows(self, table: str, lane: int) -> list[tuple[Any, ...]]:
        names = PROTOCOL_COLUMNS[table]
        times = {"event_time": "toUnixTimestamp64Milli({})", "log_time": "toUnixTimestamp64Milli({})",
                 "lane_clock": "toUnixTimestamp64Milli({})", "minute": "toUnixTimestamp({})",
                 "clock_day": "toUnixTimestamp({})"}  # fmt: skip
        columns = ", ".join(times.get(name, "{}").format(name) for name in names)
        return await asyncio.to_thread(
            self._query, f"SELECT {columns} FROM {self.database}.{table} WHERE lane = {lane}"
        )

    async def texts(self, table: str) -> dict[int, bytes]:
        return dict(await asyncio.to_thread(self._query, f"SELECT * FROM {self.database}.{table} FINAL"))

    async def held_insert(self, stamp: Stamp) -> asyncio.Task[None]:
        """Run an insert whose rows the server never finishes producing."""
        client = connect(self.address)
        query_id = f"{insert_id_prefix(self.database, stamp.lane)}{stamp.batch_no}/events/{uuid.uuid4()}"
        slow = (
            f"INSERT INTO {self.database}.events (lane, batch_no, send_by) SELECT {stamp.lane}, {stamp.batch_no}, "
            f"{stamp.send_by} FROM numbers(1000000) WHERE sleepEachRow(0.01) = 0 SETTINGS max_block_size = 5, "
            "async_insert = 0"
        )

        def run() -> None:
            try:
                client.execute(slow, query_id=query_id)
            except Exception as e:
                raise insert_outcome("events", e) from e
            finally:
                client.disconnect()

        outcome = asyncio.create_task(asyncio.to_thread(run))
        while not await asyncio.to_thread(
            self._query, f"SELECT 1 FROM system.processes WHERE query_id = '{query_id}'"
        ):
            assert not outcome.done(), await outcome
        return outcome


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerAddress]:
    path: Path = tmp_path_factory.mktemp("clickhouse")
    with running_server(request.param, path) as running:
        yield address_of(running)


@pytest.fixture(scope="module")
def database(server: ServerAddress) -> str:
    with connect(server) as client:
        migrate(client, database="contract", release="test")
    return "contract"


class TestClickHouseSink(SinkContract):
    @pytest.fixture
    async def harness(self, server: ServerAddress, database: str) -> AsyncIterator[ClickHouseHarness]:
        harness = ClickHouseHarness(server, database)
        yield harness
        await harness.sink.close()

    async def test_one_insert_is_one_part(self, harness: ClickHouseHarness) -> None:
        """A block of a whole batch, however large, becomes a single part."""
        lane = 60_000
        await harness.sink.insert("events", events(200_000), Stamp(lane, 1, 2**32 - 1))
        parts = harness._query(
            f"SELECT uniqExact(_part) FROM {harness.database}.events WHERE lane = {lane} SETTINGS optimize_use_projections = 0"
        )
        assert parts == [(1,)]

    async def test_the_server_too_refuses_two_partitions(self, harness: ClickHouseHarness) -> None:
        """With the sink's settings ClickHouse stores nothing of such a block, even if our own check missed it."""
        two_days = (
            f"INSERT INTO {harness.database}.dead_letters (lane, batch_no, send_by, lane_clock) "
            "SELECT 60001, 1, 4000000000, toDateTime64(number * 86400, 3, 'UTC') FROM numbers(2)"
        )
        with connect(harness.address) as client, pytest.raises(ServerException) as refused:
            client.execute(two_days, settings=insert_settings())
        assert refused.value.code == TOO_MANY_PARTS
        assert (await harness.sink.batch_rows(60_001, 1))["dead_letters"] == 0

    async def test_quiesce_outlives_a_sender_that_stops_in_mid_insert(
        self, harness: ClickHouseHarness
    ) -> None:
        """An insert whose sender was paused before its rows ends, so that the lane's next owner can settle the batch."""
        lane = 60_002
        with connect(harness.address) as paused:
            paused.establish_connection(insert_settings())
            paused.connection.send_query(
                f"INSERT INTO {harness.database}.events (lane) VALUES",
                query_id=f"{insert_id_prefix(harness.database, lane)}1/events/stalled",
            )
            paused.connection.send_external_tables([])
            paused.receive_sample_block()
            await harness.sink.quiesce(lane)
        assert (await harness.sink.batch_rows(lane, 1))["events"] == 0
