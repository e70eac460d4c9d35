"""Inserts into the embedded server: a block is stored as one part, in time, or refused whole."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import clickhouse_driver
import numpy as np
import pytest
from clickhouse_driver.block import RowOrientedBlock
from clickhouse_driver.errors import ServerException

from adledger.sinks.embedded.launch import EmbeddedServer

VIOLATED_CONSTRAINT, CANCELLED, CANCELLED_BY_CLIENT, UNKNOWN_TYPE = 469, 394, 735, 50
ONE_BLOCK = {
    "async_insert": 0, "max_insert_threads": 1, "max_insert_block_size": 2**30, "min_insert_block_size_rows": 0,
    "min_insert_block_size_bytes": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as running:
        yield running


def connect(server: EmbeddedServer, **options) -> clickhouse_driver.Client:
    return clickhouse_driver.Client(server.host, port=server.port, **options)


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[clickhouse_driver.Client]:
    with connect(server) as connection:
        connection.execute("DROP TABLE IF EXISTS t SYNC")
        yield connection


def until(found):
    """Poll until there is a result; the test's own timeout ends it."""
    while not (answer := found()):
        pass
    return answer


@pytest.mark.parametrize("compression", [False, "lz4", "zstd"])
@pytest.mark.parametrize("rows", [1, 70_000, 1_500_000])
def test_one_block_is_one_part(server, client, compression, rows):
    """So it is for any size, however it is sent."""
    client.execute("CREATE TABLE t (a UInt64, b Int16, c Float32) ENGINE = MergeTree ORDER BY a")
    columns = [np.arange(rows, dtype="u8"), np.full(rows, -7, "i2"), np.ones(rows, "f4")]
    with connect(
        server, compression=compression, settings={"use_numpy": True, "insert_block_size": 2**30, **ONE_BLOCK}
    ) as own:
        own.execute("INSERT INTO t (a, b, c) VALUES", columns, columnar=True)
    assert client.execute("SELECT rows FROM system.parts WHERE table = 't' AND database = 'default'") == [
        (rows,)
    ]
    assert client.execute("SELECT sum(a), sum(b), sum(c) FROM t") == [
        (rows * (rows - 1) // 2, -7 * rows, rows)
    ]


def test_a_stream_of_blocks_arrives_whole(client):
    """Several blocks of one INSERT are one insert of the engine's."""
    client.execute("CREATE TABLE t (a UInt32, s String) ENGINE = MergeTree ORDER BY a")
    rows = [(i, "x" * (i % 300)) for i in range(20_000)]
    client.execute("INSERT INTO t VALUES", rows, settings={"insert_block_size": 999})
    assert client.execute("SELECT * FROM t ORDER BY a") == rows


def test_the_columns_are_those_that_the_insert_names(client):
    """They come in the order of the list; others get their defaults; ALIAS and MATERIALIZED columns are not requested."""
    client.execute(
        "CREATE TABLE t (a UInt8, b String DEFAULT 'd', m UInt16 MATERIALIZED a + 1, l UInt8 ALIAS a, z DateTime('UTC')) "
        "ENGINE = MergeTree ORDER BY a"
    )
    client.execute("INSERT INTO t (z, a) VALUES", [{"z": 60, "a": 1}])
    client.execute("INSERT INTO t VALUES", [(2, "two", 0)])
    client.execute("INSERT INTO t (* EXCEPT (z)) VALUES", [(3, "three")])
    assert client.execute("SELECT a, b, m, l, toUnixTimestamp(z) FROM t ORDER BY a") == [
        (1, "d", 2, 1, 60), (2, "two", 3, 2, 0), (3, "three", 4, 3, 0),
    ]  # fmt: skip


def test_an_altered_table_has_its_new_columns(server, client):
    """A session's knowledge of a table is dropped when any session may have changed it."""
    client.execute("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a")
    client.execute("INSERT INTO t VALUES", [(1,)])
    with connect(server) as other:
        other.execute("ALTER TABLE t ADD COLUMN b String")
    client.execute("INSERT INTO t VALUES", [(2, "x")])
    assert client.execute("SELECT * FROM t ORDER BY a") == [(1, ""), (2, "x")]


def test_a_late_block_is_refused(client):
    """`nowInBlock()` is the time at which the block arrives, and the refusal has ClickHouse's code."""
    client.execute(
        "CREATE TABLE t (a UInt8, send_by UInt32, CONSTRAINT in_time CHECK toUnixTimestamp(nowInBlock()) <= send_by) "
        "ENGINE = MergeTree ORDER BY a"
    )
    client.execute("INSERT INTO t VALUES", [(1, 2**32 - 1)])
    with pytest.raises(ServerException, match="in_time") as raised:
        client.execute("INSERT INTO t VALUES", [(2, 2**32 - 1), (3, 5)])
    assert raised.value.code == VIOLATED_CONSTRAINT
    assert client.execute("SELECT a FROM t") == [(1,)]


def test_a_block_over_two_partitions_can_be_refused(client):
    """Settings of the query reach the insert."""
    client.execute("CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a PARTITION BY a")
    with pytest.raises(ServerException) as raised:
        client.execute("INSERT INTO t VALUES", [(1,), (2,)], settings={"max_partitions_per_insert_block": 1})
    assert raised.value.code == 252
    assert client.execute("SELECT count() FROM t") == [(0,)]


def begin_insert(client, query, query_id):
    """Send the query of an insert, and read what columns the server wants."""
    client.connection.force_connect()
    client.connection.send_query(query, query_id=query_id)
    client.connection.send_external_tables(None)
    block = client.receive_sample_block()
    client.connection.is_query_executing = False
    return block


def test_a_client_that_vanishes_in_mid_insert_has_inserted_nothing(server, client):
    """Blocks without the final one are not an insert, and the query is removed at once."""
    client.execute("CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a")
    for cut in (False, True):
        other = connect(server)
        sample = begin_insert(other, "INSERT INTO t VALUES", "vanishing")
        other.connection.send_data(RowOrientedBlock(sample.columns_with_types, [(i,) for i in range(1000)]))
        if cut:
            other.connection.socket.shutdown(socket.SHUT_WR)
        assert cut or client.execute("SELECT query FROM system.processes WHERE query_id = 'vanishing'") == [
            ("INSERT INTO t VALUES",)
        ]
        other.disconnect()
        until(lambda: not client.execute("SELECT 1 FROM system.processes WHERE query_id = 'vanishing'"))
        assert client.execute("SELECT count() FROM t") == [(0,)]


def test_an_insert_that_waits_for_its_rows_can_be_killed(server, client):
    """It is in the process list before the engine has seen it, and KILL ... SYNC ends it."""
    client.execute("CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a")
    with connect(server) as other:
        begin_insert(other, "INSERT INTO t VALUES", "waiting/7")
        assert client.execute(
            "SELECT query_id FROM system.processes WHERE startsWith(query_id, 'waiting/')"
        ) == [("waiting/7",)]
        killed = client.execute("KILL QUERY WHERE startsWith(query_id, 'waiting/') SYNC")
        assert [row[:2] for row in killed] == [("finished", "waiting/7")]
        with pytest.raises(ServerException) as raised:
            other.receive_end_of_insert_query()
        assert raised.value.code == CANCELLED
    assert client.execute("SELECT count() FROM t") == [(0,)]


def test_an_insert_in_the_engine_can_be_killed(server, client):
    """Nothing of it is stored."""
    client.execute(
        "CREATE TABLE t (a UInt32, m UInt8 MATERIALIZED sleepEachRow(0.05)) ENGINE = MergeTree ORDER BY a"
    )
    with connect(server) as other, ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            other.execute, "INSERT INTO t VALUES", [(i,) for i in range(50)], query_id="inserting"
        )
        until(
            lambda: client.execute(
                "SELECT 1 FROM system.processes WHERE query_id = 'inserting' AND read_rows + written_rows > 0"
            )
        )
        assert client.execute("KILL QUERY WHERE query_id = 'inserting' SYNC")[0][0] == "finished"
        assert running.exception().code == CANCELLED
    assert client.execute("SELECT count() FROM t") == [(0,)]


def test_a_cancelled_insert_stores_nothing(server, client):
    """The connection remains usable."""
    client.execute("CREATE TABLE t (a UInt32) ENGINE = MergeTree ORDER BY a")
    with connect(server) as other:
        sample = begin_insert(other, "INSERT INTO t VALUES", "cancelled")
        other.connection.send_data(RowOrientedBlock(sample.columns_with_types, [(1,)]))
        other.connection.send_cancel()
        with pytest.raises(ServerException) as raised:
            other.receive_end_of_insert_query()
        assert raised.value.code == CANCELLED_BY_CLIENT
        other.connection.is_query_executing = False
        assert other.execute("SELECT count() FROM t") == [(0,)]


def test_types_that_cannot_be_received_are_refused_before_the_rows(client):
    """The error has a remedy, and the connection remains usable."""
    client.execute("CREATE TABLE t (a JSON) ENGINE = MergeTree ORDER BY tuple()")
    with pytest.raises(ServerException, match="HTTP") as raised:
        client.execute("INSERT INTO t VALUES", [({"x": 1},)])
    assert raised.value.code == UNKNOWN_TYPE
    client.execute("""INSERT INTO t VALUES ('{"x": 1}')""")
    assert client.execute("SELECT a.x::Int64 FROM t") == [(1,)]


def test_unreadable_data_ends_the_connection_not_the_server(server, client):
    """A stream that breaks the protocol can't be parsed any further."""
    for rubbish in (b"\x02\x00\x09", b"\x63", b"\x00" * 3, b"\xff" * 300):
        other = connect(server)
        other.execute("SELECT 1")
        other.connection.socket.sendall(rubbish)
        other.connection.socket.shutdown(socket.SHUT_WR)
        while other.connection.socket.recv(4096):
            pass
        other.disconnect()
    assert client.execute("SELECT 1") == [(1,)]
