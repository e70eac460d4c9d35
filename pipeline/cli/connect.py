"""ClickHouse for one command: a remote server, or the embedded one, which is started if it is not running."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from adledger.pipeline.addresses import EmbeddedAddress, ServerAddress

if TYPE_CHECKING:
    from adledger.pipeline.settings import Settings
    from adledger.sinks.connection import Client


@contextmanager
def server(settings: "Settings") -> Iterator[ServerAddress]:
    """Yield a server's address: the configured one, or that of the directory's embedded server, started if none runs.

    A server that was started here stops at the end of the block. Raises SinkError.
    """
    address = settings.clickhouse
    if not isinstance(address, EmbeddedAddress):
        yield address
        return
    from adledger.sinks.embedded.launch import EmbeddedServer, find

    if (found := find(address.directory)) is not None:
        yield ServerAddress(found.host, found.port, found.http_port)
        return
    with EmbeddedServer.start(address.directory) as running:
        yield ServerAddress(running.host, running.port, running.http_port)


@contextmanager
def client(settings: "Settings") -> Iterator["Client"]:
    """Yield a connection over the native protocol. Raises SinkError, with the server's code, for what it refuses."""
    from clickhouse_driver.errors import ServerException

    from adledger.pipeline.errors import SinkUnavailable
    from adledger.sinks.connection import NETWORK_ERRORS, connect, first_line
    from adledger.sinks.refused import query_refused

    with server(settings) as address:
        connection = connect(address)
        try:
            yield connection
        except ServerException as e:
            raise query_refused(e) from None
        except NETWORK_ERRORS as e:
            raise SinkUnavailable(
                f"lost the connection to ClickHouse at {address}: {first_line(e)}",
                remedy="try again when it is back",
            ) from None
        finally:
            connection.disconnect()
