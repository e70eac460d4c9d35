"""Queries over HTTP: what is sent, and what each kind of response becomes."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.cli.http_query import run_query
from adledger.pipeline.errors import SinkError, SinkUnavailable


class FakeClickHouse(BaseHTTPRequestHandler):
    """Answers every POST with the `answer` that a test has set, and records the requests."""

    answer: ClassVar[tuple[int, dict[str, str], bytes]]
    asked: ClassVar[dict[str, Any]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = {
            "sql": body.decode(),
            "headers": dict(self.headers),
            "query": parse_qs(urlsplit(self.path).query),
        }
        type(self).asked = asked
        status, headers, answer = self.answer
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(answer))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture
def server() -> Iterator[ServerAddress]:
    with HTTPServer(("127.0.0.1", 0), FakeClickHouse) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield ServerAddress("127.0.0.1", 1, listening.server_port, "ana", "p:w")
        listening.shutdown()
        thread.join()


def ask(server: ServerAddress, status: int, answer: bytes, **headers: str) -> bytes:
    FakeClickHouse.answer = (status, {k.replace("_", "-"): v for k, v in headers.items()}, answer)
    return b"".join(run_query(server, "SELECT 1", database="ads", output_format="CSV"))


def test_a_request_carries_everything_the_server_needs(server):
    """Database and format are sent, and credentials in headers only, since servers log the address."""
    assert ask(server, 200, b"1\n") == b"1\n"
    asked = FakeClickHouse.asked
    assert asked["sql"] == "SELECT 1"
    assert asked["query"] == {
        "database": ["ads"], "default_format": ["CSV"], "wait_end_of_query": ["1"], "readonly": ["2"],
    }  # fmt: skip
    assert asked["headers"]["X-ClickHouse-User"] == "ana"
    assert asked["headers"]["X-ClickHouse-Key"] == "p:w"


def test_only_write_leaves_out_readonly(server):
    """`write` leaves the setting out, so that the statement may change something."""
    FakeClickHouse.answer = (200, {}, b"")
    list(run_query(server, "DROP TABLE t", database="ads", output_format="CSV", write=True))
    assert "readonly" not in FakeClickHouse.asked["query"]


def test_a_refused_change_names_the_option(server):
    """ClickHouse's code 164 leads to --write."""
    with pytest.raises(SinkError, match="in readonly mode") as refused:
        ask(
            server,
            403,
            b"Code: 164. DB::Exception: Cannot execute query in readonly mode.",
            X_ClickHouse_Exception_Code="164",
        )
    assert "--write" in refused.value.remedy


def test_long_responses_are_returned_whole(server):
    """A response of any length is returned byte for byte."""
    answer = bytes(range(256)) * 4_096
    assert ask(server, 200, answer) == answer


def test_a_refusal_has_the_servers_message_and_a_remedy(server):
    """The error has the server's message without its stack trace, and a remedy."""
    body = b"Code: 60. DB::Exception: Table ads.x does not exist. Stack trace:\n\n0. DB::..."
    with pytest.raises(SinkError, match=r"Table ads\.x does not exist") as refused:
        ask(server, 404, body, X_ClickHouse_Exception_Code="60")
    assert "Stack" not in refused.value.message
    assert "adledger migrate" in refused.value.remedy
    with pytest.raises(SinkError, match="HTTP status 503"):
        ask(server, 503, b"")


def test_a_truncated_response_is_an_error(server):
    """A connection that ends before the response does is an error, not a shorter result."""
    with pytest.raises(SinkUnavailable, match="closed the connection in mid-query"):
        ask(server, 200, b"1\n", Content_Length="100")
