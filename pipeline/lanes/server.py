"""The ClickHouse that a worker writes to, embedded or a server: checked and migrated before the lanes start."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from clickhouse_driver.errors import ServerException

from adledger import __version__
from adledger.pipeline.addresses import EmbeddedAddress, ServerAddress
from adledger.pipeline.errors import SinkError, SinkUnavailable
from adledger.pipeline.ledger.audit import Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.ledger.totals import LedgerSummary
from adledger.pipeline.retry import Attempt, RetryPolicy
from adledger.pipeline.settings import Settings
from adledger.schemas.migrate import migrate
from adledger.schemas.periods import CloseDelays
from adledger.sinks.checks import check_server, check_version
from adledger.sinks.connection import NETWORK_ERRORS, Client, connect, first_line
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.periods import close_delays, refuse_other_delay
from adledger.sinks.refused import query_refused

SERVER_LOOK_SECONDS = 0.2

Progress = Callable[[str], None]


class Server:
    """A running server; the embedded one is restarted when it dies."""

    def __init__(self, address: ServerAddress, embedded: EmbeddedServer | None = None) -> None:
        self.address = address
        self._embedded = embedded
        self.close_delays: CloseDelays | None = None
        """When periods close, as the database has it; known once the server is ready."""

    @classmethod
    def start_embedded(cls, directory: Path) -> "Server":
        """Start the embedded server of a directory. Raises SinkError."""
        server = EmbeddedServer.start(directory)
        return cls(ServerAddress(server.host, server.port, server.http_port), server)

    async def keep_alive(self, progress: Progress) -> None:
        """Start the embedded server again, on the same ports, when it dies; lanes that were writing are then in doubt."""
        while self._embedded is not None:
            await asyncio.sleep(SERVER_LOOK_SECONDS)
            if self._embedded.alive():
                continue
            progress(f"the embedded ClickHouse (process {self._embedded.pid}) died: starting it again")
            try:
                # Not in a thread: Linux ends the server with the thread that started it.
                self._embedded = EmbeddedServer.start(
                    self._embedded.directory, port=self.address.port, http_port=self.address.http_port
                )
            except SinkError as error:
                progress(error.message)

    def stop(self) -> None:
        """Stop the embedded server; leave any other running."""
        if self._embedded is not None:
            self._embedded.stop()


@contextmanager
def ready_server(settings: Settings, progress: Progress) -> Iterator[Server]:
    """Yield a server that has its tables and meets the protocol's requirements. Raises SinkError.

    A server may still be starting: `retry_attempts_max` tries, each shown. One that refuses us is not tried again.
    """
    if isinstance(settings.clickhouse, EmbeddedAddress):
        server = Server.start_embedded(settings.clickhouse.directory)
    else:
        server = Server(settings.clickhouse)
    try:
        server.close_delays = _prepare_retrying(settings, server.address, progress)
        yield server
    finally:
        server.stop()


def summarize(
    settings: Settings, address: ServerAddress, events_per_second: float, cpu_seconds: float
) -> LedgerSummary:
    """Return the whole ledger's totals, and this process's own work. Raises SinkError."""
    with connected(address) as client:
        report = audit(client, TableNames(settings.database), Scope(), recount=False)
    return LedgerSummary(report.totals, report.conserved, report.continuous, events_per_second, cpu_seconds)


def _prepare_retrying(settings: Settings, address: ServerAddress, progress: Progress) -> CloseDelays:
    def failed(error: SinkUnavailable, attempt: Attempt) -> None:
        if error.refused:
            raise error
        progress(f"{error.message}; {attempt}")

    policy = RetryPolicy(settings.retry_attempts_max, settings.retry_backoff_ms_max)
    return policy.call_blocking(lambda: _prepare(settings, address, progress), SinkUnavailable, failed)


def _prepare(settings: Settings, address: ServerAddress, progress: Progress) -> CloseDelays:
    """Create missing tables; refuse a server that does not meet the protocol's requirements, and another close delay."""
    minutes = settings.period_close_delay_minutes
    with connected(address) as client:
        check_version(client)
        for applied in migrate(
            client,
            database=settings.database,
            cluster=settings.cluster,
            release=__version__,
            close_delay_minutes=minutes,
        ):
            progress(f"migration {applied.version:04} {applied.name} applied")
        if found := check_server(client, settings.database, settings.cluster):
            raise SinkError(
                f"ClickHouse at {address} is not as the protocol needs it: "
                + "; ".join(f.message for f in found),
                remedy="; ".join(f.remedy for f in found),
            )
        delays = close_delays(client, settings.database)
    refuse_other_delay(delays, settings.database, minutes)
    return delays


@contextmanager
def connected(address: ServerAddress) -> Iterator[Client]:
    """Yield a connection; a refusal or a lost connection raises SinkError."""
    client = connect(address)
    try:
        yield client
    except ServerException as error:
        raise query_refused(error) from None
    except NETWORK_ERRORS as error:
        raise SinkUnavailable(f"ClickHouse at {address} went away: {first_line(error)}") from None
    finally:
        client.disconnect()
