"""A query over ClickHouse's HTTP interface, where the server itself formats the result."""

import http.client
import ssl
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from urllib.parse import urlencode

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import SinkError, SinkUnavailable
from adledger.sinks.secure import handshake_failure, login_password, probed, tls_context

CONNECT_TIMEOUT_SECONDS = 5
QUERY_TIMEOUT_SECONDS = 600
CHUNK_BYTES = 256 * 1024
READONLY_BUT_SETTINGS = "2"
SETTING_KEPT = "Cannot modify 'readonly' setting in readonly mode"


def run_query(
    address: ServerAddress, sql: str, *, database: str, output_format: str, write: bool = False
) -> Iterator[bytes]:
    """Yield the result in pieces, formatted by the server; a FORMAT clause in the query goes before `output_format`.

    The server holds the answer back until the query has ended, so that one that fails yields nothing. Without `write` it
    refuses what changes something.
    Raises SinkUnavailable, and SinkError with what the server said.
    """
    connection = _connect(address)
    try:
        parameters = {"database": database, "default_format": output_format, "wait_end_of_query": "1"}
        if not write:
            parameters["readonly"] = READONLY_BUT_SETTINGS
        response = _ask(connection, address, sql, parameters)
        if response.status != http.client.OK:
            refused = _refused(response)
            if write or SETTING_KEPT not in refused.message:
                raise refused
            del parameters["readonly"]  # of a user who is read-only already, and may not say so
            response = _ask(connection, address, sql, parameters)
        if response.status != http.client.OK:
            raise _refused(response)
        while piece := response.read(CHUNK_BYTES):
            yield piece
        if response.length:  # http.client ends such an answer in silence
            raise http.client.IncompleteRead(b"", response.length)
    except (OSError, http.client.HTTPException) as e:
        raise probed(address, address.http_port) or SinkUnavailable(
            f"ClickHouse at {address.host}, HTTP port {address.http_port}, went away in mid-query: {e}",
            remedy="try again; its log says why",
        ) from None
    finally:
        connection.close()


def _ask(
    connection: HTTPConnection, address: ServerAddress, sql: str, parameters: dict[str, str]
) -> HTTPResponse:
    headers = {"X-ClickHouse-User": address.user, "X-ClickHouse-Key": login_password(address)}
    connection.request("POST", "/?" + urlencode(parameters), body=sql.encode(), headers=headers)
    return connection.getresponse()


class _SecureConnection(HTTPConnection):
    """HTTP over TLS as the address says it: http.client's own knows no name but the host's."""

    def __init__(self, address: ServerAddress, timeout: float) -> None:
        super().__init__(address.host, address.http_port, timeout=timeout)
        self._context = tls_context(address.tls)
        self._name = address.tls.server_name or address.host

    def connect(self) -> None:
        """Connect, and shake hands."""
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
            f"no connection to ClickHouse's HTTP port, {host}:{port}: {e}",
            remedy="check that it is running; queries use HTTP: set its port by http_port=... in the address",
        ) from None
    connection.sock.settimeout(QUERY_TIMEOUT_SECONDS)
    return connection


def _refused(response: HTTPResponse) -> SinkError:
    text = response.read().decode("utf-8", "replace").strip()
    said = text.split("Stack trace:")[0].strip() or f"HTTP status {response.status}"
    code = response.getheader("X-ClickHouse-Exception-Code") or ""
    return SinkError(f"ClickHouse refused the query: {said}", remedy=_REMEDIES.get(code, ""))


_REMEDIES = {
    "164": "a query is read-only: --write lets it change something",
    "60": "`adledger query 'SHOW TABLES'` lists the tables; `adledger migrate` makes them",
    "81": "set the database by --database, or make it: adledger migrate",
    "516": "check user and password in the address",
}
