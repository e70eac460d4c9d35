"""A query over ClickHouse's HTTP interface, where the server formats the result."""

import http.client
import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlencode

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import SinkError, SinkUnavailable
from adledger.schemas.roles import ACCESS_DENIED, grant_remedy
from adledger.sinks.secure import handshake_failure, login_password, probed, tls_context

CONNECT_TIMEOUT_SECONDS = 5
QUERY_TIMEOUT_SECONDS = 600
CHUNK_BYTES = 256 * 1024
READONLY_BUT_SETTINGS = "2"
READONLY_ALREADY = "Cannot modify 'readonly' setting in readonly mode"


def run_query(
    address: ServerAddress, sql: str, *, database: str, output_format: str, write: bool = False
) -> Iterator[bytes]:
    """Yield the result in pieces, formatted by the server; a FORMAT clause in the query overrides `output_format`.

    The server withholds the response until the query has ended, so that a query that fails yields nothing. Without `write`
    it refuses statements that change something.
    Raises SinkUnavailable, and SinkError with the server's message.
    """
    connection = _connect(address)
    try:
        parameters = {"database": database, "default_format": output_format, "wait_end_of_query": "1"}
        if not write:
            parameters["readonly"] = READONLY_BUT_SETTINGS
        response = _post(connection, address, sql, parameters)
        if response.status != http.client.OK:
            refused = _refused(response)
            if write or READONLY_ALREADY not in refused.message:
                raise refused
            del parameters["readonly"]  # the user is read-only already, and may not set it
            response = _post(connection, address, sql, parameters)
        if response.status != http.client.OK:
            raise _refused(response)
        while piece := response.read(CHUNK_BYTES):
            yield piece
        if response.length:  # http.client reports no error for a response that ends early
            raise http.client.IncompleteRead(b"", response.length)
    except (OSError, http.client.HTTPException) as e:
        raise probed(address, address.http_port) or SinkUnavailable(
            f"ClickHouse at {address.host}, HTTP port {address.http_port}, closed the connection in mid-query: {e}",
            remedy="try again; the server's log has the cause",
        ) from None
    finally:
        connection.close()


def _post(
    connection: HTTPConnection, address: ServerAddress, sql: str, parameters: dict[str, str]
) -> HTTPResponse:
    headers = {"X-ClickHouse-User": address.user, "X-ClickHouse-Key": login_password(address)}
    connection.request("POST", "/?" + urlencode(parameters), body=sql.encode(), headers=headers)
    return connection.getresponse()


class _SecureConnection(HTTPConnection):
    """HTTP over TLS as the address sets it: http.client's class verifies no other name than the host's."""

    def __init__(self, address: ServerAddress, timeout: float) -> None:
        super().__init__(address.host, address.http_port, timeout=timeout)
        self._context = tls_context(address.tls)
        self._name = address.tls.server_name or address.host

    def connect(self) -> None:
        """Connect, and do the TLS handshake."""
        super().connect()
        self.sock = self._context.wrap_socket(self.sock, server_hostname=self._name)


def _connect(address: ServerAddress) -> HTTPConnection:
    host, port, seconds = address.host, address.http_port, CONNECT_TIMEOUT_SECONDS
    connection = (
        _SecureConnection(address, timeout=seconds)
        if address.secure
        else HTTPConnection(host, port, timeout=seconds)
    )
    try:
        connection.connect()
    except ssl.SSLError as e:
        raise handshake_failure(e, f"{host}:{port}") from None
    except OSError as e:
        raise probed(address, port) or SinkUnavailable(
            f"cannot connect to ClickHouse's HTTP port {host}:{port}: {e}",
            remedy="check that the server runs; queries use HTTP, whose port is http_port=... in the address",
        ) from None
    connection.sock.settimeout(QUERY_TIMEOUT_SECONDS)
    return connection


def _refused(response: HTTPResponse) -> SinkError:
    text = response.read().decode("utf-8", "replace").strip()
    message = text.split("Stack trace:")[0].strip() or f"HTTP status {response.status}"
    code = response.getheader("X-ClickHouse-Exception-Code") or ""
    return SinkError(f"ClickHouse refused the query: {message}", remedy=_remedy(code, message))


def _remedy(code: str, message: str) -> str:
    return grant_remedy(message) if code == str(ACCESS_DENIED) else _REMEDIES.get(code, "")


_REMEDIES = {
    "164": "queries are read-only: add --write to change something",
    "60": "`adledger query 'SHOW TABLES'` lists the tables; `adledger migrate` creates them",
    "81": "name the database with --database, or create it: adledger migrate",
    "516": "check the user and password in the address",
}
