"""The embedded server over HTTP: what curl and BI tools ask of ClickHouse."""

import gzip
import http.client
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import pytest

from adledger.sinks.embedded.launch import EmbeddedServer


class Asked:
    """A response: status, headers, body."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()


class Http:
    """One connection, kept alive."""

    def __init__(self, server: EmbeddedServer) -> None:
        self.connection = http.client.HTTPConnection(server.host, server.http_port, timeout=60)

    def ask(self, method="GET", path="/", body=None, headers=None, **parameters) -> Asked:
        target = f"{path}?{urlencode(parameters)}" if parameters else path
        self.connection.request(method, target, body, headers or {}, encode_chunked=False)
        return Asked(self.connection.getresponse())

    def get(self, query, **parameters) -> Asked:
        return self.ask(query=query, **parameters)

    def post(self, body, query=None, **parameters) -> Asked:
        return self.ask("POST", body=body, **({"query": query} if query else {}), **parameters)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as running:
        yield running


@pytest.fixture
def http_client(server: EmbeddedServer) -> Iterator[Http]:
    client = Http(server)
    assert client.post("DROP TABLE IF EXISTS t SYNC").status == 200
    assert client.post("CREATE TABLE t (a UInt32, s String) ENGINE = MergeTree ORDER BY a").status == 200
    yield client
    client.connection.close()


def test_ping(http_client):
    """`/ping` and `/` answer load balancers, and one connection serves many requests."""
    assert http_client.ask(path="/ping").body == b"Ok.\n"
    assert http_client.ask(path="/").body == b"Ok.\n"
    head = http_client.ask("HEAD", "/ping")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(
    ("parameters", "body", "media_type"),
    [
        ({}, b"1\tx\n", "text/tab-separated-values"),
        ({"default_format": "CSV"}, b'1,"x"\n', "text/csv"),
        ({"default_format": "JSONEachRow"}, b'{"a":1,"s":"x"}\n', "application/x-ndjson"),
    ],
)
def test_the_format_is_that_of_the_request(http_client, parameters, body, media_type):
    """A parameter sets it; the default is tab-separated."""
    answer = http_client.get("SELECT 1 AS a, 'x' AS s", **parameters)
    assert (answer.status, answer.body) == (200, body)
    assert answer.headers["Content-Type"].startswith(media_type)


def test_a_format_in_the_query_takes_precedence(http_client):
    """As in ClickHouse, and a header names it."""
    answer = http_client.get("SELECT 1 AS a FORMAT JSON", default_format="CSV")
    assert json.loads(answer.body)["data"] == [{"a": 1}]
    assert answer.headers["X-ClickHouse-Format"] == "JSON"
    assert answer.headers["Content-Type"].startswith("application/json")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["result_rows"] == "1"


def test_a_get_changes_nothing(http_client):
    """GET is read-only, with settings allowed, as in ClickHouse."""
    for query in ("DROP TABLE t", "INSERT INTO t VALUES (1, 'x')", "CREATE TABLE u (a Int8) ENGINE = Memory"):
        refused = http_client.get(query)
        assert (refused.status, refused.headers["X-ClickHouse-Exception-Code"]) == (403, "164")
    assert http_client.get("SELECT count() FROM t", max_threads=1).body == b"0\n"


CSV = b'1,"x"\n2,"y,z"\n'
ROWS = b"1\tx\n2\ty,z\n"


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("INSERT INTO t FORMAT CSV", CSV),
        (None, b"INSERT INTO t FORMAT CSV\n" + CSV),
        (None, b"INSERT INTO t (s, a) FORMAT JSONEachRow\n" + b'{"a":1,"s":"x"} {"a":2,"s":"y,z"}'),
        (None, b"INSERT INTO t VALUES (1, 'x'), (2, 'y,z')"),
        ("INSERT INTO t VALUES", b"(1, 'x'), (2, 'y,z')"),
        ("INSERT INTO t VALUES (1, 'x'),", b"(2, 'y,z')"),
        ("INSERT INTO t SETTINGS max_insert_threads = 1 FORMAT TSV", ROWS),
        ("INSERT INTO t", b"FORMAT TSV\n" + ROWS),
        ("INSERT INTO t", b"SELECT 1, 'x' UNION ALL SELECT 2, 'y,z'"),
    ],
)
def test_rows_come_in_the_body(http_client, query, body):
    """They follow a query in the URL, or one at the start of the body."""
    answer = http_client.post(body, query)
    assert (answer.status, answer.body) == (200, b"")
    assert http_client.get("SELECT * FROM t ORDER BY a").body == ROWS


@pytest.mark.parametrize("name", ["Parquet", "Native", "Arrow", "RowBinary", "CSVWithNames"])
def test_formats_round_trip(http_client, name):
    """Binary formats survive the way out and back, whatever bytes they contain."""
    given = http_client.get(
        "SELECT number::UInt32 AS a, char(number % 256) AS s FROM numbers(1000)", default_format=name
    )
    assert given.status == 200
    assert http_client.post(given.body, f"INSERT INTO t FORMAT {name}").status == 200
    assert (
        http_client.get("SELECT count(), sum(a), sum(s = char(a % 256)) FROM t").body
        == b"1000\t499500\t1000\n"
    )


def test_a_body_may_come_in_chunks_or_compressed(http_client):
    """Transfer-Encoding: chunked, Content-Encoding: gzip, and both work."""
    pieces = [CSV[:5], CSV[5:]]
    http_client.connection.request(
        "POST", "/?query=INSERT+INTO+t+FORMAT+CSV", iter(pieces), encode_chunked=True
    )
    assert Asked(http_client.connection.getresponse()).status == 200
    packed = http_client.ask(
        "POST",
        query="INSERT INTO t FORMAT CSV",
        body=gzip.compress(CSV),
        headers={"Content-Encoding": "gzip"},
    )
    assert packed.status == 200
    assert http_client.get("SELECT count() FROM t").body == b"4\n"


def test_an_unknown_compression_is_refused(http_client):
    """The error names it."""
    answer = http_client.ask(
        "POST", query="INSERT INTO t FORMAT CSV", body=CSV, headers={"Content-Encoding": "br"}
    )
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (400, "36")


@pytest.mark.parametrize(
    ("query", "parameters", "status", "code"),
    [
        ("SELECT * FROM nope", {}, 404, 60),
        ("SELECT nope", {}, 404, 47),
        ("SELEC 1", {}, 400, 62),
        ("SELECT 1; SELECT 2", {}, 400, 62),
        ("SELECT 1", {"no_such_setting": 1}, 404, 115),
        ("SELECT 1", {"database": "nope"}, 404, 81),
        ("SELECT throwIf(1)", {}, 500, 395),
        ("SELECT 1 FORMAT Nope", {}, 404, 73),
    ],
)
def test_errors_have_a_status_and_clickhouse_s_code(http_client, query, parameters, status, code):
    """The message is ClickHouse's own, and the connection remains usable."""
    answer = http_client.get(query, **parameters)
    assert (answer.status, answer.headers["X-ClickHouse-Exception-Code"]) == (status, str(code))
    assert answer.body.startswith(f"Code: {code}. DB::Exception: ".encode())
    assert http_client.get("SELECT 1").body == b"1\n"


def test_unreadable_rows_are_refused(http_client):
    """None of the rows is stored."""
    answer = http_client.post(CSV + b"three,x\n", "INSERT INTO t FORMAT CSV")
    assert answer.status in (400, 500)
    assert http_client.get("SELECT count() FROM t").body == b"0\n"


def test_database_parameters_and_id_come_by_url_or_header(http_client):
    """Any user and password are accepted."""
    assert http_client.get("SELECT currentDatabase()", database="system").body == b"system\n"
    by_header = {"X-ClickHouse-Database": "system", "X-ClickHouse-Format": "CSV", "X-ClickHouse-User": "u",
                 "X-ClickHouse-Key": "k", "Authorization": "Basic dTprCg=="}  # fmt: skip
    assert http_client.ask(query="SELECT currentDatabase()", headers=by_header).body == b'"system"\n'
    assert (
        http_client.get("SELECT {x:UInt8} + {y:Int8}", param_x=4, param_y=-1, user="u", password="p").body
        == b"3\n"
    )
    answer = http_client.get("SELECT query_id FROM system.processes", query_id="by/http")
    assert (answer.body, answer.headers["X-ClickHouse-Query-Id"]) == (b"by/http\n", "by/http")


def test_a_query_over_http_can_be_killed(server, http_client):
    """KILL QUERY finds it by its id."""
    other = Http(server)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            other.get,
            "SELECT sleepEachRow(0.05) FROM numbers(1000) SETTINGS max_block_size = 1",
            query_id="slow",
        )
        while not http_client.get(
            "SELECT 1 FROM system.processes WHERE query_id = 'slow' AND elapsed > 0"
        ).body:
            pass
        assert http_client.post("KILL QUERY WHERE query_id = 'slow' SYNC").body.startswith(
            b"finished\tslow\t"
        )
        assert running.result().headers["X-ClickHouse-Exception-Code"] == "394"
    other.connection.close()


def test_both_protocols_see_the_same_tables(server, http_client):
    """One engine."""
    import clickhouse_driver

    http_client.post(CSV, "INSERT INTO t FORMAT CSV")
    with clickhouse_driver.Client(server.host, port=server.port) as native:
        assert native.execute("SELECT * FROM t ORDER BY a") == [(1, "x"), (2, "y,z")]
