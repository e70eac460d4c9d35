"""Backpressure: ClickHouse is away for a long time, or slow, while records keep coming at full rate."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from adledger.loadtest.chaos.play import Play
from adledger.loadtest.lab.clickhouse_frames import Insert
from adledger.loadtest.lab.faults import down
from adledger.loadtest.lab.waiting import Broken, until
from adledger.loadtest.lab.workers import WorkerProcess
from adledger.sinks.outcomes import VIOLATED_CONSTRAINT

MEMORY_GROWTH_BYTES_MAX = 128 * 1024 * 1024
"""A worker holds one batch per lane and one fetch per topic; the rest is what allocators keep."""
PARTS_MAX = 1_000
BATCHES_BEFORE = 30
POLL_SECONDS = 0.5
SLOW_INSERT_SECONDS = 0.9
"""Added to each of a batch's three or four inserts, one after the other, so that the last ones miss the deadline."""
NOTICED_SECONDS_MAX = 60.0
READY_AGAIN_SECONDS_MAX = 90.0


@dataclass(slots=True)
class _Watch:
    """What workers do while they wait: memory, pages, bytes fetched in the second half, lanes given back."""

    workers: Sequence[WorkerProcess]
    memory_before: int = 0
    memory_peak: int = 0
    unready: bool = True
    fetched_bytes: float = 0.0
    moves: int = 0

    def __post_init__(self) -> None:
        self.memory_before = self.memory_peak = self._memory()
        self.moves = -self._given_back()

    def wait(self, last: float) -> None:
        """Watch until `last` (monotonic seconds)."""
        half = (time.monotonic() + last) / 2
        fetched: float | None = None
        while time.monotonic() < last:
            self.memory_peak = max(self.memory_peak, self._memory())
            self.unready &= all(w.ready() is False for w in self.workers)
            if fetched is None and time.monotonic() > half:
                fetched = self._fetched()
            time.sleep(POLL_SECONDS)
        self.fetched_bytes = self._fetched() - (fetched or 0.0)
        self.moves += self._given_back()

    def held(self) -> None:
        """Raise Broken where memory grew too much or lanes changed hands."""
        growth = self.memory_peak - self.memory_before
        _require(self.moves == 0, f"lanes were given back {self.moves} times: the group was not kept")
        _require(growth <= MEMORY_GROWTH_BYTES_MAX, f"memory grew by {growth:,} bytes")

    def memory(self) -> str:
        """Return how memory grew, in words."""
        growth = self.memory_peak - self.memory_before
        return f"memory grew by {growth / 2**20:.1f} MB to {self.memory_peak / 2**20:.0f} MB"

    def _memory(self) -> int:
        return max(w.memory_bytes() for w in self.workers)

    def _given_back(self) -> int:
        return sum(w.log.count("lanes_revoked") for w in self.workers)

    def _fetched(self) -> float:
        return sum(w.metric("adledger_fetch_bytes_total") for w in self.workers)


def outage(play: Play) -> str:
    """Kill ClickHouse (-9), and start it again after `outage_seconds`.

    Memory stays under its limit, nothing is fetched, the group keeps its members, /readyz answers 503; afterwards the
    backlog is caught up, within the limit of inserts a second, and with few parts.
    """
    servers, deployment = play.servers, play.deployment
    workers = deployment.workers
    _warm(play)
    watch, sent = _Watch(workers), play.traffic.records
    last = time.monotonic() + play.outage_seconds
    with down(servers.server):
        noticed = until(
            lambda: all(w.ready() is False for w in workers), "503 of every worker", NOTICED_SECONDS_MAX
        )
        watch.wait(last)
        backlog = play.traffic.records - sent
    inserts, began = _inserts(workers), time.monotonic()
    took = play.caught_up(play.traffic.records, play.outage_seconds + READY_AGAIN_SECONDS_MAX)
    rate = (_inserts(workers) - inserts) / (time.monotonic() - began)
    until(lambda: all(w.ready() for w in workers), "200 of every worker", READY_AGAIN_SECONDS_MAX)
    parts = deployment.tables.parts()
    rate_max = deployment.settings.inserts_per_second_max * len(workers)
    _require(watch.unready, "a worker did not answer 503 until the end")
    _require(
        watch.fetched_bytes == 0,
        f"{watch.fetched_bytes:,.0f} bytes were fetched while they could not be written",
    )
    watch.held()
    _require(rate <= rate_max, f"{rate:.0f} inserts a second, at most {rate_max} are allowed")
    _require(parts is not None and parts <= PARTS_MAX, f"{parts} parts")
    return (
        f"away for {play.outage_seconds:.0f} s: every worker answered 503 after {noticed:.1f} s, fetched nothing more and kept "
        f"its lanes; {watch.memory()}; {backlog:,} records waited, "
        f"caught up after {took:.1f} s with {rate:.0f} inserts a second; {parts} parts"
    )


def slow_clickhouse(play: Play) -> str:
    """Make every insert slow for `slow_seconds`, so that batches miss their deadline and end in doubt.

    Lanes keep making progress, memory stays under its limit, the group keeps its members; afterwards all is caught up.
    """
    proxies, tables = play.servers.proxies, play.deployment.tables
    inserts, refused = proxies.inserts, len(proxies.inserts.refused)
    _warm(play)
    watch, done = _Watch(play.deployment.workers), tables.batches()

    def late() -> set[Insert]:
        return {of.insert for of in inserts.refused[refused:] if of.code == VIOLATED_CONSTRAINT}

    proxies.clickhouse.slow_seconds, inserts.slow = SLOW_INSERT_SECONDS, True
    try:
        watch.wait(time.monotonic() + play.slow_seconds)
        play.until(lambda: any(map(play.in_doubt, late())), "a worker in doubt, its insert refused as late")
        play.until(lambda: tables.batches() > done, "a batch that is slow, and is ended")
    finally:
        inserts.slow = False
    took = play.caught_up(play.traffic.records, play.slow_seconds + READY_AGAIN_SECONDS_MAX)
    watch.held()
    return (
        f"each insert took {SLOW_INSERT_SECONDS} s more for {play.slow_seconds:.0f} s: {len(late())} were refused as late, their "
        f"workers in doubt; {tables.batches() - done} batches were ended meanwhile, every worker kept its lanes; {watch.memory()}; "
        f"caught up after {took:.1f} s"
    )


def _warm(play: Play) -> None:
    """Wait until every worker owns lanes and has finished BATCHES_BEFORE batches, so that its buffers are allocated."""

    def warm(worker: WorkerProcess) -> bool:
        return bool(
            worker.lanes() and worker.ready() and worker.metric("adledger_batches_total") >= BATCHES_BEFORE
        )

    play.until(lambda: all(map(warm, play.deployment.workers)), "every worker at work")


def _inserts(workers: Sequence[WorkerProcess]) -> float:
    return sum(w.metric("adledger_inserts_total") for w in workers)


def _require(holds: bool, what: str) -> None:  # noqa: FBT001 - the observation
    if not holds:
        raise Broken(f"backpressure: {what}")
