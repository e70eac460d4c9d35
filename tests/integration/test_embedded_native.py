"""The embedded server over the native protocol, as clickhouse-driver speaks it: results, types, errors, concurrency."""

import datetime as dt
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from ipaddress import IPv6Address

import clickhouse_driver
import numpy as np
import pytest
from clickhouse_driver.errors import ServerException

from adledger.sinks.embedded.launch import EmbeddedServer

UNKNOWN_TABLE, UNKNOWN_DATABASE, SYNTAX_ERROR, UNKNOWN_SETTING, CANCELLED = 60, 81, 62, 115, 394


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("a folder, its name with & and %41 in it")) as running:
        yield running


def connect(server: EmbeddedServer, **options) -> clickhouse_driver.Client:
    return clickhouse_driver.Client(server.host, port=server.port, **options)


@pytest.fixture
def client(server: EmbeddedServer) -> Iterator[clickhouse_driver.Client]:
    with connect(server) as connection:
        connection.execute("DROP DATABASE IF EXISTS test SYNC")
        connection.execute("CREATE DATABASE test")
        yield connection


def until(found):
    """Poll until there is a result; the test's own timeout ends it."""
    while not (answer := found()):
        pass
    return answer


def code_of(client, *arguments, **options) -> int:
    with pytest.raises(ServerException) as raised:
        client.execute(*arguments, **options)
    return raised.value.code


COMPRESSIONS = [False, "lz4", "zstd"]


@pytest.mark.parametrize("compression", COMPRESSIONS)
@pytest.mark.parametrize("use_numpy", [False, True])
def test_a_result_of_many_blocks_arrives_whole(server, compression, use_numpy):
    """Three million rows are more than forty blocks; each arrives once, in order."""
    with connect(server, compression=compression, settings={"use_numpy": use_numpy}) as client:
        numbers, texts = client.execute(
            "SELECT number, toString(number % 7) FROM numbers(3000000)", columnar=True
        )
        assert np.array_equal(np.asarray(numbers), np.arange(3_000_000))
        assert "".join(texts[-8:]) == "23456012"


def test_rows_are_the_same_by_numpy_and_plain(server):
    """Numbers, times and strings are equal both ways."""
    query = "SELECT toUInt64(number), toInt16(-number), toDateTime(number, 'UTC'), toString(number) FROM numbers(5)"
    with connect(server) as plain, connect(server, settings={"use_numpy": True}) as numpy:
        rows = plain.execute(query)
        columns = numpy.execute(query, columnar=True)
        assert [(a, b, d) for a, b, _, d in rows] == [
            tuple(r) for r in zip(*(c.tolist() for c in (*columns[:2], columns[3])), strict=True)
        ]
        assert [t.timestamp() for _, _, t, _ in rows] == columns[2].astype("datetime64[s]").astype(
            int
        ).tolist()


@pytest.mark.parametrize("use_numpy", [False, True])
@pytest.mark.parametrize("table", ["tables", "columns", "settings", "functions", "databases"])
def test_system_tables_can_be_read(server, table, use_numpy):
    """They have enumerations, arrays, nullable columns and columns that are mostly default."""
    with connect(server, settings={"use_numpy": use_numpy}) as client:
        columns = client.execute(f"SELECT * FROM system.{table}", columnar=True)
        assert {len(column) for column in columns} == {
            client.execute(f"SELECT count() FROM system.{table}")[0][0]
        }


def test_types_come_back_as_they_were_inserted(client):
    """Each type that a table of ours might have, and more, round-trips."""
    client.execute(
        "CREATE TABLE test.t (i Int8, u UInt256, f Float64, s String, x FixedString(3), d Date32, t DateTime64(3, 'UTC'), "
        "e Enum8('a' = 1, 'b' = 2), n Nullable(UInt16), l LowCardinality(Nullable(String)), a Array(LowCardinality(String)), "
        "m Map(String, UInt64), p Tuple(a UInt8, b String), v IPv6, c Decimal(38, 9), b Bool) "
        "ENGINE = MergeTree ORDER BY i"
    )
    rows = [
        (1, 2**200, 0.5, "é" * 200, "abc", dt.date(2020, 1, 2), dt.datetime(2021, 5, 6, 7, tzinfo=dt.UTC), "b", None, "x", ["q", "q", "r"],
         {"k": 2**63}, (7, "z"), IPv6Address("::ffff:1.2.3.4"), Decimal("12.000000001"), True),
        (2, 0, -1.0, "", "", dt.date(1970, 1, 1), dt.datetime(1999, 1, 1, tzinfo=dt.UTC), "a", 9, None, [], {}, (0, ""),
         IPv6Address("2001:db8::1"), Decimal(-1), False),
    ]  # fmt: skip
    assert client.execute("INSERT INTO test.t VALUES", rows) == 2
    assert client.execute("SELECT * FROM test.t ORDER BY i") == rows


def test_mostly_default_columns_come_dense(client):
    """The engine stores such columns sparsely; on the wire they are like any other."""
    client.execute(
        "CREATE TABLE test.s (a UInt64, b String, c Nullable(UInt8)) ENGINE = MergeTree ORDER BY a "
        "SETTINGS ratio_of_defaults_for_sparse_serialization = 0.1"
    )
    rows = [(i, "x" if i == 70 else "", 1 if i == 71 else None) for i in range(100)]
    client.execute("INSERT INTO test.s VALUES", rows)
    assert client.execute("SELECT * FROM test.s ORDER BY a") == rows


def test_an_empty_result_has_columns(client):
    """It has names and types, and no rows."""
    assert client.execute(
        "SELECT 1 AS a, 'x' AS b WHERE 0 FORMAT JSON SETTINGS max_threads = 1", with_column_types=True
    ) == (
        [],
        [("a", "UInt8"), ("b", "String")],
    )
    assert client.execute("SHOW TABLES FROM test") == []


def test_statements_of_every_kind_answer(client):
    """Statements with a result return it, others complete."""
    client.execute("CREATE TABLE test.t (a UInt8) ENGINE = MergeTree ORDER BY a")
    client.execute("INSERT INTO test.t VALUES (1), (2); ")
    client.execute("INSERT INTO test.t SELECT 3")
    client.execute("ALTER TABLE test.t DELETE WHERE a = 1 SETTINGS mutations_sync = 2")
    assert client.execute("SELECT a FROM test.t ORDER BY a") == [(2,), (3,)]
    assert client.execute("EXISTS TABLE test.t") == [(1,)]
    assert client.execute("DESCRIBE TABLE test.t FORMAT CSV")[0][:2] == ("a", "UInt8")
    assert client.execute("EXPLAIN SELECT 1")
    assert ("test",) in client.execute("SHOW DATABASES")
    assert client.execute("SELECT sum(a) FROM test.t GROUP BY a WITH TOTALS ORDER BY 1") == [(2,), (3,)]


def test_errors_are_the_engine_s(client):
    """Codes and messages are the engine's, and the connection remains usable."""
    client.execute("CREATE TABLE test.t (a UInt8) ENGINE = Memory")
    assert code_of(client, "SELECT * FROM test.nope") == UNKNOWN_TABLE
    assert code_of(client, "INSERT INTO test.nope VALUES", [(1,)]) == UNKNOWN_TABLE
    assert code_of(client, "INSERT INTO test.t (nope) VALUES", [(1,)]) in (16, 47)
    assert code_of(client, "CREATE TABLE test.t (a UInt8) ENGINE = Memory") == 57
    assert code_of(client, "SELECT FROM WHERE") == SYNTAX_ERROR
    assert code_of(client, "SELECT 1; SELECT 2") == SYNTAX_ERROR
    with pytest.raises(ServerException, match="non-zero"):
        client.execute("SELECT throwIf(number > 2000000) FROM numbers(3000000)")
    assert client.execute("SELECT 1") == [(1,)]


def test_the_database_of_a_connection(server, client):
    """Unqualified names are looked up there; it must exist."""
    client.execute("CREATE TABLE test.t (a UInt8) ENGINE = Memory")
    with connect(server, database="test") as own:
        assert own.execute("SHOW TABLES") == [("t",)]
        own.execute("USE default")
        assert own.execute("SELECT currentDatabase()") == [("default",)]
    with connect(server, database="nope") as other:
        assert code_of(other, "SELECT 1") == UNKNOWN_DATABASE


def test_settings_are_those_of_the_query(client):
    """A query's settings apply to it alone, SET's to the connection; unknown ones are ignored unless important."""
    asked = "SELECT getSetting('max_block_size'), getSetting('max_threads')"
    (default,) = client.execute(asked)
    assert client.execute(asked, settings={"max_block_size": 77, "nope": 1}) == [(77, default[1])]
    client.execute("SET max_threads = 3")
    assert client.execute(asked) == [(default[0], 3)]


def test_an_important_setting_must_be_known(server):
    """An unknown and important setting is an error."""
    with connect(server, settings_is_important=True) as client:
        assert client.execute("SELECT 1", settings={"max_threads": 1}) == [(1,)]
        assert code_of(client, "SELECT 1", settings={"nope": 1}) == UNKNOWN_SETTING


def test_progress_counts_rows_read_and_written(client):
    """clickhouse-driver adds up what the server reports."""
    client.execute("CREATE TABLE test.t (a UInt64) ENGINE = MergeTree ORDER BY a")
    client.execute("INSERT INTO test.t VALUES", [(i,) for i in range(1000)])
    assert client.last_query.progress.written_rows == 1000
    client.execute("SELECT sum(a) FROM test.t SETTINGS optimize_use_implicit_projections = 0")
    assert client.last_query.progress.rows == 1000
    assert client.last_query.profile_info.rows == 1


def test_a_long_query_reports_progress(client):
    """Ten times a second it reports how much was read, so that a waiting client knows that the server lives."""
    running = client.execute_with_progress(
        "SELECT sum(sleepEachRow(0.02)) FROM numbers(25) SETTINGS max_block_size = 1"
    )
    reports = list(running)
    assert len(reports) >= 2
    assert reports[-1][0] == 25
    assert running.get_result() == [(0,)]


def test_two_queries_run_side_by_side(server):
    """Each of two waits until it sees the other run: there is no global lock."""
    watch = "SELECT count() FROM system.processes WHERE startsWith(query_id, 'pair/') AND query_id != '{}'"
    with connect(server) as a, connect(server) as b, connect(server) as c, ThreadPoolExecutor(2) as pool:
        running = [
            pool.submit(
                client.execute,
                "SELECT sleepEachRow(0.05) FROM numbers(1000) SETTINGS max_block_size = 1",
                query_id=f"pair/{i}",
            )
            for i, client in enumerate((a, b))
        ]
        until(lambda: c.execute(watch.format("")) == [(2,)])
        assert len(c.execute("KILL QUERY WHERE startsWith(query_id, 'pair/') SYNC")) == 2
        for ended in running:
            assert ended.exception().code == CANCELLED


def test_many_clients_at_once(server, client):
    """Sixteen connections insert and read; each row is there once."""
    client.execute("CREATE TABLE test.t (who UInt8, n UInt32) ENGINE = MergeTree ORDER BY (who, n)")

    def work(who):
        with connect(server, compression=COMPRESSIONS[who % 3]) as own:
            for i in range(5):
                own.execute("INSERT INTO test.t VALUES", [(who, i * 100 + j) for j in range(100)])
            return own.execute(f"SELECT count(), uniqExact(n) FROM test.t WHERE who = {who}")

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(work, range(16))) == [[(500, 500)]] * 16


def test_a_query_is_known_by_its_id(server, client):
    """`system.processes` and SHOW PROCESSLIST have the client's id and text; ids are unique while they run."""
    query = "SELECT query_id, query, is_initial_query FROM system.processes"
    assert client.execute(query, query_id="mine") == [("mine", query, 1)]
    assert client.execute(
        "SELECT p.query_id FROM system.processes AS p WHERE p.user = 'default'", query_id="m2"
    ) == [("m2",)]
    rows, columns = client.execute("SHOW PROCESSLIST", query_id="m3", with_column_types=True)
    assert "m3" in rows[0]
    assert columns == client.execute("SELECT * FROM system.processes LIMIT 0", with_column_types=True)[1]


def test_a_killed_query_ends_with_its_code(server, client):
    """KILL QUERY ... SYNC returns when the query has ended; other queries go on."""
    with connect(server) as other, ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            other.execute,
            "SELECT sleepEachRow(0.05) FROM numbers(1000) SETTINGS max_block_size = 1",
            query_id="long/1",
        )
        until(
            lambda: client.execute("SELECT 1 FROM system.processes WHERE query_id = 'long/1' AND elapsed > 0")
        )
        with connect(server) as third:
            assert code_of(third, "SELECT 1", query_id="long/1") == 216
        assert client.execute("KILL QUERY WHERE query_id = 'long/2' SYNC") == []
        (killed,) = client.execute("KILL QUERY WHERE query_id LIKE 'long/%' SYNC")
        assert killed[:3] == ("finished", "long/1", "default")
        assert client.execute("SELECT count() FROM system.processes WHERE query_id = 'long/1'") == [(0,)]
        assert running.exception().code == CANCELLED
        assert other.execute("SELECT 1") == [(1,)]


def test_a_cancelled_query_ends_quietly(server, client):
    """The client's Cancel ends the stream, as in ClickHouse; the connection remains usable."""
    with connect(server) as other:
        other.execute("SELECT 1")
        rows = other.execute_iter(
            "SELECT sleepEachRow(0.01), number FROM numbers(100000) SETTINGS max_block_size = 1",
            query_id="cancel",
        )
        next(rows)
        other.connection.send_cancel()
        assert len(list(rows)) < 99_999
        assert other.execute("SELECT 2") == [(2,)]


def test_a_disconnected_clients_query_is_cancelled(server, client):
    """Its result has no reader."""
    other = connect(server)
    thread = threading.Thread(
        target=_ignore_failure,
        args=(other, "SELECT sleepEachRow(0.1) FROM numbers(10000) SETTINGS max_block_size = 1"),
    )
    thread.start()
    until(lambda: client.execute("SELECT 1 FROM system.processes WHERE query_id = 'gone' AND elapsed > 0"))
    other.connection.socket.shutdown(2)
    until(lambda: not client.execute("SELECT 1 FROM system.processes WHERE query_id = 'gone'"))
    thread.join()


def _ignore_failure(client, query):
    with pytest.raises(Exception):  # noqa: B017 - whatever it is: the connection was cut
        client.execute(query, query_id="gone")


def test_external_tables_come_with_a_query(client):
    """The client's own rows are a table for the duration of one query."""
    tables = [{"name": "mine", "structure": [("x", "Int32"), ("s", "String")], "data": [(1, "a"), (2, "b")]}]
    tables = [{**t, "data": [{"x": x, "s": s} for x, s in t["data"]]} for t in tables]
    assert client.execute("SELECT sum(x), max(s) FROM mine", external_tables=tables) == [(3, "b")]
    assert code_of(client, "SELECT * FROM mine") == UNKNOWN_TABLE


def test_a_ping_is_answered(client):
    """The driver pings before each query."""
    client.execute("SELECT 1")
    assert client.connection.ping()


def test_http_on_the_native_port_gets_a_hint(server):
    """The response is ClickHouse's hint."""
    with socket.create_connection((server.host, server.port)) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        answer = b"".join(iter(lambda: sock.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.0 400")
    assert str(server.http_port).encode() in answer
