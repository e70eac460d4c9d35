"""Bringing a worker up from its settings: the server, the tables, the log, and the loop it runs in."""

import asyncio
import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop
from clickhouse_driver.errors import ServerException

from pipeline import __version__
from pipeline.addresses import EmbeddedAddress, FilesAddress, KafkaAddress, ServerAddress
from pipeline.errors import SinkError, SinkUnavailable, UsageError
from pipeline.lanes.buffer import BatchLimits
from pipeline.lanes.ports import IdleClock, LaneLimits
from pipeline.lanes.warm import compile_kernels
from pipeline.lanes.worker import Meter, Worker, run_until_signal
from pipeline.ledger.audit import Scope, audit
from pipeline.ledger.queries import Tables
from pipeline.ledger.totals import Summary
from pipeline.log.files.source import FilesSource
from pipeline.log.source import Source
from pipeline.settings import Settings
from schemas.migrate import migrate
from schemas.wire import currency_code
from sinks.checks import check_server
from sinks.clickhouse import ClickHouseSink, SinkOptions, query_refused
from sinks.connection import NETWORK_ERRORS, Client, connect, first_line
from sinks.embedded.launch import EmbeddedServer

HOUR_MS = 3_600_000
GC_ALLOCATIONS = 100_000
SERVER_LOOK_SECONDS = 0.2

Progress = Callable[[str], None]


def run_worker(settings: Settings, *, until_caught_up: bool, progress: Progress) -> Summary | None:
    """Run a worker; returns the whole ledger's totals when it has caught up, None when a signal stopped it.

    `progress` is given lines for people. Raises UsageError, LogError, SinkError, LaneStopped.
    """
    source = _source(settings)
    with _server(settings) as (address, embedded):
        _prepare_patiently(settings, address, progress)
        compile_kernels()
        # What was imported lives to the end, and batches leave no cycles: the collector was a tenth of the CPU.
        gc.freeze()
        gc.set_threshold(GC_ALLOCATIONS)
        meter = Meter()
        worker_records, caught_up = uvloop.run(
            _run(settings, source, address, embedded, until_caught_up, progress)
        )
        wall, cpu = meter.seconds()
        if not caught_up:
            return None
        return _summary(settings, address, worker_records / wall, cpu)


def _source(settings: Settings) -> Source:
    if isinstance(settings.source, FilesAddress):
        return FilesSource(settings.source.directory, settings.group)
    raise UsageError(
        f"source {settings.source}: this release reads files: logs only",
        remedy="use --source files:DIR; adledger import --to files:DIR makes one",
    )


class _Embedded:
    """The embedded server of this worker; a new process on the same ports when one dies."""

    def __init__(self, directory: Path) -> None:
        self.server = EmbeddedServer.start(directory)
        self.address = ServerAddress(self.server.host, self.server.port, self.server.http_port)

    async def keep_alive(self, progress: Progress) -> None:
        """Start the server again when it dies; lanes that wrote are then in doubt."""
        while True:
            await asyncio.sleep(SERVER_LOOK_SECONDS)
            if self.server.alive():
                continue
            progress(f"the embedded ClickHouse (process {self.server.pid}) died: starting it again")
            try:
                # Not in a thread: Linux ends the server with the thread that started it.
                self.server = EmbeddedServer.start(
                    self.server.directory, port=self.address.port, http_port=self.address.http_port
                )
            except SinkError as error:
                progress(error.message)


@contextmanager
def _server(settings: Settings) -> Iterator[tuple[ServerAddress, _Embedded | None]]:
    if not isinstance(settings.clickhouse, EmbeddedAddress):
        yield settings.clickhouse, None
        return
    embedded = _Embedded(settings.clickhouse.directory)
    try:
        yield embedded.address, embedded
    finally:
        embedded.server.stop()


def _prepare_patiently(settings: Settings, address: ServerAddress, progress: Progress) -> None:
    """Prepare the server, which may still be starting: `retry_attempts_max` tries, each shown."""
    for attempt in range(1, settings.retry_attempts_max):
        try:
            return _prepare(settings, address, progress)
        except SinkUnavailable as error:
            progress(f"{error.message}; try {attempt} of {settings.retry_attempts_max}")
            time.sleep(min(settings.retry_backoff_ms_max / 1000, 0.1 * 2**attempt))
    return _prepare(settings, address, progress)


def _prepare(settings: Settings, address: ServerAddress, progress: Progress) -> None:
    """Make missing tables, and refuse a server that the protocol can't rest on."""
    with _client(address) as client:
        for applied in migrate(
            client, database=settings.database, cluster=settings.cluster, release=__version__
        ):
            progress(f"migration {applied.version:04} {applied.name} applied")
        if found := check_server(client, settings.database, settings.cluster):
            raise SinkError(
                f"ClickHouse at {address} is not as the protocol needs it: "
                + "; ".join(f.message for f in found),
                remedy="; ".join(f.remedy for f in found),
            )


@contextmanager
def _client(address: ServerAddress) -> Iterator[Client]:
    """Give a connection; what the server refuses, or its going away, is a SinkError."""
    client = connect(address)
    try:
        yield client
    except ServerException as error:
        raise query_refused(error) from None
    except NETWORK_ERRORS as error:
        raise SinkUnavailable(f"ClickHouse at {address} went away: {first_line(error)}") from None
    finally:
        client.disconnect()


async def _run(
    settings: Settings,
    source: Source,
    address: ServerAddress,
    embedded: _Embedded | None,
    until_caught_up: bool,  # noqa: FBT001 - passed on
    progress: Progress,
) -> tuple[int, bool]:
    options = SinkOptions(
        database=settings.database,
        cluster=settings.cluster,
        write_deadline_seconds=settings.write_deadline_seconds,
    )
    sink = ClickHouseSink(address, options)
    worker = Worker(
        source, sink, limits(settings, until_caught_up=until_caught_up), cpu_threads=settings.cpu_threads, inserts_per_second_max=settings.inserts_per_second_max, revoke_ms_max=settings.revoke_ms_max,
        until_caught_up=until_caught_up, say=progress,
    )  # fmt: skip
    keeper = asyncio.create_task(embedded.keep_alive(progress)) if embedded else None
    try:
        caught_up = await run_until_signal(worker)
    finally:
        if keeper:
            keeper.cancel()
        await sink.close()
    return worker.records, caught_up


def limits(settings: Settings, *, until_caught_up: bool) -> LaneLimits:
    """Return a lane's limits; one that runs on waits for ClickHouse as long as it is away."""
    live = isinstance(settings.source, KafkaAddress) and settings.log_time == "append"
    return LaneLimits(
        batch=BatchLimits(settings.batch_rows_max, settings.batch_bytes_max, settings.batch_age_ms_max),
        fetch_bytes_max=settings.fetch_bytes_max,
        window_ms=settings.dedupe_window_hours * HOUR_MS,
        acceptance_ms=settings.acceptance_hours_max * HOUR_MS,
        write_deadline_seconds=settings.write_deadline_seconds,
        retry_attempts_max=settings.retry_attempts_max if until_caught_up else None,
        retry_backoff_ms_max=settings.retry_backoff_ms_max,
        default_currency=currency_code(settings.currency),
        idle_clock=IdleClock(settings.idle_clock_seconds, settings.clock_skew_seconds_max) if live else None,
    )


def _summary(
    settings: Settings, address: ServerAddress, events_per_second: float, cpu_seconds: float
) -> Summary:
    with _client(address) as client:
        report = audit(client, Tables(settings.database), Scope(), recount=False)
    return Summary(report.totals, report.conserved, report.continuous, events_per_second, cpu_seconds)
