"""A worker: joins the group, runs a lane for each assignment, and ends on `stop` or when the group has caught up."""

import asyncio
import itertools
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from adledger.pipeline.errors import (
    AdledgerError,
    CommitFenced,
    CommitUnknown,
    LaneHalted,
    LaneStopped,
    LogError,
    SinkError,
)
from adledger.pipeline.lanes.catch_up import CatchUp
from adledger.pipeline.lanes.dimension_strings import DimensionStringWriter
from adledger.pipeline.lanes.emit import Emit, ignore
from adledger.pipeline.lanes.events import (
    Halted,
    LaneCrashed,
    LaneLeft,
    LaneLost,
    LaneReleased,
    LanesAssigned,
    LanesRevoked,
    LedgerUnreadable,
    OverrideFound,
    Phase,
    PhaseChanged,
    RejoinFailed,
    RejoinStarted,
    RestartScheduled,
)
from adledger.pipeline.lanes.lane import Lane
from adledger.pipeline.lanes.owned_lane import NOTHING, OverrideWatch, OwnedLane, Remembered
from adledger.pipeline.lanes.ports import Announce, LaneLimits, Ports, T, announce_to_nobody
from adledger.pipeline.lanes.rate_limiter import RateLimiter
from adledger.pipeline.lanes.rules_in_force import RulesInForce
from adledger.pipeline.log.source import Assignment, Source
from adledger.pipeline.retry import Attempt
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.sinks.overrides import NO_OVERRIDES, Overrides
from adledger.sinks.sink import Sink

INSERTS_PER_BATCH = 4
"""events, dead_letters, rollup_minute, ledger."""

SLOTS_BEYOND_THREADS = 2
"""How many more lanes than CPU threads hold a full batch at once: they wait for ClickHouse while others compute."""

OVERRIDE_POLL_SECONDS = 5
"""How often a halted lane looks for an operator override."""

REPORTED_EVERY_POLLS = 12
"""A halted lane logs the reason once a minute."""

LANE_RETRY_SECONDS = 15
"""A lane that a server refused starts again after this, since the cause may have been fixed.

So does one whose log lacks the next offset: its start checks whether the ledger has it.
"""

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
        self._errors: dict[int, AdledgerError] = {}  # lane -> what stopped it
        self._catch_up: asyncio.Task[CatchUp] | None = None
        self._rejoining: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._ended = asyncio.Event()
        self._stopped = False
        self._assigned = False
        self.records = 0

    @property
    def joined(self) -> bool:
        """Whether this worker is a member of the group and has its assignment, even an empty one."""
        return self._assigned and self._rejoining is None and not self._ended.is_set()

    @property
    def lanes_led(self) -> int | None:
        """How many lanes the log has, if this worker owns lane 0 and so does the work for all lanes. Else None."""
        return self._ports.topology.partitions if self._ports is not None and 0 in self._owned else None

    async def run(self) -> bool:
        """Work until stopped or caught up; returns whether it caught up. Raises the error of the lowest halted lane."""
        await self._rules_in_force.begin()
        topology = await self._source.join(self)
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
        if self._errors:
            raise self._errors[min(self._errors)]
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
            await asyncio.wait([self._catch_up])  # what it raises, `run` raises
        await self._end([a.lane for a in assignments])  # of an older generation
        self._assigned = True
        for assignment in assignments:
            remembered = self._remembered.pop(assignment.lane, NOTHING)
            owned = self._owned[assignment.lane] = OwnedLane(assignment, remembered)
            owned.task = asyncio.create_task(self._run_owned(owned))
        self._remembered.clear()  # of lanes that others own now
        self._emit(LanesAssigned(_sorted(a.lane for a in assignments), _sorted(self._owned)))
        self._changed.set()

    async def lanes_revoked(self, lanes: Collection[int]) -> None:
        """End lanes: each finishes its batch within `revoke_ms_max`, or abandons it to its next owner."""
        self._assigned = False
        await self._end(lanes)

    async def _end(self, lanes: Collection[int]) -> None:
        ending = [self._owned.pop(lane) for lane in lanes if lane in self._owned]
        began = time.monotonic()
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
            if not self._ended.is_set():  # now another worker's
                self._errors.pop(owned.assignment.lane, None)
        if ending:
            given = _sorted(owned.assignment.lane for owned in ending)
            self._emit(LanesRevoked(given, _sorted(self._owned), time.monotonic() - began))

    async def _run_owned(self, owned: OwnedLane) -> None:
        """Run a lane, again after refusals, until it is stopped or has reached the end."""
        number = owned.assignment.lane
        assert self._ports is not None
        watch = OverrideWatch(self._overrides, number)
        await watch.has_new()  # the first look
        while not owned.stopping.is_set():
            catch_up = self._catch_up.result() if self._catch_up is not None else None
            try:
                await self._run_lane(owned.next_lane(self._ports, self._slots, catch_up))
            except LaneHalted as error:
                if not await self._halt(owned, error, watch):
                    return
            except (LogError, SinkError) as error:
                if self._until_caught_up:
                    await self._halt(owned, error, watch)
                    return
                self._emit(RestartScheduled(number, error.message, error.remedy, LANE_RETRY_SECONDS))
                self._emit(PhaseChanged(number, Phase.WAITING, error.message))
                await owned.stopped_within(LANE_RETRY_SECONDS)
            else:
                return

    async def _run_lane(self, lane: Lane) -> None:
        """Run a lane once. Raises LaneHalted, LogError, SinkError."""
        try:
            await lane.run()
        except CommitFenced as error:
            self._emit(LaneLost(lane.lane, error.message))
            return
        except LaneStopped as error:
            self._emit(LaneLeft(lane.lane, error.message))
            return
        except CommitUnknown as error:
            self._emit(RejoinStarted(lane.lane, error.message))
            if self._rejoining is None:
                self._rejoining = asyncio.create_task(self._rejoin())
            return
        except AdledgerError:
            raise
        except Exception as error:  # an impossible state never continues: the worker ends with it
            self._emit(LaneCrashed(lane.lane, "".join(traceback.format_exception(error)).rstrip()))
            self._errors[lane.lane] = AdledgerError(
                f"lane {lane.lane}: a bug: {error!r}", remedy="report it, with this message"
            )
            self._ended.set()
            self._changed.set()
            raise
        finally:
            self.records += lane.records
        owned = self._owned.get(lane.lane)
        if owned is not None and owned.lane is lane:  # not revoked: it has reached its end
            self._reached(lane.lane)

    def _reached(self, lane: int) -> None:
        if self._catch_up is not None:
            self._catch_up.result().reached(lane)
        self._changed.set()

    async def _halt(self, owned: OwnedLane, error: AdledgerError, watch: OverrideWatch) -> bool:
        """Report a halted lane once a minute; returns True when there is a new override for it.

        Other lanes continue. False: the lane was revoked, or this worker ends when the others have caught up.
        """
        lane = owned.assignment.lane
        self._errors[lane] = error
        halted = Halted(lane, error.message, error.remedy)
        self._emit(PhaseChanged(lane, Phase.HALTED, error.message))
        self._emit(halted)
        if self._until_caught_up:
            self._reached(lane)
            return False
        for polls in itertools.count(1):
            if await owned.stopped_within(OVERRIDE_POLL_SECONDS):
                return False
            if await watch.has_new():
                break
            if polls % REPORTED_EVERY_POLLS == 0:
                self._emit(halted)
        self._emit(OverrideFound(lane))
        self._errors.pop(lane, None)
        return True

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
