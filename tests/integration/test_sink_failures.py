"""The sink while ClickHouse dies and comes back: each failure has its error, and none outlives its cause."""

import asyncio
import os
import signal
from pathlib import Path

import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import InsertRefused, InsertUnknown, SinkError, SinkUnavailable
from adledger.schemas.migrate import migrate
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.queries import running_inserts
from adledger.sinks.sink import Stamp
from tests.contracts.sink_suite import events, rollups

STAMP = Stamp(1, 1, 2**32 - 1)


async def test_a_server_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    """In mid-insert the outcome is unknown, while it is away unavailable; once it is back the same sink works, and sees
    what was OK.
    """
    with EmbeddedServer.start(tmp_path) as server:
        address = ServerAddress(server.host, server.port, server.http_port)
        with connect(address) as client:
            migrate(client, database="db", release="test")
        sink = ClickHouseSink(address, SinkOptions(database="db"))
        await sink.insert("events", events(1000), STAMP)
        with connect(address) as client:
            client.execute("ALTER TABLE db.events ADD CONSTRAINT slow CHECK sleepEachRow(0.01) = 0")
            insert = asyncio.create_task(sink.insert("events", events(250), STAMP))
            while not await asyncio.to_thread(client.execute, running_inserts("db", 1, None)):
                assert not insert.done()
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        with pytest.raises(InsertUnknown):
            await insert
    with pytest.raises(SinkUnavailable):
        await sink.insert("rollup_minute", rollups(1), STAMP)
    with pytest.raises(SinkUnavailable):
        await sink.server_time()
    with EmbeddedServer.start(tmp_path, port=address.port):
        assert (await sink.batch_rows(1, 1))["events"] == 1000
        await sink.insert("rollup_minute", rollups(1), STAMP)
        assert (await sink.batch_rows(1, 1))["rollup_minute"] == 1
    await sink.close()


async def test_missing_tables_are_refused_with_the_command(tmp_path: Path) -> None:
    """Before `adledger migrate` the errors of inserts and reads name it."""
    with EmbeddedServer.start(tmp_path) as server:
        sink = ClickHouseSink(ServerAddress(server.host, server.port, server.http_port))
        with pytest.raises(InsertRefused) as refused:
            await sink.insert("events", events(1), STAMP)
        assert (refused.value.late, refused.value.remedy) == (False, "adledger migrate")
        with pytest.raises(SinkError) as unread:
            await sink.ledger_end(1)
        assert unread.value.remedy == "adledger migrate"
        await sink.close()
