"""A worker: joins the group, runs a lane for each assignment, and ends when told, or when it has caught up."""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

from pipeline.errors import AdledgerError, CommitFenced, CommitUnknown
from pipeline.lanes.lane import Lane
from pipeline.lanes.ports import (
    NO_OBSERVER,
    Announce,
    LaneLimits,
    Observer,
    Phase,
    Ports,
    T,
    announce_to_nobody,
)
from pipeline.lanes.texts import TextWriter
from pipeline.log.source import Assignment, Source
from sinks.sink import Sink

INSERTS_PER_BATCH = 4
"""events, dead_letters, rollup_minute, ledger."""

SLOTS_BEYOND_THREADS = 2
"""So many more lanes than CPU threads hold a full batch at once: they wait for ClickHouse while others compute."""


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
        observer: Observer = NO_OBSERVER,
        announce: Announce = announce_to_nobody,
    ) -> None:
        self._source, self._sink, self._limits, self._say = source, sink, limits, say
        self._observer, self._announce = observer, announce
        self._revoke_ms_max = revoke_ms_max
        self._until_caught_up = until_caught_up
        self._pace = Pace(inserts_per_second_max, INSERTS_PER_BATCH)
        self._pool = ThreadPoolExecutor(cpu_threads, thread_name_prefix="cpu")
        self._slots = asyncio.Semaphore(cpu_threads + SLOTS_BEYOND_THREADS)
        self._ports: Ports | None = None
        self._lanes: dict[int, tuple[Lane, asyncio.Task[None]]] = {}
        self._errors: list[AdledgerError] = []
        self._ended = asyncio.Event()
        self._stopped = False
        self._caught_up: set[int] = set()
        self.records = 0

    async def run(self) -> bool:
        """Work until stopped or caught up; returns whether it caught up. Raises what stopped a lane."""
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
        )
        try:
            await self._ended.wait()
        finally:
            await self._source.leave()
            await asyncio.get_running_loop().run_in_executor(None, self._pool.shutdown)
        if self._errors:
            raise self._errors[0]
        return not self._stopped

    def stop(self) -> None:
        """Finish the batches under way and end."""
        self._stopped = True
        self._ended.set()

    async def lanes_assigned(self, assignments: Collection[Assignment]) -> None:
        """Start a lane for each assignment."""
        assert self._ports is not None, "assignments come after join has returned"
        for assignment in assignments:
            await self.lanes_revoked([assignment.lane])
            until = await self._until(assignment.lane) if self._until_caught_up else None
            lane = Lane(self._ports, assignment, self._slots, until)
            self._lanes[assignment.lane] = (lane, asyncio.create_task(self._run_lane(lane)))

    async def lanes_revoked(self, lanes: Collection[int]) -> None:
        """End lanes: each finishes its batch within `revoke_ms_max`, or abandons it to its next owner."""
        ending = [self._lanes.pop(lane) for lane in lanes if lane in self._lanes]
        for lane, _ in ending:
            lane.stop()
        tasks = [task for _, task in ending]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._revoke_ms_max / 1000)
            for task in late:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for lane, _ in ending:
            self._observer.forget(lane.lane)

    async def _until(self, lane: int) -> Mapping[int, int]:
        return {topic: b.end for topic, b in (await self._source.bounds(lane)).items()}

    async def _run_lane(self, lane: Lane) -> None:
        try:
            await lane.run()
        except CommitFenced as error:
            self._say(f"lane {lane.lane}: given to another worker. {error.message}")
            return
        except CommitUnknown as error:
            self._say(f"lane {lane.lane}: {error.message}; leaving the group to join as a new member")
            asyncio.get_running_loop().create_task(self._source.rejoin())
            return
        except AdledgerError as error:
            self._say(f"lane {lane.lane} stands still. {error.message}")
            self._observer.phase(lane.lane, Phase.STOPPED, error.message)
            self._errors.append(error)
        except Exception as error:  # an impossible state never continues: the worker ends with it
            self._errors.append(
                AdledgerError(f"lane {lane.lane}: a bug: {error!r}", remedy="report it, with this message")
            )
            self._ended.set()
            raise
        finally:
            self.records += lane.records
        self._caught_up.add(lane.lane)
        if self._until_caught_up and self._ports and len(self._caught_up) == self._ports.topology.partitions:
            self._ended.set()

    def _run_cpu(self, function: Callable[[], T]) -> Awaitable[T]:
        return asyncio.get_running_loop().run_in_executor(self._pool, function)


async def run_until_signal(worker: Worker) -> bool:
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


class Pace:
    """Turns, each of `cost` units, at most `per_second` units a second; a second's worth may come at once."""

    def __init__(self, per_second: int, cost: int) -> None:
        self._seconds = cost / per_second
        self._free_at = 0.0

    async def turn(self) -> None:
        """Return when it is the caller's turn."""
        now = asyncio.get_running_loop().time()
        self._free_at = max(self._free_at, now - 1.0) + self._seconds
        if self._free_at > now:
            await asyncio.sleep(self._free_at - now)


class Meter:
    """Wall and CPU time of this process since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def seconds(self) -> tuple[float, float]:
        """Return wall and CPU seconds."""
        return time.monotonic() - self._wall, time.process_time() - self._cpu
