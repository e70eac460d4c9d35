"""A deployment under faults: its traffic, workers that are restarted when they die, and helpers that faults share."""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from adledger.loadtest.chaos.deployment import ChaosDeployment
from adledger.loadtest.chaos.traffic import ChaosTraffic
from adledger.loadtest.lab.clickhouse_frames import Insert
from adledger.loadtest.lab.processes import pause, resume
from adledger.loadtest.lab.proxied import ProxiedServers
from adledger.loadtest.lab.waiting import NotSeen, until
from adledger.loadtest.lab.worker_log import doubts_of
from adledger.loadtest.lab.workers import WorkerProcess

CAUGHT_UP_SECONDS_MAX = 60.0


@dataclass(slots=True)
class Play:
    """The argument of each fault. `outage_seconds` and `slow_seconds` are the durations of the faults with these names."""

    deployment: ChaosDeployment
    traffic: ChaosTraffic
    rng: random.Random
    outage_seconds: float
    slow_seconds: float
    died: list[str] = field(default_factory=list)
    """Workers that died without being killed, and how."""

    @property
    def servers(self) -> ProxiedServers:
        """Broker and ClickHouse."""
        return self.deployment.servers

    def working(self) -> list[WorkerProcess]:
        """Return the workers that own lanes."""
        return [worker for worker in self.deployment.workers if worker.lanes()]

    def pick(self) -> WorkerProcess:
        """Return a random worker that owns lanes; waits for one."""
        self.until(lambda: bool(self.working()), "a worker that owns lanes")
        return self.rng.choice(self.working())

    def everyone_works(self) -> bool:
        """Whether every worker owns lanes (if there are enough) and each lane has one owner.

        Before that the group is still rebalancing, and the next fault would be seen by workers that lose their lanes.
        """
        owned = [worker.lanes() for worker in self.deployment.workers]
        lanes = frozenset().union(*owned)
        busy = sum(bool(own) for own in owned)
        return sum(map(len, owned)) == len(lanes) > 0 and busy == min(len(owned), len(lanes))

    def until(self, what: Callable[[], bool], expected: str, seconds_max: float = 90.0) -> float:
        """Wait as `waiting.until` does, and restart workers that die meanwhile."""

        def checked_on() -> bool:
            self.check_on()
            return what()

        return until(checked_on, expected, seconds_max)

    def stop_in_mid_batch(self) -> tuple[WorkerProcess, list[tuple[int, int]]]:
        """Pause a worker (SIGSTOP) between a batch's first insert and its last; return it and those batches."""
        last = time.monotonic() + 60
        while time.monotonic() < last:
            self.check_on()
            for worker in self.working():
                if not self.deployment.tables.unfinished(worker.lanes()):
                    continue
                if pause(worker.pid) and (left := self.deployment.tables.unfinished(worker.lanes())):
                    return worker, left
                resume(worker.pid)
        raise NotSeen("no batch was found between its first insert and its last", remedy="more traffic")

    def in_doubt(self, insert: Insert) -> bool:
        """Whether a worker has reported that the batch of an insert is in doubt."""
        doubts = (doubt for worker in self.deployment.workers for doubt in doubts_of(worker.log.events_path))
        return any((doubt.lane, doubt.batch_no) == (insert.lane, insert.batch_no) for doubt in doubts)

    def caught_up(self, records: int, seconds_max: float = CAUGHT_UP_SECONDS_MAX) -> float:
        """Wait until `records` records are in the ledger, and return the seconds that took. Raises NotSeen.

        Then until every worker owns lanes, so that no rebalance of one fault is under way in the next.
        """
        tables = self.deployment.tables
        seconds = self.until(
            lambda: (tables.records() or 0) >= records, f"{records:,} records in the ledger", seconds_max
        )
        self.until(self.everyone_works, "lanes of every worker")
        return seconds

    def check_on(self) -> None:
        """Restart workers that died, and record their deaths. Raises AdledgerError: no traffic."""
        self.traffic.flows()
        for worker in self.deployment.workers:
            if worker.died:
                self.died.append(
                    f"{worker.name} ended with {worker.exit_code}: {worker.log.text()[-400:].strip()}"
                )
                worker.start()
