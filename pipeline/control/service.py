"""The lanes as a service of the Faust app: the checks before its start, its run, and its outcome."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from mode import Service

from adledger.pipeline.billing.timer import run_closings
from adledger.pipeline.control.announcer import Announcer
from adledger.pipeline.control.logs import WORKER
from adledger.pipeline.control.watch import compile_monitor
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.lanes.emit import Emit, fan_out
from adledger.pipeline.lanes.event_log import event_log
from adledger.pipeline.lanes.rate_limiter import Meter
from adledger.pipeline.lanes.server import Server, ready_server, summarize
from adledger.pipeline.lanes.start import make_sink, make_worker, ready_process
from adledger.pipeline.lanes.worker import Worker
from adledger.pipeline.ledger.totals import LedgerSummary
from adledger.pipeline.log.kafka.source import KafkaSource
from adledger.pipeline.log.kafka_admin.rate_limited_log import silent
from adledger.pipeline.log.kafka_admin.rights import Role
from adledger.pipeline.log.kafka_admin.topics import require_fit_topics
from adledger.pipeline.log.kafka_admin.worker_info import WorkerInfo
from adledger.pipeline.retention.job import run_hourly
from adledger.pipeline.settings import Settings

T = TypeVar("T")

LEAVE_SECONDS_MAX = 10
"""Time to leave the group, in addition to `revoke_ms_max`; after that, the broker drops this member when its session expires."""


class LanesService(Service):  # type: ignore[misc] # mode has no types
    """Runs a worker's lanes. Enter `ready` first; `ended` is set when the worker ends without being stopped.

    `pages` is the URL of its pages, published in the group's member data; "" where there are none.
    """

    def __init__(
        self, settings: Settings, *, until_caught_up: bool, emit: Emit, announcer: Announcer
    ) -> None:
        super().__init__()
        self.ended = asyncio.Event()
        self.pages = ""
        self._settings, self._until_caught_up = settings, until_caught_up
        self.emit, self._announcer = emit, announcer
        self._server: Server | None = None
        self._source: KafkaSource | None = None
        self._worker: Worker | None = None
        self._run: asyncio.Task[None] | None = None
        self._meter: Meter | None = None
        self._caught_up = False
        self._error: BaseException | None = None

    @property
    def joined(self) -> bool:
        """Whether the worker is a member of the group."""
        return self._worker is not None and self._worker.joined

    @property
    def brokers_silent_seconds(self) -> float:
        """For how long no broker has answered this worker; 0 while one does."""
        return 0.0 if self._source is None else self._source.silent_seconds

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Write events to the event log too, where the settings name one, while the block runs. Raises UsageError."""
        with event_log(self._settings.event_log) as log:
            self.emit = fan_out(self.emit, log)
            yield

    @contextmanager
    def ready(self) -> Iterator[None]:
        """Refuse what can't work and prepare the rest, before any loop runs. Raises UsageError, LogError, SinkError."""
        with silent():
            checked = _run_now(require_fit_topics(self._settings, Role.WORKER))
        with _terminable():
            for advice in checked.findings:
                WORKER.warning("%s; better: %s", advice.message, advice.remedy)
            compile_monitor()
            with ready_server(self._settings, WORKER.info) as self._server, ready_process(self._settings):
                yield

    async def on_start(self) -> None:
        """Begin; the group is joined in the background."""
        loop = type(asyncio.get_running_loop())
        WORKER.info(
            "starting a worker of group %s; event loop %s.%s",
            self._settings.group,
            loop.__module__,
            loop.__name__,
        )
        self._meter = Meter()
        self._run = asyncio.create_task(self._work())

    async def on_stop(self) -> None:
        """Finish the batches under way and leave the group."""
        if self._run is None:
            return
        if self._worker is not None:
            self._worker.stop()
        seconds_max = self._settings.revoke_ms_max / 1000 + LEAVE_SECONDS_MAX
        _, late = await asyncio.wait([self._run], timeout=seconds_max)
        for task in late:
            WORKER.warning("could not leave the group within %d s", seconds_max)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    def summary(self) -> LedgerSummary | None:
        """Return the whole ledger's totals where the group has caught up, else None. Raises the error that ended the worker.

        Call it within `ready`, after the loop has ended.
        """
        if isinstance(self._error, AdledgerError):
            raise self._error
        if self._error is not None:
            raise AdledgerError(
                f"a bug: {self._error!r}", remedy="report it, with this message"
            ) from self._error
        if not self._caught_up or self._meter is None or self._server is None or self._worker is None:
            return None
        wall, cpu = self._meter.seconds()
        return summarize(self._settings, self._server.address, self._worker.records / wall, cpu)

    async def _work(self) -> None:
        assert self._server is not None, "`ready` was entered before the start"
        sink = make_sink(self._settings, self._server.address)
        info = WorkerInfo(f"{socket.gethostname()}:{os.getpid()}", self.pages)
        self._source = source = KafkaSource.of(self._settings, WORKER.warning, info)
        self._worker = worker = make_worker(
            self._settings,
            source,
            sink,
            until_caught_up=self._until_caught_up,
            emit=self.emit,
            announce=self._announcer.announce,
            close_delays=self._server.close_delays,
        )
        background = [
            asyncio.create_task(
                run_closings(
                    self._settings, self._server.address, lambda: worker.lanes_led is not None, self.emit
                )
            ),
            asyncio.create_task(self._server.keep_alive(WORKER.warning)),
            asyncio.create_task(
                run_hourly(
                    self._settings, self._server.address, source, lambda: worker.lanes_led, WORKER.warning
                )
            ),
        ]
        try:
            self._caught_up = await worker.run()
        except Exception as error:  # noqa: BLE001 - `summary` raises it, after everything has ended in order
            self._error = error
        finally:
            for task in background:
                task.cancel()
            await self._announcer.stop()
            await sink.close()
            self.ended.set()


def _run_now(call: Coroutine[Any, Any, T]) -> T:
    """Run a call on a loop of its own. SIGTERM cancels it, and exits with 0."""

    async def cancellable() -> T:
        task = asyncio.current_task()
        assert task is not None, "a coroutine runs in a task"
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await call

    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        try:
            return runner.run(cancellable())
        except asyncio.CancelledError:
            sys.exit(0)


@contextmanager
def _terminable() -> Iterator[None]:
    """Exit quietly on SIGTERM until the loop handles signals."""

    def end(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a handler's signature
        sys.exit(0)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
