"""Negative controls: each fault once more, with what protects from it taken out. Something must then be wrong.

Each control has topics, a group and a database of its own, filled before it begins; it says what was wrong, found by
`adledger ledger check` or by a lane that does not go on.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from clickhouse_driver.errors import Error as DriverError

from loadtest.chaos.clock import ahead, drop_deadline
from loadtest.chaos.results import ControlDone
from loadtest.chaos.stage import Deployment, Servers
from loadtest.chaos.waiting import until
from loadtest.chaos.workers import ADLEDGER, Worker
from loadtest.faults.processes import pause, resume
from loadtest.faults.tcp_proxy import Action
from loadtest.generate import Generator
from loadtest.model import TrafficModel
from loadtest.truth import Truth, TruthBuilder
from pipeline.errors import AdledgerError
from pipeline.ledger.audit import Scope, audit
from pipeline.ledger.queries import Tables
from pipeline.log.kafka.writer import KafkaLogWriter
from sinks.connection import connect

MODEL = TrafficModel(
    seed=31, events=12_000, partitions=2, duration_hours=30, duplicate_share=0.2, publishers=50, users=2_000,
    campaigns=100,
)  # fmt: skip
LANES = frozenset(range(MODEL.partitions))
SLOW = {"batch_rows_max": 128, "inserts_per_second_max": 24}
"""Six batches a second: there is traffic for as long as a control takes."""
FAST = ("--until-caught-up", "--set", "batch_rows_max=65536", "--set", "inserts_per_second_max=1000")
BATCHES_BEFORE = 4
BATCHES_AFTER = 6
TRIES_MAX = 3
STANDS_SECONDS = 6.0
"""Of traffic, in which a lane that works ends a dozen batches."""
WORKER_SECONDS_MAX = 60.0
MISCOUNTS_SHOWN = 2


@dataclass(slots=True)
class Scene:
    """One control's deployment, filled; `truth` is of all that it was filled with."""

    deployment: Deployment
    truth: Truth

    def worker(self, without: str = "") -> Worker:
        """Start a worker, which lacks a protection where one is named."""
        program = (sys.executable, "-m", "loadtest.chaos.controls", without) if without else ADLEDGER
        worker = self.deployment.worker(f"{without or 'whole'}-{len(self.deployment.workers) + 1}", program)
        worker.start()
        return worker

    def at_work(self, worker: Worker) -> None:
        """Return when a worker has ended some batches."""
        until(lambda: bool(worker.lanes()), f"lanes of {worker.name}", WORKER_SECONDS_MAX)
        self.after_batches(BATCHES_BEFORE)

    def after_batches(self, more: int) -> None:
        """Return when so many more batches are done."""
        done = self.deployment.look.batches()
        until(
            lambda: self.deployment.look.batches() >= done + more, f"{more} more batches", WORKER_SECONDS_MAX
        )

    def stop_in_mid_batch(self, worker: Worker) -> tuple[int, int]:
        """Stop a worker between a batch's first insert and its last, and return that batch."""
        left: list[tuple[int, int]] = []

        def stopped() -> bool:
            nonlocal left
            if not self.deployment.look.unfinished(worker.lanes()):
                return False
            pause(worker.pid)
            left = self.deployment.look.unfinished(worker.lanes())
            if not left:
                resume(worker.pid)
            return bool(left)

        until(stopped, "a batch between its first insert and its last")
        return left[0]

    def miscounts(self) -> str:
        """Return what `ledger check` finds wrong; "" where that is nothing."""
        deployment = self.deployment
        client = connect(deployment.servers.direct)
        try:
            found = audit(client, Tables(deployment.settings.database), Scope(), recount=True).problems
        finally:
            client.disconnect()
        more = f" (of {len(found)})" if len(found) > MISCOUNTS_SHOWN else ""
        return "; ".join(map(str, found[:MISCOUNTS_SHOWN])) + more

    def standing(self) -> str:
        """Return which lanes end no batch while there is traffic."""
        look = self.deployment.look
        before = {lane: look.batches({lane}) for lane in LANES}
        time.sleep(STANDS_SECONDS)
        still = [lane for lane in sorted(LANES) if look.batches({lane}) == before[lane]]
        return f"lane {', '.join(map(str, still))} goes on no more" if still else ""


def _kill_worker(scene: Scene) -> str:
    first = scene.worker()
    scene.at_work(first)
    lane, batch_no = scene.stop_in_mid_batch(first)
    first.kill()
    scene.worker("looking-before-inserting-again")
    until(lambda: scene.deployment.look.ledger_rows(lane, batch_no) > 0, "the end of the batch in doubt")
    return scene.miscounts()


def _pause_worker(scene: Scene) -> str:
    workers = [scene.worker(), scene.worker()]
    until(lambda: all(w.lanes() for w in workers), "lanes of both workers", WORKER_SECONDS_MAX)
    look = scene.deployment.look
    drop_deadline(scene.deployment.servers, scene.deployment.settings.database)
    first, second = workers
    for _ in range(TRIES_MAX):
        until(lambda: bool(first.lanes()), "lanes of the first worker", WORKER_SECONDS_MAX)
        lane, batch_no = scene.stop_in_mid_batch(first)
        until(lambda: lane in second.lanes() and look.ledger_rows(lane, batch_no) > 0, "the lane's new owner")  # noqa: B023
        woke = len(first.said())
        resume(first.pid)
        until(lambda: "lanes given back" in first.said()[woke:], "the woken worker giving its lanes back")  # noqa: B023
        if look.ledger_rows(lane, batch_no) > 1:
            break
    return scene.miscounts()


def _kill_broker(scene: Scene) -> str:
    worker, broker = scene.worker("waiting-for-the-broker"), scene.deployment.servers.broker
    scene.at_work(worker)
    broker.kill()
    try:
        until(lambda: not worker.alive, "its end", WORKER_SECONDS_MAX)
    finally:
        broker.start()
    stands = scene.standing()
    return f"the worker ended with {worker.exit_code}; {stands}" if stands else ""


def _kill_clickhouse(scene: Scene) -> str:
    servers = scene.deployment.servers
    worker = scene.worker("heeding-answers")
    for _ in range(TRIES_MAX):
        scene.at_work(worker)
        _kill_in_mid_insert(servers)
        servers.start_clickhouse()
        scene.after_batches(BATCHES_BEFORE)
        if found := scene.miscounts():
            return found
    return ""


def _kill_in_mid_insert(servers: Servers) -> None:
    inserts, server = servers.proxies.inserts, servers.server

    def killed() -> bool:
        if not inserts.under_way():
            return False
        os.kill(server.pid, signal.SIGKILL)
        server.wait(10)
        return True

    until(killed, "an insert under way")


def _drop_insert_reply(scene: Scene) -> str:
    worker, inserts = scene.worker("looking-before-inserting-again"), scene.deployment.servers.proxies.inserts
    scene.at_work(worker)
    struck = len(inserts.struck)
    inserts.strike_next("events", Action.CUT)
    until(lambda: len(inserts.struck) > struck, "an insert whose answer is struck")
    scene.after_batches(BATCHES_AFTER)
    return scene.miscounts()


def _drop_commit_reply(scene: Scene) -> str:
    worker, commits = scene.worker("joining-anew"), scene.deployment.servers.proxies.commits
    scene.at_work(worker)
    struck = commits.struck
    commits.strike_next()
    until(lambda: commits.struck > struck, "a commit whose answer is struck")
    time.sleep(1.0)  # batches under way end
    return scene.standing()


def _join_leave(scene: Scene) -> str:
    first = scene.worker()
    until(lambda: (scene.deployment.look.records() or 0) > MODEL.events // 4, "a quarter of the traffic")
    first.stop()
    second = scene.deployment.worker(
        "rebuilding", (sys.executable, "-m", "loadtest.chaos.controls", "rebuilding")
    )
    second.start(*FAST)
    second.wait(WORKER_SECONDS_MAX)
    wrong = scene.deployment.wrong(scene.truth)
    return "; ".join(wrong[:MISCOUNTS_SHOWN])


def _full_disk(scene: Scene) -> str:
    worker = scene.worker("heeding-answers")
    scene.at_work(worker)
    scene.deployment.fill_disk()
    try:
        time.sleep(2.0)
    finally:
        scene.deployment.free_disk()
    scene.after_batches(BATCHES_BEFORE)
    return scene.miscounts()


def _clock_jump(scene: Scene) -> str:
    worker = scene.worker("heeding-answers")
    scene.at_work(worker)
    deployment = scene.deployment
    with ahead(deployment.servers, deployment.settings.database, 5, noticed_after_seconds=1.0):
        scene.after_batches(BATCHES_BEFORE)
    return scene.miscounts()


def _outage(scene: Scene) -> str:
    worker, servers = scene.worker("patience"), scene.deployment.servers
    scene.at_work(worker)
    os.kill(servers.server.pid, signal.SIGKILL)
    servers.server.wait(10)
    time.sleep(3.0)
    servers.start_clickhouse()
    return scene.standing()


CONTROLS: Mapping[str, tuple[str, Callable[[Scene], str]]] = {
    "kill-worker": ("looking before inserting again", _kill_worker),
    "pause-worker": ("the tables' deadline", _pause_worker),
    "kill-broker": ("waiting for the broker", _kill_broker),
    "kill-clickhouse": ("heeding the server's answers", _kill_clickhouse),
    "drop-insert-reply": ("looking before inserting again", _drop_insert_reply),
    "drop-commit-reply": ("joining as a new member", _drop_commit_reply),
    "join-leave": ("rebuilding the window", _join_leave),
    "full-disk": ("heeding the server's answers", _full_disk),
    "clock-jump": ("heeding the server's answers", _clock_jump),
    "outage": ("patience", _outage),
}
"""Fault -> which protection is taken out, and what then happens."""


def controls_of(faults: Collection[str]) -> Iterator[str]:
    """Yield the faults that have a control."""
    yield from (name for name in CONTROLS if name in faults)


def try_control(fault: str, given: Servers, folder: Path) -> ControlDone:
    """Run a control. `differs` says what was wrong."""
    began = time.monotonic()
    without, scene_of = CONTROLS[fault]
    differs = why_not = ""
    try:
        with _filled(given, folder / f"control-{fault}") as scene:
            differs = scene_of(scene)
            why_not = "" if differs else "all was right without it"
    except (AdledgerError, OSError, DriverError, subprocess.TimeoutExpired) as error:
        why_not = str(error)
    return ControlDone(fault, without, differs, round(time.monotonic() - began, 1), why_not)


@contextmanager
def _filled(given: Servers, folder: Path) -> Iterator[Scene]:
    deployment = Deployment.make(given, folder, partitions=MODEL.partitions, **SLOW)
    truth = TruthBuilder(MODEL)
    try:
        with KafkaLogWriter(deployment.direct, say=lambda _: None) as writer:
            for chunk in Generator(MODEL).chunks():
                for topic, partition, block in chunk.blocks:
                    writer.append(topic, partition, block)
                truth.add(chunk.rows)
        yield Scene(deployment, truth.truth())
    finally:
        deployment.end()
