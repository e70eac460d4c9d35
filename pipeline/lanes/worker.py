"""A worker: joins the group, runs a lane for each assignment, and ends when told, or when the group has caught up."""

import asyncio
import itertools
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from adledger.pipeline.errors import (
    AdledgerError,
    CommitFenced,
    CommitUnknown,
    LaneStopped,
    LogError,
    SinkError,
)
from adledger.pipeline.lanes.catch_up import CatchUp
from adledger.pipeline.lanes.compute import Kept
from adledger.pipeline.lanes.held import Held, OrderWatch
from adledger.pipeline.lanes.lane import Lane
from adledger.pipeline.lanes.pace import Pace
from adledger.pipeline.lanes.ports import (
    NO_OBSERVER,
    Announce,
    LaneLimits,
    Observer,
    Phase,
    Ports,
    T,
    announce_to_nobody,
)
from adledger.pipeline.lanes.rules_in_force import RulesInForce
from adledger.pipeline.lanes.texts import TextWriter
from adledger.pipeline.log.source import Assignment, Source
from adledger.pipeline.retry import Attempt
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.sinks.orders import NO_ORDERS, Orders
from adledger.sinks.sink import Sink

INSERTS_PER_BATCH = 4
"""events, dead_letters, rollup_minute, ledger."""

SLOTS_BEYOND_THREADS = 2
"""So many more lanes than CPU threads hold a full batch at once: they wait for ClickHouse while others compute."""

ORDER_LOOK_SECONDS = 5
"""A lane that stands still looks for a person's order this often."""

SAID_EVERY_LOOKS = 12
"""A lane that stands still says so once a minute."""

LANE_RETRY_SECONDS = 15
"""A lane that a server refused starts anew after this: what was wrong may have been mended.

So does one whose log does not hold what comes next: at start it is found out whether the ledger has some of it.
"""

LEDGER_LOOK_SECONDS = 1.0
"""How often a worker that has caught up looks whether the others have."""

_log = logging.getLogger("adledger.lanes")


class Worker:
    """Runs the lanes that a group gives it. A `GroupListener`."""

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
        say: Callable[[str], None],
        warn: Callable[[str], None] | None = None,
        observer: Observer = NO_OBSERVER,
        announce: Announce = announce_to_nobody,
        rules_in_force: RulesInForce | None = None,
        orders: Orders = NO_ORDERS,
    ) -> None:
        """`say` is given lines for people, `warn` those that ask for somebody (None: `say` has them too).

        `rules_in_force` None: no rules.
        """
        self._source, self._sink, self._limits = source, sink, limits
        self._say, self._warn = say, warn or say
        self._observer, self._announce = observer, announce
        self._rules_in_force = rules_in_force or RulesInForce(RuleEvaluator.none())
        self._orders = orders
        self._revoke_ms_max = revoke_ms_max
        self._until_caught_up = until_caught_up
        self._pace = Pace(inserts_per_second_max, INSERTS_PER_BATCH)
        self._pool = ThreadPoolExecutor(cpu_threads, thread_name_prefix="cpu")
        self._slots = asyncio.Semaphore(cpu_threads + SLOTS_BEYOND_THREADS)
        self._ports: Ports | None = None
        self._held: dict[int, Held] = {}
        self._kept: dict[int, Kept] = {}  # between two assignments: most lanes come back
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
        """Whether this worker is a member of the group and was given its lanes, be they none."""
        return self._assigned and self._rejoining is None and not self._ended.is_set()

    @property
    def lanes_led(self) -> int | None:
        """How many lanes the log has, where lane 0 is ours: what one worker does for all, this one does. Else None."""
        return self._ports.topology.partitions if self._ports is not None and 0 in self._held else None

    async def run(self) -> bool:
        """Work until stopped or caught up; returns whether it caught up. Raises what stopped a lane that is ours."""
        await self._rules_in_force.begin()
        topology = await self._source.join(self)
        self._ports = Ports(
            self._source,
            self._sink,
            topology,
            self._limits,
            self._run_cpu,
            self._say,
            TextWriter(self._sink).write,
            self._pace.turn,
            self._announce,
            self._observer,
            self._rules_in_force,
            self._orders,
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
        """Finish the batches under way and end."""
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
            held = self._held[assignment.lane] = Held(assignment, self._kept.pop(assignment.lane, None))
            self._observer.phase(assignment.lane, Phase.REBUILDING)
            held.task = asyncio.create_task(self._hold(held))
        self._kept.clear()  # of lanes that others have now
        _log.info("lanes taken: %s; now held: %s", _listed(a.lane for a in assignments), _listed(self._held))
        self._changed.set()

    async def lanes_revoked(self, lanes: Collection[int]) -> None:
        """End lanes: each finishes its batch within `revoke_ms_max`, or abandons it to its next owner."""
        self._assigned = False
        await self._end(lanes)

    async def _end(self, lanes: Collection[int]) -> None:
        ending = [self._held.pop(lane) for lane in lanes if lane in self._held]
        began = time.monotonic()
        for held in ending:
            held.stop()
        tasks = [held.task for held in ending if held.task is not None]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._revoke_ms_max / 1000)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for held in ending:
            if held.lane is not None and (kept := held.lane.kept) is not None:
                self._kept[held.assignment.lane] = kept
            self._observer.forget(held.assignment.lane)
            if not self._ended.is_set():  # another worker's from now on
                self._errors.pop(held.assignment.lane, None)
        if ending:
            _log.info(
                "lanes given back: %s, after %.1f s; now held: %s",
                _listed(held.assignment.lane for held in ending),
                time.monotonic() - began,
                _listed(self._held),
            )

    async def _hold(self, held: Held) -> None:
        """Run a lane, anew where a server refused it, until it is told to stop or has reached the end."""
        number = held.assignment.lane
        assert self._ports is not None
        watch = OrderWatch(self._orders, number)
        await watch.has_new()  # the first look
        while not held.stopping.is_set():
            catch_up = self._catch_up.result() if self._catch_up is not None else None
            try:
                await self._run_lane(held.next_lane(self._ports, self._slots, catch_up))
            except LaneStopped as error:
                if not await self._stand_still(held, error, watch):
                    return
            except (LogError, SinkError) as error:
                if self._until_caught_up:
                    await self._stand_still(held, error, watch)
                    return
                self._warn(f"lane {number}: {error}; it starts anew in {LANE_RETRY_SECONDS} s")
                self._observer.phase(number, Phase.WAITING, error.message)
                await held.stopped_within(LANE_RETRY_SECONDS)
            else:
                return

    async def _run_lane(self, lane: Lane) -> None:
        """Run a lane once. Raises LaneStopped, LogError, SinkError."""
        try:
            await lane.run()
        except CommitFenced as error:
            self._say(f"lane {lane.lane}: given to another worker. {error.message}")
            return
        except CommitUnknown as error:
            self._warn(f"lane {lane.lane}: {error.message}; leaving the group to join as a new member")
            if self._rejoining is None:
                self._rejoining = asyncio.create_task(self._rejoin())
            return
        except AdledgerError:
            raise
        except Exception as error:  # an impossible state never continues: the worker ends with it
            self._warn(f"lane {lane.lane}: a bug. " + "".join(traceback.format_exception(error)).rstrip())
            self._errors[lane.lane] = AdledgerError(
                f"lane {lane.lane}: a bug: {error!r}", remedy="report it, with this message"
            )
            self._ended.set()
            self._changed.set()
            raise
        finally:
            self.records += lane.records
        held = self._held.get(lane.lane)
        if held is not None and held.lane is lane:  # nobody took it away: it has reached its end
            self._reached(lane.lane)

    def _reached(self, lane: int) -> None:
        if self._catch_up is not None:
            self._catch_up.result().reached(lane)
        self._changed.set()

    async def _stand_still(self, held: Held, error: AdledgerError, watch: OrderWatch) -> bool:
        """Say that a lane stands still, again and again; returns whether there is a new order for it.

        Other lanes go on. False: it is somebody else's, or this worker ends when the others have caught up.
        """
        lane = held.assignment.lane
        self._errors[lane] = error
        self._observer.phase(lane, Phase.STOPPED, error.message)
        self._warn(f"lane {lane} stands still. {error}")
        if self._until_caught_up:
            self._reached(lane)
            return False
        for looks in itertools.count(1):
            if await held.stopped_within(ORDER_LOOK_SECONDS):
                return False
            if await watch.has_new():
                break
            if looks % SAID_EVERY_LOOKS == 0:
                self._warn(f"lane {lane} stands still. {error}")
        self._say(f"lane {lane}: there is an order for it; it starts anew")
        self._errors.pop(lane, None)
        return True

    async def _until_all_caught_up(self, catch_up: CatchUp) -> None:
        """Return when every lane of the group has reached its end, or the worker is to end."""
        while catch_up.missing and not self._ended.is_set():
            self._changed.clear()
            try:
                async with asyncio.timeout(LEDGER_LOOK_SECONDS):
                    await self._changed.wait()
            except TimeoutError:
                try:
                    await catch_up.look(self._sink, catch_up.missing - self._held.keys())
                except SinkError as error:
                    self._say(f"the ledger can't be read: {error.message}")
        self._ended.set()

    async def _rejoin(self) -> None:
        """Leave and join as a new member, for as long as it takes."""

        def failed(error: LogError, attempt: Attempt) -> None:
            self._warn(f"the group can't be joined again: {error}; {attempt}")

        await replace(self._limits.retry, attempts_max=None).call(self._source.rejoin, LogError, failed)
        self._rejoining = None

    def _run_cpu(self, function: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, function)


def _listed(lanes: Iterable[int]) -> str:
    return ",".join(map(str, sorted(lanes))) or "none"
