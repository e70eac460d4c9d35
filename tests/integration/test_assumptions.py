"""What the protocol assumes of ClickHouse, shown on the engine itself, each with its control (docs/exactly-once.md)."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from clickhouse_driver.errors import ServerException

from adledger.loadtest.lab.tcp_proxy import Action, TcpProxy
from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import InsertRefused, InsertUnknown
from adledger.schemas.migrate import migrate
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.overrides import LaneOverride, Leftover, OverrideKind, write_overrides
from adledger.sinks.queries import running_inserts
from adledger.sinks.sink import Stamp
from tests.contracts.sink_suite import events
from tests.support.clickhouse_servers import SERVERS, AnyServer, address_of, running_server

LANE, ROWS = 3, 500
DEADLINE_SECONDS = 1
FOR_EVER = 2**32 - 1
CONSTRAINT = "CONSTRAINT in_time CHECK toUnixTimestamp({}) <= send_by"


def ask(address: ServerAddress, *statements: str) -> list[Any]:
    """Run statements and return the last one's rows."""
    rows: list[Any] = []
    with connect(address) as client:
        for statement in statements:
            rows = client.execute(statement)
    return rows


def made(directory: Path) -> EmbeddedServer:
    """Return a new server with the tables in it."""
    server = EmbeddedServer.start(directory)
    with_tables(server)
    return server


def with_tables(server: AnyServer) -> None:
    with connect(address_of(server)) as client:
        migrate(client, database="db", release="test")


@asynccontextmanager
async def sink_of(
    address: ServerAddress, kind: type[ClickHouseSink] = ClickHouseSink
) -> AsyncIterator[ClickHouseSink]:
    sink = kind(address, SinkOptions(database="db", write_deadline_seconds=DEADLINE_SECONDS))
    yield sink
    await sink.close()


async def until(found: Any) -> None:
    """Poll until the condition holds; the test's own time limit ends it."""
    while not await found():  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.02)


async def past(sink: ClickHouseSink, second: int) -> None:
    """Return when the server's clock is past a second."""

    async def is_past() -> bool:
        return await sink.server_time() > second

    await until(is_past)


# tokens


class TokenSink(ClickHouseSink):
    """What the protocol does not do on one server: every insert has a token, the same for the same batch."""

    def _durability(self, table: str, stamp: Stamp) -> dict[str, Any]:
        return {
            "insert_deduplicate": 1,
            "insert_deduplication_token": f"{stamp.lane}/{stamp.batch_no}/{table}",
        }


class TokenLog:
    """The token log of `events`, on the engine's disk. `block` stops the engine at its next full page.

    The engine writes an insert's token, begins a new file of the log where that one is full, and only then gives the part
    its name. Where the new file's name is a pipe without a reader, it waits there.
    """

    def __init__(self, address: ServerAddress) -> None:
        paths = ask(
            address, "SELECT data_paths[1] FROM system.tables WHERE database = 'db' AND name = 'events'"
        )
        self._directory = Path(paths[0][0]) / "deduplication_logs"

    def _number(self) -> int:
        return max(int(path.stem.rpartition("_")[2]) for path in self._directory.iterdir() if path.is_file())

    def _file(self, number: int) -> Path:
        return self._directory / f"deduplication_log_{number}.txt"

    @property
    def tokens(self) -> int:
        """Return how many tokens are in the current file."""
        return len(self._file(self._number()).read_bytes().splitlines())

    def block(self) -> Path:
        """Put a pipe at the next file's name and return it."""
        pipe = self._file(self._number() + 1)
        os.mkfifo(pipe)
        return pipe


async def killed_between_token_and_part(server: EmbeddedServer) -> None:
    """Send batch 2's events, and kill the server when it has written the token and not published the part."""
    address = address_of(server)
    ask(address, "ALTER TABLE db.events MODIFY SETTING non_replicated_deduplication_window = 1")
    async with sink_of(address, TokenSink) as sink:
        await sink.insert("events", events(ROWS), Stamp(LANE, 1, FOR_EVER))
        log = TokenLog(address)
        assert log.tokens == 1
        pipe = log.block()
        insert = asyncio.create_task(sink.insert("events", events(ROWS), Stamp(LANE, 2, FOR_EVER)))

        async def written() -> bool:
            assert not insert.done(), await insert
            return log.tokens == 2

        await until(written)
        os.kill(server.pid, signal.SIGKILL)
        server.wait()
        with pytest.raises(InsertUnknown):
            await insert
    pipe.unlink()


@pytest.mark.parametrize(("kind", "rows"), [(TokenSink, 0), (ClickHouseSink, ROWS)], ids=["token", "look"])
async def test_killed_between_token_and_part(tmp_path: Path, kind: type[ClickHouseSink], rows: int) -> None:
    """A retry by token is answered OK every time, and the batch is lost. Control: our insert has no token.

    It looks at the tables, finds nothing, and inserts without a token: all rows are there, once.
    """
    with made(tmp_path) as server:
        await killed_between_token_and_part(server)
    with EmbeddedServer.start(tmp_path) as server:
        async with sink_of(address_of(server), kind) as sink:
            assert (await sink.batch_rows(LANE, 1))["events"] == ROWS
            assert (await sink.batch_rows(LANE, 2))["events"] == 0
            await sink.insert("events", events(ROWS), Stamp(LANE, 2, FOR_EVER))  # OK, says the server
            assert (await sink.batch_rows(LANE, 2))["events"] == rows


@pytest.mark.parametrize("is_override", [True, False], ids=["override", "control"])
async def test_rows_that_an_override_removed_can_be_written_again(
    tmp_path: Path, *, is_override: bool
) -> None:
    """The engine remembers the tokens of removed rows, so the batch gets others. Control: rows removed by hand.

    With `cluster` inserts have tokens; this engine's table remembers them as a replicated one does.
    """
    stamp, options = Stamp(LANE, 1, FOR_EVER), SinkOptions(database="db", cluster="replicas")
    with made(tmp_path) as server:
        address = address_of(server)
        ask(address, "ALTER TABLE db.events MODIFY SETTING non_replicated_deduplication_window = 100")
        sink = ClickHouseSink(address, options)
        await sink.insert("events", events(ROWS), stamp)
        await sink.insert("events", events(ROWS - 1), stamp)
        assert (await sink.batch_rows(LANE, 1))["events"] == ROWS, "a repeated insert counts once"
        left = Leftover("events", ROWS, FOR_EVER, 0)
        override = LaneOverride(LANE, 1, OverrideKind.CLEAR, "", (), leftovers=(left,))
        if is_override:
            with connect(address) as client:
                write_overrides(client, [override], database="db", cluster=None)
        await sink.overrides.clear(LANE, 1, FOR_EVER)
        assert (await sink.batch_rows(LANE, 1))["events"] == 0
        for rows in (ROWS - 1, ROWS):
            await sink.insert("events", events(rows), stamp)  # OK, says the server
        assert (await sink.batch_rows(LANE, 1))["events"] == (ROWS - 1 if is_override else 0)
        await sink.close()


async def test_killed_after_the_part_before_the_answer(tmp_path: Path) -> None:
    """A published part survives a kill -9, whole, though no client got an answer."""
    with made(tmp_path) as server:
        async with (
            TcpProxy(server.host, server.port) as proxy,
            sink_of(address_of(server)) as direct,
            sink_of(ServerAddress("127.0.0.1", proxy.port, 0)) as sink,
        ):
            insert = await begun(proxy, sink, direct, Stamp(LANE, 1, FOR_EVER))
            proxy.replies(Action.HOLD)
            proxy.requests(Action.PASS)
            proxy.release()

            async def stored() -> bool:
                return (await direct.batch_rows(LANE, 1))["events"] == ROWS

            await until(stored)
            os.kill(server.pid, signal.SIGKILL)
            server.wait()
            proxy.cut()
            with pytest.raises(InsertUnknown):
                await insert
    with EmbeddedServer.start(tmp_path) as server:
        async with sink_of(address_of(server)) as sink:
            assert (await sink.batch_rows(LANE, 1))["events"] == ROWS


# the deadline


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyServer]:
    with running_server(request.param, tmp_path_factory.mktemp("clickhouse")) as running:
        with_tables(running)
        yield running


async def begun(
    proxy: TcpProxy, sink: ClickHouseSink, direct: ClickHouseSink, stamp: Stamp
) -> "asyncio.Task[None]":
    """Send an insert whose query has begun on the server, and whose block the network holds back."""
    await sink.server_time()  # connected
    proxy.replies(Action.HOLD)  # the client sends its block once it knows the table's columns
    insert = asyncio.create_task(sink.insert("events", events(ROWS), stamp))

    async def runs() -> bool:
        return bool(await direct._rows(running_inserts("db", stamp.lane, None)))

    await proxy.held.wait()
    if not await runs():  # what is held is the answer to a ping: the query comes behind it
        proxy.release()
        await proxy.held.wait()
    await until(runs)
    proxy.replies(Action.PASS)
    proxy.requests(Action.HOLD)
    proxy.release()
    await proxy.held.wait()
    return insert


async def held_on_the_wire(proxy: TcpProxy, sink: ClickHouseSink, stamp: Stamp) -> "asyncio.Task[None]":
    """Send an insert that the network holds back as a whole."""
    await sink.server_time()
    proxy.requests(Action.HOLD)
    insert = asyncio.create_task(sink.insert("events", events(ROWS), stamp))
    await proxy.held.wait()
    return insert


def constrained(address: ServerAddress, constraint: str) -> int:
    """Give `events` another deadline; return a batch number without rows in it."""
    table = "ALTER TABLE db.events"
    ask(address, f"{table} DROP CONSTRAINT IF EXISTS in_time")
    if constraint != "none":
        ask(address, f"{table} ADD {CONSTRAINT.format(constraint)}")
    return 1 + ask(address, "SELECT max(batch_no) FROM db.events")[0][0]


@pytest.mark.parametrize(
    ("constraint", "held", "stored"),
    [
        ("nowInBlock()", "request", False),
        ("nowInBlock()", "block", False),
        ("none", "request", True),
        ("none", "block", True),
    ],
)
async def test_held_back_until_after_its_deadline(
    server: AnyServer, constraint: str, held: str, *, stored: bool
) -> None:
    """The server refuses a late insert, though its sender is still connected and its query began in time.

    Control: without the constraint it is stored, when its batch may have been written again already.
    """
    address = address_of(server)
    batch_no = constrained(address, constraint)
    async with TcpProxy(server.host, server.port) as proxy, sink_of(address) as direct:
        async with sink_of(ServerAddress("127.0.0.1", proxy.port, 0)) as sink:
            stamp = Stamp(LANE, batch_no, await direct.server_time() + DEADLINE_SECONDS)
            if held == "block":
                insert = await begun(proxy, sink, direct, stamp)
            else:
                insert = await held_on_the_wire(proxy, sink, stamp)
            await past(direct, stamp.send_by)
            assert not insert.done()
            proxy.requests(Action.PASS)
            proxy.release()
            if stored:
                await insert
            else:
                with pytest.raises(InsertRefused) as refused:
                    await insert
                assert refused.value.late
        assert (await direct.batch_rows(LANE, batch_no))["events"] == (ROWS if stored else 0)


@pytest.mark.parametrize(("constraint", "stored"), [("nowInBlock()", False), ("now()", True)])
def test_a_block_that_is_late_within_its_query(server: AnyServer, constraint: str, *, stored: bool) -> None:
    """The deadline is that of the block. Control: `now()` is the time at which the query began, and accepts it."""
    address = address_of(server)
    batch_no = constrained(address, constraint)
    slow = (
        f"INSERT INTO db.events (lane, batch_no, send_by) SELECT {LANE}, {batch_no}, toUnixTimestamp(now()) + 1 "
        "FROM numbers(1) WHERE sleep(2.1) = 0"
    )
    if stored:
        ask(address, slow)
    else:
        with pytest.raises(ServerException, match="in_time"):
            ask(address, slow)
    found = ask(address, f"SELECT count() FROM db.events WHERE batch_no = {batch_no}")
    assert found == [(1 if stored else 0,)]
