"""What a control plays on: a deployment of its own, filled before it begins, whose workers may lack a protection."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from adledger.loadtest.chaos.deployment import ChaosDeployment, deploy
from adledger.loadtest.lab.processes import pause, resume
from adledger.loadtest.lab.proxied import ProxiedServers
from adledger.loadtest.lab.waiting import NotSeen, until
from adledger.loadtest.lab.workers import ADLEDGER, WorkerProcess
from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.ground_truth import Truth, TruthBuilder
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.ledger.audit import Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.log.kafka.writer import KafkaLogWriter
from adledger.sinks.connection import connect

MODEL = TrafficModel(
    seed=31, events=20_000, partitions=2, duration_hours=30, duplicate_share=0.2, publishers=50, users=2_000,
    campaigns=100,
)  # fmt: skip
LANES = frozenset(range(MODEL.partitions))
SLOW = {"batch_rows_max": 128, "inserts_per_second_max": 24}
"""Six batches a second, 768 records: there is traffic for as long as a control takes."""
BATCHES_BEFORE = 4
STANDS_SECONDS = 6.0
"""Of traffic, in which a lane that works ends a dozen batches."""
WORKER_SECONDS_MAX = 40.0
MISCOUNTS_SHOWN = 2


@dataclass(slots=True)
class Scene:
    """A deployment, filled; `truth` is of all that it was filled with. Several controls may play on it in turn."""

    deployment: ChaosDeployment
    truth: Truth
    before: dict[int, int] = field(default_factory=dict)
    """Lane -> its last batch before the fault: what is wrong up to it is another control's."""

    def worker(self, without: str = "") -> WorkerProcess:
        """Start a worker, which lacks a protection where one is named."""
        program = (sys.executable, "-m", "adledger.loadtest.chaos.controls", without) if without else ADLEDGER
        worker = self.deployment.worker(f"{without or 'whole'}-{len(self.deployment.workers) + 1}", program)
        worker.start()
        return worker

    def at_work(self, without: str = "") -> WorkerProcess:
        """Return a worker that works, and rightly so: it is alone and ends batches, of which none is wrong.

        The one that runs already, if there is one. Raises NotSeen.
        """
        running = [worker for worker in self.deployment.workers if worker.alive]
        worker = running[0] if running else self.worker(without)
        until(lambda: bool(worker.lanes()), f"lanes of {worker.name}", WORKER_SECONDS_MAX)
        self.before = self.deployment.tables.last_batches()
        self.after_batches(BATCHES_BEFORE)
        if wrong := self.miscounts():
            raise NotSeen(f"without a fault: {wrong}", remedy="the control shows nothing")
        return worker

    def after_batches(self, more: int) -> None:
        """Return when so many more batches are done."""
        done = self.deployment.tables.batches()
        until(
            lambda: self.deployment.tables.batches() >= done + more,
            f"{more} more batches",
            WORKER_SECONDS_MAX,
        )

    def stop_in_mid_batch(self, worker: WorkerProcess) -> tuple[int, int]:
        """Stop a worker between a batch's first insert and its last, and return that batch."""
        left: list[tuple[int, int]] = []

        def stopped() -> bool:
            nonlocal left
            if not self.deployment.tables.unfinished(worker.lanes()):
                return False
            pause(worker.pid)
            left = self.deployment.tables.unfinished(worker.lanes())
            if not left:
                resume(worker.pid)
            return bool(left)

        until(stopped, "a batch between its first insert and its last")
        return left[0]

    def miscounts(self) -> str:
        """Return what `ledger check` finds wrong in batches after `before`; "" where that is nothing."""
        deployment = self.deployment
        client = connect(deployment.servers.server.address)
        try:
            problems = audit(client, TableNames(deployment.settings.database), Scope(), recount=True).problems
        finally:
            client.disconnect()
        found = [problem for problem in problems if problem.batch_no > self.before.get(problem.lane, 0)]
        more = f" (of {len(found)})" if len(found) > MISCOUNTS_SHOWN else ""
        return "; ".join(map(str, found[:MISCOUNTS_SHOWN])) + more

    def standing(self) -> str:
        """Return which lanes end no batch while there is traffic."""
        look = self.deployment.tables
        before = {lane: look.batches({lane}) for lane in LANES}
        time.sleep(STANDS_SECONDS)
        still = [lane for lane in sorted(LANES) if look.batches({lane}) == before[lane]]
        return f"lane {', '.join(map(str, still))} goes on no more" if still else ""


@contextmanager
def filled(given: ProxiedServers, folder: Path, events: int) -> Iterator[Scene]:
    """Give a deployment with traffic of known truth in its topics; it ends with the block."""
    deployment = deploy(given, folder, partitions=MODEL.partitions, **SLOW)
    model = replace(MODEL, events=events)
    truth = TruthBuilder(model)
    try:
        with KafkaLogWriter(deployment.direct, say=lambda _: None) as writer:
            for chunk in Generator(model).chunks():
                for topic, partition, block in chunk.blocks:
                    writer.append(topic, partition, block)
                truth.add(chunk.rows)
        yield Scene(deployment, truth.truth())
    finally:
        deployment.end(at_once=True)
