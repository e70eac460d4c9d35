"""A worker: joins the group, runs a lane for each assignment, and ends on `stop` or when the group has caught up."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from adledger.pipeline.errors import LogError, SinkError
from adledger.pipeline.lanes.catch_up import CatchUp
from adledger.pipeline.lanes.dimension_strings import DimensionStringWriter
from adledger.pipeline.lanes.emit import Emit, ignore
from adledger.pipeline.lanes.events import LaneReleased
from adledger.pipeline.lanes.lane_runner import LaneRunner
from adledger.pipeline.lanes.owned_lane import NOTHING, OwnedLane, Remembered
from adledger.pipeline.lanes.ports import Announce, LaneLimits, Ports, T, announce_to_nobody
from adledger.pipeline.lanes.rate_limiter import RateLimiter
from adledger.pipeline.lanes.rules_in_force import RulesInForce
from adledger.pipeline.lanes.worker_events import (
    LanesAssigned,
    LanesRevoked,
    LedgerUnreadable,
    LogJoined,
    RejoinFailed,
)
from adledger.pipeline.log.source import Assignment, Source
from adledger.pipeline.retry import Attempt
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.sinks.overrides import NO_OVERRIDES, Overrides
from adledger.sinks.sink import Sink

INSERTS_PER_BATCH = 4
"""events, dead_letters, rollup_minute, ledger."""

SLOTS_BEYOND_THREADS = 2
"""How many more lanes than CPU threads hold a full batch at once: they wait for ClickHouse while others compute."""

LEDGER_POLL_SECONDS = 1.0
"""How often a worker that has caught up checks whether the others have."""


class Worker:
    """Runs the lanes that a group assigns to it. A `GroupListener`."""

    def __init__(
        self,
        source: Source,
        sink: Sink,
        limits: LaneLimits,
        *,
        cpu_threads: int,
        inserts_per_second_max: int,
        revoke_ms_max: int,
        until_caught_up: bool,
        emit: Emit = ignore,
        announce: Announce = announce_to_nobody,
        rules_in_force: RulesInForce | None = None,
        overrides: Overrides = NO_OVERRIDES,
    ) -> None:
        """`emit` takes events. `rules_in_force` None: no rules."""
        self._source, self._sink, self._limits = source, sink, limits
        self._emit, self._announce = emit, announce
        self._rules_in_force = rules_in_force or RulesInForce(RuleEvaluator.none())
        self._overrides = overrides
        self._revoke_ms_max = revoke_ms_max
        self._until_caught_up = until_caught_up
        self._pace = RateLimiter(inserts_per_second_max, INSERTS_PER_BATCH)
        self._pool = ThreadPoolExecutor(cpu_threads, thread_name_prefix="cpu")
        self._slots = asyncio.Semaphore(cpu_threads + SLOTS_BEYOND_THREADS)
        self._ports: Ports | None = None
        self._owned: dict[int, OwnedLane] = {}
        self._remembered: dict[int, Remembered] = {}  # between two assignments, as most lanes come back
        self._runner: LaneRunner | None = None
        self._failure: BaseException | None = None  # a bug outside of the lanes
        self._catch_up: asyncio.Task[CatchUp] | None = None
        self._rejoining: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._stopped = False
        self._assigned = False

    @property
    def records(self) -> int:
        """How many records this worker has brought into the ledger."""
        return self._runner.records if self._runner is not None else 0

    @property
    def joined(self) -> bool:
        """Whether this worker is a member of the group and has its assignment, even an empty one."""
        return self._assigned and self._rejoining is None and not self._ended.is_set()

    @property
    def lanes_led(self) -> int | None:
        """How many lanes the log has, if this worker owns lane 0 and so does the work for all lanes. Else None."""
        return self._ports.topology.partitions if self._ports is not None and 0 in self._owned else None

    async def run(self) -> bool:
        """Work until stopped or caught up; returns whether it caught up. Raises the error of the lowest halted lane.

        A bug outside of the lanes ends it, and is raised.
        """
        await self._rules_in_force.begin()
        topology = await self._source.join(self)
        self._emit(LogJoined(topology.partitions))
        self._ports = Ports(
            self._source,
            self._sink,
            topology,
            self._limits,
            self._run_cpu,
            DimensionStringWriter(self._sink).write,
            self._pace.turn,
            self._announce,
            self._emit,
            self._rules_in_force,
            self._overrides,
        )
        if self._until_caught_up:
            self._catch_up = asyncio.create_task(CatchUp.of(self._source, topology))
        try:
            async with self._rules_in_force.looking(self.stop):
                if self._catch_up is not None:
                    await self._until_all_caught_up(await self._catch_up)
                await self._ended.wait()
        finally:
            self._ended.set()
            if self._rejoining is not None:
                self._rejoining.cancel()
                await asyncio.gather(self._rejoining, return_exceptions=True)
            await self._source.leave()
            await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
        if self._failure is not None:
            raise self._failure
        if self._runner is not None and self._runner.errors:
            raise self._runner.errors[min(self._runner.errors)]
        return not self._stopped

    def stop(self) -> None:
        """Finish the current batches and end."""
        self._stopped = True
        self._ended.set()
        self._changed.set()

    async def lanes_assigned(self, assignments: Collection[Assignment]) -> None:
        """Start a lane for each assignment."""
        assert self._ports is not None, "assignments come after join has returned"
        if self._catch_up is not None:
            await asyncio.wait([self._catch_up])
            if self._catch_up.exception() is not None:  # `run` raises it
                return
        await self._end([a.lane for a in assignments])  # of an older generation
        self._assigned = True
        runner = self._runner = self._runner or self._make_runner(self._ports)
        for assignment in assignments:
            remembered = self._remembered.pop(assignment.lane, NOTHING)
            owned = self._owned[assignment.lane] = OwnedLane(assignment, remembered)
            owned.task = asyncio.create_task(runner.run(owned))
            owned.task.add_done_callback(self._ended_with)
        self._remembered.clear()  # of lanes that others own now
        self._emit(LanesAssigned(_sorted(a.lane for a in assignments), _sorted(self._owned)))
        self._changed.set()

    async def lanes_revoked(self, lanes: Collection[int]) -> None:
        """End lanes: each finishes its batch within `revoke_ms_max`, or abandons it to its next owner."""
        self._assigned = False
        await self._end(lanes)

    async def _end(self, lanes: Collection[int]) -> None:
        ending = [self._owned.pop(lane) for lane in lanes if lane in self._owned]
        began = asyncio.get_running_loop().time()
        for owned in ending:
            owned.stop()
        tasks = [owned.task for owned in ending if owned.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._revoke_ms_max / 1000)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for owned in ending:
            self._remembered[owned.assignment.lane] = owned.remembered
            self._emit(LaneReleased(owned.assignment.lane))
            if not self._ended.is_set() and self._runner is not None:  # now another worker's
                self._runner.errors.pop(owned.assignment.lane, None)
        if ending:
            given = _sorted(owned.assignment.lane for owned in ending)
            self._emit(LanesRevoked(given, _sorted(self._owned), asyncio.get_running_loop().time() - began))

    def _make_runner(self, ports: Ports) -> LaneRunner:
        catch_up = self._catch_up.result() if self._catch_up is not None else None
        return LaneRunner(ports, self._slots, catch_up, self._changed.set, self._rejoin_once)

    def _ended_with(self, task: asyncio.Task[None]) -> None:
        """End the worker if a lane's task did so with an error: a bug outside of the lane."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        self._failure = self._failure or error
        self._ended.set()
        self._changed.set()

    async def _until_all_caught_up(self, catch_up: CatchUp) -> None:
        """Wait until every lane of the group has reached its end, or the worker ends."""
        while catch_up.missing and not self._ended.is_set():
            self._changed.clear()
            try:
                async with asyncio.timeout(LEDGER_POLL_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                try:
                    await catch_up.look(self._sink, catch_up.missing - self._owned.keys())
                except SinkError as error:
                    self._emit(LedgerUnreadable(error.message))
        self._ended.set()

    def _rejoin_once(self) -> None:
        if self._rejoining is None:
            self._rejoining = asyncio.create_task(self._rejoin())

    async def _rejoin(self) -> None:
        """Leave and join as a new member, for as long as it takes."""

        def failed(error: LogError, attempt: Attempt) -> None:
            self._emit(RejoinFailed(str(error), attempt.number))

        await replace(self._limits.retry, attempts_max=None).call(self._source.rejoin, LogError, failed)
        self._rejoining = None

    def _run_cpu(self, function: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, function)


def _sorted(lanes: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(lanes))
