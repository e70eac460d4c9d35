"""The sink with Debian's clickhouse-server 18.16: the wire of a server that we did not build.

Its dialect lacks DateTime64 and constraints, so times are read as integers, and the deadline's law does not run here.
"""

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.schemas.tables import PROTOCOL_COLUMNS
from adledger.sinks import clickhouse, queries
from adledger.sinks.clickhouse import ROWS_PER_BLOCK_MAX, ClickHouseSink, SinkOptions
from adledger.sinks.connection import connect
from adledger.sinks.outcomes import insert_outcome
from adledger.sinks.queries import insert_id_prefix
from adledger.sinks.sink import Stamp
from tests.contracts.sink_suite import SinkContract
from tests.support.old_clickhouse import OldServerMissing, make_tables, old_server
from tests.support.services import missing

DATABASE = "contract"


class OldServerHarness:
    def __init__(self, address: ServerAddress) -> None:
        self.address = address
        self.sink = ClickHouseSink(address, SinkOptions(database=DATABASE))

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        with connect(self.address) as client:
            return client.execute(sql, settings={"strings_as_bytes": True})

    async def rows(self, table: str, lane: int) -> list[tuple[Any, ...]]:
        columns = ", ".join(PROTOCOL_COLUMNS[table])
        return await asyncio.to_thread(
            self._query, f"SELECT {columns} FROM {DATABASE}.{table} WHERE lane = {lane}"
        )

    async def texts(self, table: str) -> dict[int, bytes]:
        return dict(await asyncio.to_thread(self._query, f"SELECT * FROM {DATABASE}.{table} FINAL"))

    async def held_insert(self, stamp: Stamp) -> asyncio.Task[None]:
        """Run an insert whose rows the server never finishes producing."""
        client = connect(self.address)
        query_id = f"{insert_id_prefix(DATABASE, stamp.lane)}{stamp.batch_no}/events/{uuid.uuid4()}"
        slow = (
            f"INSERT INTO {DATABASE}.events (lane, batch_no, send_by) SELECT toUInt16({stamp.lane}), "
            f"toUInt64({stamp.batch_no}), toUInt32({stamp.send_by}) FROM numbers(1000000) "
            "WHERE sleepEachRow(0.01) = 0"
        )

        def run() -> None:
            try:
                client.execute(slow, query_id=query_id, settings={"max_block_size": 5})
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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    try:
        with old_server(tmp_path_factory.mktemp("old")) as running:
            address = ServerAddress(running.host, running.port, running.http_port)
            with connect(address) as client:
                make_tables(client, DATABASE)
            yield address
    except OldServerMissing as error:
        missing("clickhouse-server", error)


class TestOldServer(SinkContract):
    @pytest.fixture
    async def harness(
        self, server: ServerAddress, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[OldServerHarness]:
        monkeypatch.setattr(queries, "read_column", lambda name: name)
        monkeypatch.setattr(queries, "CLOCK_FROM", "{:d}")
        monkeypatch.setattr(
            clickhouse, "insert_settings", lambda: {"max_insert_block_size": ROWS_PER_BLOCK_MAX}
        )
        harness = OldServerHarness(server)
        yield harness
        await harness.sink.close()

    @pytest.mark.skip(reason="18.16 has no constraints: the deadline is a current server's")
    async def test_a_block_that_comes_late_is_refused_whole(self) -> None:  # type: ignore[override]
        """Not here."""
