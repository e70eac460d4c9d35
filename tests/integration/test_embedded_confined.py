"""The demo's server is confined: it reaches nothing of its machine, and no web page reaches it."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import quote

import pytest
from clickhouse_driver import Client
from clickhouse_driver.errors import ServerException

from adledger.sinks.embedded import launch
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.browser import Browser

SECRET = "of the machine"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as running:
        client = Client(running.host, running.port)
        client.execute("CREATE TABLE t (a String) ENGINE = MergeTree ORDER BY a")
        client.disconnect()
        yield running


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("elsewhere") / "secret.txt"
    file.write_text(SECRET)
    return file


REACHES = [
    "SELECT * FROM file('{file}', 'LineAsString')", "SELECT * FROM '{file}'", "SELECT file('{file}')",
    "SELECT `file`('{file}')", "SELECT `f\\x69le`('{file}')", "SELECT \"file\" /* */ ('{file}')",
    "SELECT * APPLY(file) FROM (SELECT '{file}' AS a)", "SELECT * APPLY file FROM (SELECT '{file}' AS a)",
    "DESCRIBE file('{file}', 'LineAsString')", "INSERT INTO t SELECT file('{file}')",
    "INSERT INTO t VALUES (file('{file}'))", "INSERT INTO t FROM INFILE '{file}' FORMAT LineAsString",
    "SELECT 1 INTO OUTFILE '{file}.out'", "SELECT 1 INTO /* */ OUTFILE '{file}.out' FORMAT TSV",
    "INSERT INTO FUNCTION file('{file}.out', 'TSV', 'a UInt8') SELECT 1",
    "SELECT 1 FORMAT Template SETTINGS format_template_row = '{file}'",
    "SELECT * FROM url('http://127.0.0.1:1/', 'TSV', 'a String')", "SELECT * FROM s3('http://127.0.0.1:1/b/k', 'TSV', 'a String')",
    "SELECT * FROM remote('127.0.0.1:1', 'system.one')", "SELECT * FROM mysql('127.0.0.1:1', 'd', 't', 'u', 'p')",
    "CREATE TABLE f (a String) ENGINE = File(TSV)", "CREATE TABLE u (a String) ENGINE = URL('http://127.0.0.1:1/', 'TSV')",
    "CREATE DATABASE fs ENGINE = Filesystem('/')",
    "CREATE DICTIONARY d (k UInt64, v String) PRIMARY KEY k SOURCE(EXECUTABLE(command 'id' format 'TSV')) LAYOUT(FLAT()) LIFETIME(0)",
    "CREATE TABLE k (a UInt8) ENGINE = MergeTree ORDER BY a SETTINGS disk = disk(type = local, path = '{file}.d/')",
    "BACKUP TABLE t TO File('{file}.backup')", "ATTACH TABLE z FROM '{file}' (a String) ENGINE = MergeTree ORDER BY a",
    "CREATE USER x", "SYSTEM SHUTDOWN", "CREATE NAMED COLLECTION n AS a = 1",
]  # fmt: skip


@pytest.mark.parametrize("statement", REACHES)
@pytest.mark.parametrize("how", ["native", "http"])
def test_no_statement_reaches_files_processes_or_networks(server, secret, statement, how):
    """Every way that ClickHouse has to a file, a process or another server is refused, on both protocols."""
    sql = statement.format(file=secret)
    before = sorted(secret.parent.iterdir())
    if how == "native":
        client = Client(server.host, server.port)
        with pytest.raises(ServerException) as refused:
            client.execute(sql)
        client.disconnect()
        message = refused.value.message
    else:
        connection = http.client.HTTPConnection(server.host, server.http_port, timeout=60)
        connection.request("POST", "/", sql.encode())
        answer = connection.getresponse()
        message = answer.read().decode()
        connection.close()
        assert answer.status != 200
    assert SECRET not in message
    assert sorted(secret.parent.iterdir()) == before
    counter = Client(server.host, server.port)
    assert counter.execute("SELECT count() FROM t") == [(0,)]
    counter.disconnect()


def test_rows_of_values_reach_no_file_either(server, secret):
    """Functions in rows that follow in a request's body are refused too."""
    connection = http.client.HTTPConnection(server.host, server.http_port, timeout=60)
    connection.request(
        "POST", "/?query=" + quote("INSERT INTO t VALUES"), f"('a'), (file('{secret}'))".encode()
    )
    answer = connection.getresponse()
    assert (answer.status, SECRET in answer.read().decode()) == (403, False)
    connection.close()


def test_harmless_uses_of_the_names_are_accepted(server):
    """Strings, columns and tables may have such names."""
    client = Client(server.host, server.port)
    client.execute("CREATE TABLE paths (file String, disk UInt8) ENGINE = MergeTree ORDER BY file")
    client.execute("INSERT INTO paths VALUES", [("into outfile (file('x'))", 1)])
    assert client.execute("SELECT file, disk FROM paths WHERE file = 'into outfile (file(''x''))'") != []
    client.execute("DROP TABLE paths SYNC")
    client.disconnect()


@pytest.mark.parametrize(
    ("headers", "status"),
    [({"Host": "rebound.test:{port}"}, 403), ({"Host": "127.0.0.1.evil.test"}, 403), ({"Host": ""}, 403),
     ({"Origin": "http://evil.test"}, 403), ({"Origin": "null"}, 403), ({"Origin": "http://localhost:1"}, 403),
     ({"Sec-Fetch-Site": "cross-site"}, 403), ({"Sec-Fetch-Site": "same-site"}, 403),
     ({"Host": "localhost:{port}"}, 200), ({"Host": "localhost:1"}, 200), ({"Host": "localhost.evil.test:{port}"}, 403), ({"Origin": "http://127.0.0.1:{port}"}, 200), ({"Sec-Fetch-Site": "none"}, 200)],
    ids=str,
)  # fmt: skip
def test_foreign_hosts_and_origins_are_refused(server, headers, status):
    """A web page's request shows in Origin, Sec-Fetch-Site or Host; curl's and our own have none of these."""
    connection = http.client.HTTPConnection(server.host, server.http_port, timeout=60)
    given = {name: value.format(port=server.http_port) for name, value in headers.items()}
    connection.request("POST", "/", b"SELECT 1", given)
    assert connection.getresponse().status == status
    connection.close()


OPEN = """
from adledger.sinks.embedded import http_client
http_client.foreign = lambda *_: ""
from adledger.sinks.embedded.__main__ import main
main()
"""
"""A server without the check."""

PAGE = """<!doctype html><title>hostile</title><form id=f method=post enctype=text/plain target=i action="http://{host}:{port}/">
<input name="CREATE TABLE by_form (a UInt8) ENGINE = MergeTree ORDER BY a --" value=""></form><iframe name=i></iframe>
<script>
fetch("http://{host}:{port}/", {{method: "POST", mode: "no-cors", body: "CREATE TABLE by_fetch (a UInt8) ENGINE = MergeTree ORDER BY a"}});
document.getElementById("f").submit();
</script>"""


@contextmanager
def hostile_page(server: EmbeddedServer) -> Iterator[str]:
    """Serve a page of another origin that posts DDL by a script and by a form."""
    body = PAGE.format(host=server.host, port=server.http_port).encode()

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing."""

    with HTTPServer(("127.0.0.1", 0), Page) as listening:
        thread = threading.Thread(target=partial(listening.serve_forever, poll_interval=0.01))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}/"
        finally:
            listening.shutdown()
            thread.join()


def made_by_a_page(server: EmbeddedServer, folder: Path) -> list[str]:
    with hostile_page(server) as url:
        assert "hostile" in Browser(folder).visit(url)
    client = Client(server.host, server.port)
    tables = sorted(name for (name,) in client.execute("SHOW TABLES LIKE 'by_%'"))
    client.disconnect()
    return tables


def test_a_web_page_makes_a_browser_change_nothing(server, tmp_path):
    """In a real browser a page of another origin posts DDL, and no table is created."""
    assert made_by_a_page(server, tmp_path) == []


def test_control_without_the_check_a_web_page_changes_tables(tmp_path, monkeypatch):
    """Control: the same page in the same browser creates tables where Host and Origin are not checked."""
    command = launch._command
    monkeypatch.setattr(launch, "_command", lambda *given: [(c := command(*given))[0], "-c", OPEN, *c[3:]])
    with EmbeddedServer.start(tmp_path / "clickhouse") as open_server:
        assert made_by_a_page(open_server, tmp_path) == ["by_fetch", "by_form"]
