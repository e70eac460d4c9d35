"""Queries over ClickHouse's HTTP interface, in any of its formats: for people, not for the data path."""

import http.client
import ssl
from collections.abc import Iterator
from urllib.parse import urlencode

from pipeline.addresses import ServerAddress
from pipeline.errors import SinkError, SinkUnavailable
from sinks.connection import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, Tls

CHUNK_BYTES = 64 * 1024


def http_query(
    address: ServerAddress,
    sql: str,
    *,
    database: str = "default",
    output_format: str = "TSV",
    tls: Tls | None = None,
) -> Iterator[bytes]:
    """Yield a query's result as ClickHouse formats it.

    `output_format` holds where the query has no FORMAT of its own. Raises SinkUnavailable, or SinkError with what
    the server says; the server sends nothing before the query has ended well, so that no half result looks whole.
    """
    parameters = {"database": database, "default_format": output_format, "wait_end_of_query": "1"}
    headers = {"X-ClickHouse-User": address.user, "X-ClickHouse-Key": address.password}
    connection = _connection(address, tls or Tls())
    try:
        try:
            connection.request("POST", f"/?{urlencode(parameters)}", sql.encode(), headers)
            response = connection.getresponse()
            if response.status != http.client.OK:
                said = response.read().decode("utf-8", "replace").strip()
                raise SinkError(f"ClickHouse refused the query: {said or response.reason}")
            while chunk := response.read(CHUNK_BYTES):
                yield chunk
        except (OSError, http.client.HTTPException) as e:
            raise SinkUnavailable(
                f"no answer from ClickHouse over HTTP at {address.host}:{address.http_port}: {e or type(e).__name__}",
                remedy="check that it is running, and http_port and secure in the address",
            ) from None
    finally:
        connection.close()


def _connection(address: ServerAddress, tls: Tls) -> http.client.HTTPConnection:
    if not address.secure:
        connection = http.client.HTTPConnection(
            address.host, address.http_port, timeout=CONNECT_TIMEOUT_SECONDS
        )
    else:
        context = ssl.create_default_context(cafile=tls.ca_certs)
        if tls.certfile is not None:
            context.load_cert_chain(tls.certfile, tls.keyfile)
        if not tls.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        connection = http.client.HTTPSConnection(
            address.host, address.http_port, timeout=CONNECT_TIMEOUT_SECONDS, context=context
        )
    connection.connect()
    connection.sock.settimeout(READ_TIMEOUT_SECONDS)
    return connection
