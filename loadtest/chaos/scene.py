"""The deployment of a control: filled before it starts, with workers that may lack a protection."""

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
from adledger.loadtest.traffic.ground_truth import GroundTruth, GroundTruthBuilder
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
"""Six batches a second, 768 records: the traffic lasts as long as a control."""
BATCHES_BEFORE = 4
IN_FLIGHT_SECONDS = 1.0
"""An insert that was sent before its worker was paused has been stored or refused after this."""

HALTED_SECONDS = 6.0
"""Seconds of traffic in which a working lane finishes a dozen batches."""
WORKER_SECONDS_MAX = 40.0
MISCOUNTS_SHOWN = 2


@dataclass(slots=True)
class Scene:
    """A filled deployment and the ground truth of its records. Several controls may use it, one after the other."""

    deployment: ChaosDeployment
    ground_truth: GroundTruth
    before: dict[int, int] = field(default_factory=dict)
    """Lane -> its last batch before the fault: errors up to it are another control's."""

    def worker(self, without: str = "") -> WorkerProcess:
        """Start a worker; `without` names a protection that it lacks."""
        program = (sys.executable, "-m", "adledger.loadtest.chaos.controls", without) if without else ADLEDGER
        worker = self.deployment.worker(f"{without or 'whole'}-{len(self.deployment.workers) + 1}", program)
        worker.start()
        return worker

    def at_work(self, without: str = "") -> WorkerProcess:
        """Return a worker that runs alone and finishes correct batches: the one that runs already, or a new one.

        Raises NotSeen.
        """
        running = [worker for worker in self.deployment.workers if worker.alive]
        worker = running[0] if running else self.worker(without)
        until(lambda: bool(worker.lanes()), f"lanes of {worker.name}", WORKER_SECONDS_MAX)
        self.before = self.deployment.tables.last_batches()
        self.after_batches(BATCHES_BEFORE)
        if wrong := self.miscounts():
            raise NotSeen(f"without a fault: {wrong}", remedy="the control proves nothing")
        return worker

    def after_batches(self, more: int) -> None:
        """Wait until `more` more batches are done."""
        done = self.deployment.tables.batches()
        until(
            lambda: self.deployment.tables.batches() >= done + more,
            f"{more} more batches",
            WORKER_SECONDS_MAX,
        )

    def stop_in_mid_batch(self, worker: WorkerProcess) -> tuple[int, int]:
        """Pause a worker between a batch's first insert and its last, and return that batch."""
        left: list[tuple[int, int]] = []

        def stopped() -> bool:
            nonlocal left
            if not self.deployment.tables.unfinished(worker.lanes()):
                return False
            pause(worker.pid)
            time.sleep(IN_FLIGHT_SECONDS)
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

    def halted(self) -> str:
        """Return which lanes finish no batch while there is traffic."""
        tables = self.deployment.tables
        before = {lane: tables.batches({lane}) for lane in LANES}
        time.sleep(HALTED_SECONDS)
        still = [lane for lane in sorted(LANES) if tables.batches({lane}) == before[lane]]
        return f"lane {', '.join(map(str, still))} makes no progress" if still else ""


@contextmanager
def filled(given: ProxiedServers, folder: Path, events: int) -> Iterator[Scene]:
    """Yield a deployment whose topics hold traffic with a known ground truth; it ends with the block."""
    deployment = deploy(given, folder, partitions=MODEL.partitions, **SLOW)
    model = replace(MODEL, events=events)
    ground_truth = GroundTruthBuilder(model)
    try:
        with KafkaLogWriter(deployment.direct, say=lambda _: None) as writer:
            for chunk in Generator(model).chunks():
                for topic, partition, block in chunk.blocks:
                    writer.append(topic, partition, block)
                ground_truth.add(chunk.rows)
        yield Scene(deployment, ground_truth.build())
    finally:
        deployment.end(at_once=True)
