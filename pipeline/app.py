"""The Faust app: lanes as a service, an agent that watches publishers, and pages.

    adledger run --source kafka://...          the worker, by its own command
    faust -A adledger.pipeline.app worker -l info       the same worker, by Faust's command; also `agents`, `send` ...

`create_app` takes settings as given. The module's `app` is created when it is first used, with the settings of environment
and file; importing the module reads and starts nothing.
"""

import asyncio
import functools
import secrets
import sys
from collections.abc import AsyncIterable
from pathlib import Path
from typing import Any, NoReturn
from uuid import uuid4

import faust
import uvloop

from adledger.pipeline.addresses import KafkaAddress
from adledger.pipeline.control import logs
from adledger.pipeline.control.announcer import Announcer
from adledger.pipeline.control.metrics import LaneMetrics
from adledger.pipeline.control.monitor import PublisherMonitor
from adledger.pipeline.control.readiness import Readiness
from adledger.pipeline.control.recent import RecentTransport
from adledger.pipeline.control.service import LanesService
from adledger.pipeline.control.watch import PublisherWatch
from adledger.pipeline.errors import AdledgerError, UsageError
from adledger.pipeline.kernels.slots import SECRET_BYTES, SlotSecret
from adledger.pipeline.lanes.emit import fan_out
from adledger.pipeline.lanes.worker_events import PagesBound
from adledger.pipeline.ledger.totals import LedgerSummary
from adledger.pipeline.log.kafka_admin.properties import CLIENT_ID, client_options, faust_credentials
from adledger.pipeline.settings import Settings
from adledger.pipeline.web.pages import PageData, add_pages
from adledger.pipeline.web.server import Pages, ports_to_try

AGENT = "publisher_monitor"


class LedgerApp(faust.App):  # type: ignore[misc] # faust has no types
    """A worker's Faust app. It has a group of its own, so that every worker's pages know every publisher (ADR 14)."""

    lanes: LanesService

    def __init__(self, settings: Settings) -> None:
        if not isinstance(settings.source, KafkaAddress):
            raise UsageError(
                f"source = {settings.source}: the Faust app works on Kafka",
                remedy="name brokers: --source kafka://HOST:PORT, or `source` in adledger.toml",
            )
        self.log_format = settings.log_format
        self._web_ports = ports_to_try(settings.web_port, chosen="web_port" in settings.model_fields_set)
        pages_id = f"{settings.kafka.get('client.id', CLIENT_ID)}-pages"
        self.cluster_options = client_options(settings.source.servers, settings.kafka) | {
            "client_id": pages_id
        }
        super().__init__(
            f"{settings.group}-pages-{uuid4().hex[:12]}",
            broker=[f"kafka://{server}" for server in settings.source.servers],
            broker_client_id=pages_id,
            broker_credentials=faust_credentials(settings.kafka),
            autodiscover=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            store="memory://",
            key_serializer="raw",
            value_serializer="raw",
            web_bind=settings.web_host,
            Worker=LedgerWorker,
        )

    def _new_transport(self) -> RecentTransport:
        return RecentTransport(self.conf.broker_consumer, self)

    def _new_web(self) -> Pages:
        return Pages(self, self._web_ports)

    def _create_directories(self) -> None:
        """Create none: there are no tables to keep in them."""


class LedgerWorker(faust.Worker):  # type: ignore[misc]
    """Faust's worker for the app: plain log lines, checks first, and an end when the group has caught up."""

    def __init__(self, app: LedgerApp, *services: Any, **options: Any) -> None:
        options |= {"override_logging": False, "redirect_stdouts": False, "quiet": True}
        super().__init__(app, *services, **options)
        self.spinner = None

    def execute_from_commandline(self) -> NoReturn:
        """Run to the end and exit: 0, or an error message and its exit code. What `faust worker` calls."""
        try:
            self.work()
        except AdledgerError as error:
            sys.stderr.write(f"adledger: {error}\n")
            sys.exit(error.exit_code)
        sys.exit(0)

    def work(self) -> LedgerSummary | None:
        """Run to the end; returns the whole ledger's totals when the group has caught up, None after a signal.

        Raises UsageError, LogError, SinkError, LaneHalted.
        """
        logs.set_up(
            str(self.loglevel or "INFO"), Path(self.logfile) if self.logfile else None, self.app.log_format
        )
        with self.app.lanes.recorded():
            failed, summary = self._work()
        if failed:
            raise AdledgerError(
                f"the Faust part of this worker ended with an error: {self.crash_reason!r}",
                remedy="see its log lines above, then start the worker again",
            )
        return summary

    def _work(self) -> tuple[bool, LedgerSummary | None]:
        """Return whether Faust's part failed, and the totals."""
        web = self.app.web if self.app.conf.web_enabled else None
        try:
            if web is not None:
                self.app.lanes.pages = web.bind()
                self.app.lanes.emit(PagesBound(self.app.lanes.pages))
            with self.app.lanes.ready():
                try:
                    super().execute_from_commandline()
                except SystemExit as end:  # how Faust's worker always ends
                    failed = bool(end.code)
                return failed, self.app.lanes.summary()
        finally:
            if web is not None:
                web.close()

    async def on_started(self) -> None:
        """Wait for a signal, or until the lanes end."""
        await self.wait_for_stopped(self.app.lanes.ended)

    def _on_sigint(self) -> None:
        self._on_sigterm()


def create_app(settings: Settings, *, until_caught_up: bool = False) -> LedgerApp:
    """Return a worker's app. Does no I/O. Raises UsageError: not on Kafka, or its properties are wrong."""
    uvloop.install()  # before Faust makes its first loop
    app = LedgerApp(settings)
    secret = SlotSecret.of(secrets.token_bytes(SECRET_BYTES))
    readiness, metrics, watch = Readiness(), LaneMetrics(), PublisherWatch(PublisherMonitor(secret=secret))
    metrics.show_monitor(watch.monitor, lambda: watch.unreadable)
    topic = app.topic(settings.rollups_topic, key_serializer="raw", value_serializer="raw", acks=False)

    @app.agent(topic, name=AGENT)
    async def watch_publishers(stream: AsyncIterable[bytes]) -> None:
        """Keep the last minutes of every publisher."""
        async for message in stream:  # never raises: Faust acknowledges a message in any case
            watch.take(message)

    app.lanes = LanesService(
        settings,
        until_caught_up=until_caught_up,
        emit=fan_out(logs.log_event, readiness.emit, metrics.emit),
        announcer=Announcer.of(settings, metrics.rollup_message),
    )
    app.service(app.lanes)
    add_pages(
        app,
        PageData(
            lambda: app.lanes.joined, readiness, watch, metrics, lambda: app.lanes.brokers_silent_seconds
        ),
    )
    return app


def run_app(
    settings: Settings,
    *,
    until_caught_up: bool,
    loglevel: str | None = None,
    logfile: Path | None = None,
    with_web: bool = True,
    blocking_timeout: float | None = None,
) -> LedgerSummary | None:
    """Run a worker on Kafka; returns the whole ledger's totals when the group has caught up, None after a signal.

    Raises UsageError, LogError, SinkError, LaneHalted.
    """
    app = create_app(settings, until_caught_up=until_caught_up)
    app.conf.web_enabled = with_web
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    worker = LedgerWorker(
        app,
        loglevel=loglevel,
        logfile=str(logfile) if logfile else None,
        blocking_timeout=blocking_timeout,
        loop=loop,
    )
    return worker.work()


@functools.cache
def _app() -> LedgerApp:
    from adledger.pipeline.settings_layers import load  # noqa: PLC0415 - only the module's own app reads settings

    return create_app(load().settings)


def __getattr__(name: str) -> Any:
    """Return `app`, or its agent (`faust -A adledger.pipeline.app send @publisher_monitor ...`)."""
    if name == "app":
        return _app()
    if name == AGENT:
        return _app().agents[AGENT]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
