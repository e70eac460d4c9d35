"""A connection to ClickHouse: clickhouse-driver's client, with its failures classified.

The driver connects, and reconnects after a failed ping, only before it sends a query, and it never sends a query
twice. `Client` makes that moment visible: a failure before it is `SinkUnavailable`, and nothing was sent.
"""

import errno
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import clickhouse_driver
import numpy as np
from clickhouse_driver import errors as driver_errors

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import SinkUnavailable
from adledger.sinks.arrays import AnyArray, column_array
from adledger.sinks.secure import driver_options, login_password, probed

# The driver logs each failure with a traceback, and raises it too; we report it once, with the remedy.
logging.getLogger("clickhouse_driver.connection").setLevel(logging.CRITICAL)

CONNECT_TIMEOUT_SECONDS = 5
READ_TIMEOUT_SECONDS = (
    60  # for the next packet of an answer; a running query sends progress ten times a second
)

AUTHENTICATION_FAILED = 516
UNKNOWN_DATABASE = 81

NETWORK_ERRORS = (OSError, EOFError, driver_errors.NetworkError, driver_errors.SocketTimeoutError)


class Client(clickhouse_driver.Client):  # type: ignore[misc]
    """clickhouse-driver's client, which raises `SinkUnavailable` if it can't connect.

    Once connected it raises what the driver does: ServerException for the server's answers, `NETWORK_ERRORS` for
    an answer that did not come. `timeout_seconds` bounds each wait for the server. Used by one thread at a time.
    """

    def __init__(self, address: ServerAddress, **options: Any) -> None:
        password = login_password(address)
        super().__init__(address.host, port=address.port, user=address.user, password=password, **options)
        self.address = address
        self.timeout_seconds = float(READ_TIMEOUT_SECONDS)
        self._aborted = False

    def establish_connection(self, settings: dict[str, Any] | None) -> None:
        """Connect unless connected and answering. Called by the driver before each query."""
        try:
            super().establish_connection(settings)
            if self._aborted:  # checked after connecting: before that, abort() finds no socket to close
                raise SinkUnavailable(f"the query to ClickHouse at {self.address} was given up")
            self.connection.socket.settimeout(self.timeout_seconds)
        except driver_errors.ServerException as e:
            raise SinkUnavailable(
                f"ClickHouse at {self.address} refuses {self.address.user!r}: {first_line(e)}",
                refused=True,
                remedy=_refused_remedy(e.code),
            ) from None
        except (*NETWORK_ERRORS, driver_errors.UnexpectedPacketFromServerError) as e:
            why = first_line(e) or type(e).__name__
            raise self._cause(why) or SinkUnavailable(
                f"no connection to ClickHouse at {self.address}: {why}",
                remedy="check that it is running and that the address is right: host, native port (9000, not 8123), "
                "secure=0|1",
            ) from None

    def _cause(self, why: str) -> SinkUnavailable | None:
        """Return why connecting failed, as far as a probe can tell.

        Where nothing listened, plain text is not at fault, and no TLS is tried: a server that has started since and does
        not expect it would log each waiting worker's greeting as an error, and clickhouse-local would end.
        """
        if not self.address.secure and os.strerror(errno.ECONNREFUSED) in why:
            return None
        return probed(self.address, self.address.port)

    def blocks(self, query: str, settings: dict[str, Any] | None = None) -> Iterator[list[AnyArray]]:
        """Yield a query's result block by block, as lists of columns: arrays of their declared dtype (numbers).

        The connection is closed if the result is not read to its end. Raises SinkError as `column_array` does.
        """
        settings = {"use_numpy": True, **(settings or {})}
        with self.disconnect_on_error(query, settings):
            self.connection.send_query(query)
            self.connection.send_external_tables(None)
            try:
                for packet in self.packet_generator():
                    block = getattr(packet, "block", None)
                    if block is not None and block.num_rows:
                        yield _arrays(block)
            except GeneratorExit:
                self.disconnect()
                raise

    def columns(self, query: str, settings: dict[str, Any] | None = None) -> list[AnyArray] | None:
        """Return a query's result as columns, or None where it has no rows."""
        blocks = list(self.blocks(query, settings))
        if not blocks:
            return None
        return [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in zip(*blocks, strict=True)]

    def abort(self) -> None:
        """Make the thread that uses this client fail, now and for good. The only method that any thread may call."""
        self._aborted = True
        sock = self.connection.socket
        if sock is not None:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def connect(
    address: ServerAddress,
    *,
    database: str = "default",
    compression: str | None = None,
    client_name: str = "adledger",
) -> Client:
    """Return a client; it connects with the first query.

    `database`, which must exist, is that of unqualified names. `compression` is lz4 or zstd, for use over a network.
    Raises SinkUnavailable if the address's password_file can't be read.
    """
    return Client(
        address,
        database=database,
        client_name=client_name,
        secure=address.secure,
        compression=compression or False,
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        send_receive_timeout=READ_TIMEOUT_SECONDS,
        tcp_keepalive=True,
        **(driver_options(address.tls) if address.secure else {}),
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, without the server's stack trace."""
    text = getattr(error, "message", None) or str(error)
    return str(text).split("Stack trace:")[0].strip().partition("\n")[0].removesuffix(".").strip()


def _arrays(block: Any) -> list[AnyArray]:
    """Return a block's columns, however they were serialized."""
    declared = zip(block.get_columns(), block.columns_with_types, strict=True)
    return [column_array(values, name, type_name) for values, (name, type_name) in declared]


def _refused_remedy(code: int) -> str:
    if code == AUTHENTICATION_FAILED:
        return "check user and password in the address, and the user's allowed hosts on the server"
    if code == UNKNOWN_DATABASE:
        return "adledger migrate"
    return "see the server's log"
