"""Building a worker from its settings, and running one on a log in a directory."""

import asyncio
import gc
import secrets
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

from adledger.pipeline.addresses import FilesAddress, KafkaAddress, ServerAddress
from adledger.pipeline.errors import UsageError
from adledger.pipeline.kernels.slots import SECRET_BYTES, SlotSecret
from adledger.pipeline.lanes.buffer import BatchLimits
from adledger.pipeline.lanes.emit import Emit, Event, fan_out, ignore
from adledger.pipeline.lanes.event_log import event_log
from adledger.pipeline.lanes.ports import Announce, IdleWatermark, LaneLimits, announce_to_nobody
from adledger.pipeline.lanes.rate_limiter import Meter
from adledger.pipeline.lanes.rules_in_force import Loading, RulesInForce
from adledger.pipeline.lanes.server import Progress, Server, ready_server, summarize
from adledger.pipeline.lanes.warm import compile_kernels
from adledger.pipeline.lanes.worker import Worker
from adledger.pipeline.lanes.worker_events import AlertRaised, OwnershipChanged, RulesNoticed, RulesTrouble
from adledger.pipeline.ledger.totals import LedgerSummary
from adledger.pipeline.lists.publishers import PublisherSnapshot
from adledger.pipeline.log.files.source import FilesSource
from adledger.pipeline.log.source import Source
from adledger.pipeline.retry import RetryPolicy
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.pipeline.rules.loader import NONE, PUBLISHED, load_evaluator, load_rules, shipped_name, today
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.pipeline.settings import Settings
from adledger.schemas.periods import CloseDelays
from adledger.schemas.wire import currency_code
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.overrides import NO_OVERRIDES
from adledger.sinks.rules import NO_RULE_STORE, PublishedRules
from adledger.sinks.sink import Sink

HOUR_MS = 3_600_000
GC_ALLOCATIONS = 100_000


Beside = Callable[[Settings, ServerAddress, Callable[[], bool], Emit], Coroutine[Any, Any, None]]
"""What runs beside a worker until it ends, from: settings, server, whether the worker owns lane 0, and where events go."""


def run_worker(
    settings: Settings, *, until_caught_up: bool, progress: Progress, beside: Beside | None = None
) -> LedgerSummary | None:
    """Run a worker on a files: log; returns the whole ledger's totals when it has caught up, None after a signal.

    `progress` is given lines for people. Raises UsageError, LogError, SinkError, LaneHalted.
    """
    source = _files_source(settings)
    with ready_server(settings, progress) as server, ready_process(settings):
        meter = Meter()
        with event_log(settings.event_log) as log:
            emit = fan_out(log, lines_to(progress))
            records, caught_up = uvloop.run(
                _run(settings, source, server, until_caught_up, progress, emit, beside)
            )
        wall, cpu = meter.seconds()
        return summarize(settings, server.address, records / wall, cpu) if caught_up else None


def lines_to(progress: Progress) -> Emit:
    """Return a function that shows events on stderr. Ownership is left out: a log in a directory has one worker."""

    def emit(event: Event) -> None:
        if not isinstance(event, OwnershipChanged) and (line := event.line):
            progress(line)

    return emit


@contextmanager
def ready_process(settings: Settings) -> Iterator[None]:
    """Compile the data path and freeze the garbage collector's objects, before the worker has a membership to lose."""
    # The published set is not known yet; the default set runs every kernel.
    compile_kernels(load_rules(shipped_name(settings.rules)))
    # Imported objects live to the end and batches leave no cycles; collection took a tenth of the CPU.
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


def make_sink(settings: Settings, address: ServerAddress) -> ClickHouseSink:
    """Return the sink of a worker."""
    options = SinkOptions(
        database=settings.database,
        cluster=settings.cluster,
        write_deadline_seconds=settings.write_deadline_seconds,
    )
    return ClickHouseSink(address, options)


def make_worker(
    settings: Settings,
    source: Source,
    sink: Sink,
    *,
    until_caught_up: bool,
    emit: Emit = ignore,
    announce: Announce = announce_to_nobody,
    close_delays: CloseDelays | None = None,
) -> Worker:
    """Return a worker with the limits of the settings. `close_delays` None: the setting's, for all periods."""
    return Worker(
        source,
        sink,
        limits(settings, until_caught_up=until_caught_up, close_delays=close_delays),
        cpu_threads=settings.cpu_threads,
        inserts_per_second_max=settings.inserts_per_second_max,
        revoke_ms_max=settings.revoke_ms_max,
        until_caught_up=until_caught_up,
        emit=emit,
        announce=announce,
        rules_in_force=_rules_in_force(settings, sink, emit),
        overrides=sink.overrides if isinstance(sink, ClickHouseSink) else NO_OVERRIDES,
    )


def _rules_in_force(settings: Settings, sink: Sink, emit: Emit) -> RulesInForce:
    """Return the rules in force."""
    store = sink.rules if isinstance(sink, ClickHouseSink) else NO_RULE_STORE
    if settings.rules == NONE:
        return RulesInForce(RuleEvaluator.none(), store)

    def load(rules: PublishedRules | None, publishers: PublisherSnapshot | None) -> RuleEvaluator:
        parsed = RuleSet.parse(rules.text, f"the set of {rules.author}") if rules is not None else None
        return load_evaluator(settings, today(), publishers, parsed)

    loading = Loading(load, settings.rules == PUBLISHED, settings.rules_poll_seconds)
    return RulesInForce(
        RuleEvaluator.none(), store, loading,
        say=lambda what: emit(RulesNoticed(what)), warn=lambda what: emit(RulesTrouble(what)),
        alerted=lambda kind: emit(AlertRaised(kind)),
    )  # fmt: skip


def limits(
    settings: Settings, *, until_caught_up: bool, close_delays: CloseDelays | None = None
) -> LaneLimits:
    """Return a lane's limits; a continuous worker waits for ClickHouse without limit."""
    live = isinstance(settings.source, KafkaAddress) and settings.log_time == "append"
    return LaneLimits(
        batch=BatchLimits(settings.batch_rows_max, settings.batch_bytes_max, settings.batch_age_ms_max),
        fetch_bytes_max=settings.fetch_bytes_max,
        window_ms=settings.dedupe_window_hours * HOUR_MS,
        allowed_lateness_ms=settings.allowed_lateness_hours * HOUR_MS,
        write_deadline_seconds=settings.write_deadline_seconds,
        retry=RetryPolicy(
            settings.retry_attempts_max if until_caught_up else None, settings.retry_backoff_ms_max
        ),
        default_currency=currency_code(settings.currency),
        close_delays=close_delays or CloseDelays.same(settings.period_close_delay_minutes),
        idle_watermark=IdleWatermark(
            settings.idle_watermark_interval_seconds, settings.clock_skew_seconds_max
        )
        if live
        else None,
        slot_secret=new_secret(),
    )


def new_secret() -> SlotSecret:
    """Return the slot secret of this process's hash tables."""
    return SlotSecret.of(secrets.token_bytes(SECRET_BYTES))


def _files_source(settings: Settings) -> FilesSource:
    if isinstance(settings.source, FilesAddress):
        return FilesSource(settings.source.directory, settings.group)
    raise UsageError(
        f"source {settings.source} is not a log in a directory", remedy="use --source files:DIR here"
    )


async def _run(
    settings: Settings,
    source: Source,
    server: Server,
    until_caught_up: bool,  # noqa: FBT001 - passed on
    progress: Progress,
    emit: Emit,
    beside: Beside | None,
) -> tuple[int, bool]:
    sink = make_sink(settings, server.address)
    worker = make_worker(
        settings, source, sink, until_caught_up=until_caught_up, emit=emit, close_delays=server.close_delays
    )
    background = [asyncio.create_task(server.keep_alive(progress))]
    if beside is not None:
        more = beside(settings, server.address, lambda: worker.lanes_led is not None, emit)
        background.append(asyncio.create_task(more))
    try:
        caught_up = await _run_until_signal(worker)
    finally:
        for task in background:
            task.cancel()
        await sink.close()
    return worker.records, caught_up


async def _run_until_signal(worker: Worker) -> bool:
    """Run a worker; SIGTERM and SIGINT stop it cleanly."""
    loop = asyncio.get_running_loop()
    signals = (signal.SIGTERM, signal.SIGINT)
    for number in signals:
        loop.add_signal_handler(number, worker.stop)
    try:
        return await worker.run()
    finally:
        for number in signals:
            loop.remove_signal_handler(number)
