"""A run's deployment while it is played on: traffic, workers that are started again, and what is common to faults."""

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
    """What a fault is given. `outage_seconds` and `slow_seconds` are how long the faults of these names last."""

    deployment: ChaosDeployment
    traffic: ChaosTraffic
    rng: random.Random
    outage_seconds: float
    slow_seconds: float
    died: list[str] = field(default_factory=list)
    """Workers that ended though nobody meant it, and how."""

    @property
    def servers(self) -> ProxiedServers:
        """Broker and ClickHouse."""
        return self.deployment.servers

    def working(self) -> list[WorkerProcess]:
        """Return the workers that hold lanes."""
        return [worker for worker in self.deployment.workers if worker.lanes()]

    def pick(self) -> WorkerProcess:
        """Return a worker that holds lanes, by chance; waits for one."""
        self.until(lambda: bool(self.working()), "a worker that holds lanes")
        return self.rng.choice(self.working())

    def until(self, what: Callable[[], bool], expected: str, seconds_max: float = 90.0) -> float:
        """Wait as `stage.until`, and start workers again that died by themselves meanwhile."""

        def looked_after() -> bool:
            self.look_after()
            return what()

        return until(looked_after, expected, seconds_max)

    def stop_in_mid_batch(self) -> tuple[WorkerProcess, list[tuple[int, int]]]:
        """Stop a worker (SIGSTOP) between a batch's first insert and its last; returns it and such batches."""
        last = time.monotonic() + 60
        while time.monotonic() < last:
            self.look_after()
            for worker in self.working():
                if not self.deployment.tables.unfinished(worker.lanes()):
                    continue
                if pause(worker.pid) and (left := self.deployment.tables.unfinished(worker.lanes())):
                    return worker, left
                resume(worker.pid)
        raise NotSeen("no batch was found between its first insert and its last", remedy="more traffic")

    def in_doubt(self, insert: Insert) -> bool:
        """Whether a worker has said that the batch of an insert is in doubt."""
        said = (doubt for worker in self.deployment.workers for doubt in doubts_of(worker.log.path))
        return any((doubt.lane, doubt.batch_no) == (insert.lane, insert.batch_no) for doubt in said)

    def caught_up(self, records: int, seconds_max: float = CAUGHT_UP_SECONDS_MAX) -> float:
        """Return the seconds until so many records are in the ledger. Raises NotSeen."""
        look = self.deployment.tables
        return self.until(
            lambda: (look.records() or 0) >= records, f"{records:,} records in the ledger", seconds_max
        )

    def look_after(self) -> None:
        """Start workers again that ended by themselves, and remember that they did. Raises AdledgerError: no traffic."""
        self.traffic.flows()
        for worker in self.deployment.workers:
            if worker.died:
                self.died.append(
                    f"{worker.name} ended with {worker.exit_code}: {worker.log.text()[-400:].strip()}"
                )
                worker.start()
