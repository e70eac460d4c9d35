"""A whole examination: ClickHouse, then the log, then what follows from both. It changes nothing."""

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from adledger.pipeline.addresses import FilesAddress
from adledger.pipeline.doctor import clocks, group, machine
from adledger.pipeline.doctor.clickhouse import AREA as CLICKHOUSE
from adledger.pipeline.doctor.clickhouse import ServerInspection, inspect_server, no_directory_yet
from adledger.pipeline.doctor.kafka import AREA as KAFKA
from adledger.pipeline.doctor.kafka import brokers, kafka_view, topics
from adledger.pipeline.doctor.lanes import LanesInspection, LogView, inspect_lanes, lane_checks
from adledger.pipeline.doctor.planning import inserts_per_second, memory_bytes, plan
from adledger.pipeline.doctor.report import Check, CheckState
from adledger.pipeline.doctor.rules import rules_checks
from adledger.pipeline.errors import LogError, SinkError
from adledger.pipeline.findings import Finding
from adledger.pipeline.lanes.start import make_sink
from adledger.pipeline.log.files.source import FilesSource
from adledger.pipeline.log.kafka.assignor import NAME as ASSIGNOR
from adledger.pipeline.log.kafka_admin.topology import unfit_topics
from adledger.pipeline.settings import MIB, Settings
from adledger.sinks.connection import Client

OpenClickHouse = Callable[[Settings], AbstractContextManager[Client]]

LANES_UNKNOWN = 16
"""The number of lanes to plan for if the log's is unknown."""


def examine(settings: Settings, open_clickhouse: OpenClickHouse) -> list[Check]:
    """Return everything that was looked at, by area. `open_clickhouse` connects, or raises SinkError."""
    if (server := no_directory_yet(settings)) is not None:
        return _examine_rest(settings, server)
    try:
        with open_clickhouse(settings) as client:
            return _examine_rest(settings, inspect_server(client, settings))
    except SinkError as error:
        away = Check(CLICKHOUSE, str(settings.clickhouse), [Finding(error.message, error.remedy)])
        rest = Check(CLICKHOUSE, "migrations, settings and clock", not_made="ClickHouse can't be used")
        return _examine_rest(settings, ServerInspection([away, rest], rules=None))


def _examine_rest(settings: Settings, server: ServerInspection) -> list[Check]:
    """Look at the log while ClickHouse is open (the embedded server may be ours for this command)."""
    log = asyncio.run(_Log(settings, server).look())
    own = [*log.plan, machine.kernels_check()]
    if not isinstance(settings.source, FilesAddress):
        own.append(machine.web_port_check(settings))
    own_clocks = (
        [clocks.server_check(server.ahead_ms, settings.clock_skew_seconds_max)]
        if server.ahead_ms is not None
        else []
    )
    return [
        *own,
        *log.checks,
        *server.checks,
        *rules_checks(settings, server.rules),
        *own_clocks,
        *log.clocks,
    ]


class _Log:
    """Checks the log step by step; a step that lacks what it needs is reported, and ends the checks."""

    def __init__(self, settings: Settings, server: ServerInspection) -> None:
        self._settings, self._server = settings, server
        self.checks: list[Check] = []
        self.clocks: list[Check] = []
        self.plan: list[Check] = []

    async def look(self) -> "_Log":
        """Look at all of it."""
        await (self._files() if isinstance(self._settings.source, FilesAddress) else self._kafka())
        if not self.plan:
            self._plan(LANES_UNKNOWN, 1)
        return self

    async def _files(self) -> None:
        assert isinstance(self._settings.source, FilesAddress)
        try:
            source = FilesSource(self._settings.source.directory, self._settings.group)
            width = source.topology.partitions
            self.checks.append(
                Check("log", f"{self._settings.source}: {width} lanes of {', '.join(source.topology.topics)}")
            )
            await self._lanes(source)
        except LogError as error:
            self.checks.append(
                Check("log", str(self._settings.source), [Finding(error.message, error.remedy)])
            )

    async def _kafka(self) -> None:
        reached = await brokers(self._settings)
        self.checks += reached
        if all(check.state is not CheckState.FINE for check in reached):
            self._not_made("topics", "group", "keys", why="no broker can be used")
            return
        found, checked = await topics(self._settings)
        self.checks += found
        if checked is None:
            self._not_made("group", "keys", why="the topics can't be looked at")
            return
        if any(True for _ in unfit_topics(checked.topics[: len(self._settings.topics)])):
            self._not_made("group", "keys", why="the topics can't be read as lanes")
            return
        try:
            async with kafka_view(self._settings, checked) as view:
                seen = await self._lanes(view)
                members = len(view.group.members)
                findings = group.findings(view.group, ASSIGNOR, view.topology.partitions, seen.lag_records)
                what = f"{view.group.name}: {members} workers ({view.group.state.lower()})"
                self.checks.append(Check("group", what, list(findings)))
                self._broker_clock(view.newest_log_time)
                self._plan(view.topology.partitions, members)
        except LogError as error:
            self.checks.append(Check(KAFKA, "lanes", [Finding(error.message, error.remedy)]))
            self._not_made("group", "keys", why="the lanes can't be read")

    async def _lanes(self, view: LogView) -> LanesInspection:
        address = self._server.address
        sink = None if address is None else make_sink(self._settings, address)
        try:
            seen = await inspect_lanes(view, self._settings, sink)
        finally:
            if sink is not None:
                await sink.close()
        self.checks += lane_checks(seen, view.topology.partitions, with_ledger=sink is not None)
        if not self.plan and isinstance(self._settings.source, FilesAddress):
            self._plan(view.topology.partitions, 1)
        return seen

    def _broker_clock(self, newest_ms: int) -> None:
        if self._settings.log_time != "append" or newest_ms < 0:
            return
        ahead, now_ms = self._server.ahead_ms, time.time_ns() // 1_000_000
        whose, now = ("this machine's", now_ms) if ahead is None else ("ClickHouse's", now_ms + ahead)
        self.clocks.append(clocks.broker_check(newest_ms, now, whose, self._settings.clock_skew_seconds_max))

    def _plan(self, lanes: int, workers: int) -> None:
        settings, events = self._settings, self._server.window_events
        found = plan(settings, lanes, workers, events, machine.memory_bytes())
        self.plan.append(
            Check(
                "settings",
                f"{lanes} lanes: at most {inserts_per_second(settings, lanes):,.0f} inserts a second, and "
                f"{memory_bytes(settings, lanes, events) / MIB:,.0f} MiB in a worker that has them all",
                list(found),
            )
        )

    def _not_made(self, *areas: str, why: str) -> None:
        self.checks += [Check(area, "", not_made=why) for area in areas]
