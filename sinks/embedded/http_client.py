"""A client over HTTP: one connection, one thread, a new session for each request."""

import json
import socket
import uuid
import zlib
from collections.abc import Iterator
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from adledger.sinks.embedded.confined import refuse_files
from adledger.sinks.embedded.engine import INSERT_SETTINGS, Engine, RowsFile, Session
from adledger.sinks.embedded.errors import BAD_ARGUMENTS, ServerError
from adledger.sinks.embedded.http_request import (
    HttpRequest,
    content_type,
    foreign,
    http_status,
    read_request,
    skip_to_rows,
)
from adledger.sinks.embedded.insert_query import InsertStatement
from adledger.sinks.embedded.running import TAG, Figures, Register, Running
from adledger.sinks.embedded.sql import format_clause
from adledger.sinks.embedded.statements import given_rows, prepare

KEEP_ALIVE_SECONDS = 30
BODY_BYTES_MAX = 1 << 30
CHUNK_BYTES = 1 << 20
CHUNK_HEAD_BYTES_MAX = 1024

PAGES = {"/ping": b"Ok.\n", "/replicas_status": b"Ok.\n"}


class HttpClient:
    """One connection. `serve` returns when either side closes it."""

    def __init__(self, sock: socket.socket, engine: Engine, register: Register) -> None:
        self._socket = sock
        self.engine = engine
        self.register = register

    def serve(self) -> None:
        """Answer requests until the client goes away, or until `interrupt` or `close`."""
        with self._socket, suppress(OSError):
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Handler(self._socket, self._socket.getpeername(), self)  # type: ignore[arg-type]

    def interrupt(self) -> None:
        """Make `serve` return once it has answered the request that it has read. May be called from any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def close(self) -> None:
        """Make `serve` return now. May be called from any thread."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """The connection's protocol, by Python's own HTTP server; it runs as long as the connection lives."""

    protocol_version = "HTTP/1.1"
    server_version = "adledger-embedded"
    timeout = KEEP_ALIVE_SECONDS
    server: HttpClient  # type: ignore[assignment]

    def do_GET(self) -> None:
        """Answer a read-only query."""
        self._request(readonly=True)

    do_HEAD = do_GET  # noqa: N815 - named by http.server

    def do_POST(self) -> None:
        """Answer a query; rows of an INSERT follow it in the body."""
        self._request(readonly=False)

    def log_message(self, *_: Any) -> None:
        """Log no requests."""

    def _request(self, *, readonly: bool) -> None:
        if why := foreign(dict(self.headers.items())):
            self.close_connection = True
            self._reply(
                HTTPStatus.FORBIDDEN, f"{why}\n".encode(), {"Content-Type": "text/plain; charset=UTF-8"}
            )
            return
        path = self.path.partition("?")[0]
        if path in PAGES or (readonly and self.path == "/"):
            self._drain()
            self._reply(
                HTTPStatus.OK, PAGES.get(path, b"Ok.\n"), {"Content-Type": "text/html; charset=UTF-8"}
            )
            return
        query_id = ""
        try:
            request = read_request(self.path, dict(self.headers.items()), readonly=readonly)
            query_id = request.query_id or str(uuid.uuid4())
            result, headers = self._answer(request, query_id)
        except ServerError as e:
            self.close_connection = True  # a part of the body may not have been read
            headers = {
                "X-ClickHouse-Exception-Code": str(e.code),
                "Content-Type": "text/plain; charset=UTF-8",
            }
            text = f"{e} (version {'.'.join(map(str, self.server.engine.version))})\n"
            self._reply(http_status(e.code), text.encode("utf-8", "surrogateescape"), headers, query_id)
        else:
            self._reply(HTTPStatus.OK, result, headers, query_id)

    def _answer(self, request: HttpRequest, query_id: str) -> tuple[bytes, dict[str, str]]:
        insert, inline = given_rows(request.sql + b"\n") if request.sql else (None, b"")
        with RowsFile() as rows:
            sql = request.sql
            if insert is None:
                body = b"".join(self._body())
                sql = b"\n".join(part for part in (request.sql, body) if part)
                insert, inline = given_rows(sql)
                pieces: Iterator[bytes] = iter(())
            else:
                pieces = self._body()
            if insert is not None:
                rows.append(skip_to_rows(inline))
                for piece in pieces:
                    rows.append(piece)
                if insert.takes_expressions:
                    refuse_files(rows.read())
            session = self.server.engine.session(request.database)
            try:
                return self._run(session, request, query_id, sql, insert, rows)
            finally:
                session.close()

    def _run(
        self,
        session: Session,
        request: HttpRequest,
        query_id: str,
        sql: bytes,
        insert: InsertStatement | None,
        rows: RowsFile,
    ) -> tuple[bytes, dict[str, str]]:
        running = Running(
            query_id, sql, request.user, interrupt=_nothing, progress=_nothing_to_tell, gone=lambda: False
        )
        register = self.server.register
        register.add(running)
        try:
            settings = {**(INSERT_SETTINGS if insert else {}), **request.settings, TAG: query_id}
            session.configure(settings, request.required)
            named = request.default_format
            if insert is not None:
                running.in_engine = True
                result = session.run(
                    insert.from_file(rows.path, insert.format), parameters=request.parameters
                )
            else:
                prepared = prepare(sql, session, register, running)
                clause = format_clause(prepared.sql)
                named = clause[1].text.strip(b'`"').decode() if clause else named
                running.in_engine = True
                result = session.run(prepared.sql, named, request.parameters, reads=prepared.reads)
        finally:
            running.in_engine = False
            register.remove(running)
        summary = {
            "read_rows": str(result.storage_rows_read()), "read_bytes": str(result.storage_bytes_read()),
            "written_rows": str(result.rows_written()), "written_bytes": str(result.bytes_written()),
            "result_rows": str(result.rows_read()), "elapsed_ns": str(int(result.elapsed() * 1e9)),
        }  # fmt: skip
        return bytes(result.bytes()), {
            "Content-Type": content_type(named),
            "X-ClickHouse-Format": named,
            "X-ClickHouse-Summary": json.dumps(summary, separators=(",", ":")),
        }

    def _reply(self, status: int, body: bytes, headers: dict[str, str], query_id: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-ClickHouse-Server-Display-Name", "adledger embedded")
        self.send_header("X-ClickHouse-Timezone", self.server.engine.timezone.decode())
        if query_id:
            self.send_header("X-ClickHouse-Query-Id", query_id)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Connection", "close" if self.close_connection else "keep-alive")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _drain(self) -> None:
        for _ in self._body():
            pass

    def _body(self) -> Iterator[bytes]:
        """Yield the request's body, decompressed."""
        encoding = self.headers.get("Content-Encoding", "identity").lower()
        if encoding in ("identity", ""):
            yield from self._raw_body()
            return
        if encoding not in ("gzip", "deflate"):
            raise ServerError(
                BAD_ARGUMENTS,
                f"Content-Encoding {encoding}: only gzip and deflate are supported. (BAD_ARGUMENTS)",
            )
        inflate = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)
        try:
            for piece in self._raw_body():
                yield inflate.decompress(piece)
            yield inflate.flush()
        except zlib.error as e:
            raise ServerError(BAD_ARGUMENTS, f"The body is not {encoding}: {e}. (BAD_ARGUMENTS)") from None

    def _raw_body(self) -> Iterator[bytes]:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            yield from self._chunks()
            return
        left = _size(self.headers.get("Content-Length") or "0", 10)
        if left > BODY_BYTES_MAX:
            raise _too_large(left)
        while left:
            piece = self.rfile.read(min(left, CHUNK_BYTES))
            if not piece:
                raise ConnectionError("the client went away in mid-request")
            left -= len(piece)
            yield piece

    def _chunks(self) -> Iterator[bytes]:
        total = 0
        while size := _size(self._line().partition(";")[0], 16):
            total += size
            if total > BODY_BYTES_MAX:
                raise _too_large(total)
            piece = self.rfile.read(size + 2)
            if len(piece) < size + 2:
                raise ConnectionError("the client went away in mid-request")
            yield piece[:-2]
        while self._line():
            pass  # trailers

    def _line(self) -> str:
        return self.rfile.readline(CHUNK_HEAD_BYTES_MAX).decode("latin-1").strip()


def _size(text: str, base: int) -> int:
    try:
        return int(text, base)
    except ValueError:
        raise ServerError(BAD_ARGUMENTS, f"{text!r} is not a valid body size. (BAD_ARGUMENTS)") from None


def _too_large(size: int) -> ServerError:
    return ServerError(
        BAD_ARGUMENTS, f"A body of {size} bytes: at most {BODY_BYTES_MAX} are accepted. (BAD_ARGUMENTS)"
    )


def _nothing() -> None:
    """Do nothing on interrupt: the rows have arrived before the query begins."""


def _nothing_to_tell(_: Figures) -> None:
    """Ignore progress: HTTP has no place for it."""
