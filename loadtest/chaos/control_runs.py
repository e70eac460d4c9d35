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
from pathlib import Path

from clickhouse_driver.errors import Error as DriverError

from loadtest.chaos.clock import ahead, drop_deadline
from loadtest.chaos.pressure import SLOW_INSERT_SECONDS
from loadtest.chaos.results import ControlDone
from loadtest.chaos.scene import BATCHES_BEFORE, MISCOUNTS_SHOWN, MODEL, WORKER_SECONDS_MAX, Scene, filled
from loadtest.chaos.stage import Servers
from loadtest.chaos.waiting import until
from loadtest.faults.processes import pause, resume
from loadtest.faults.tcp_proxy import Action
from pipeline.errors import AdledgerError

FAST = ("--until-caught-up", "--set", "batch_rows_max=65536", "--set", "inserts_per_second_max=1000")
BATCHES_AFTER = 6
TRIES_MAX = 3
PAUSED_SECONDS = 9.0
"""Longer than a worker waits for an insert's answer: its deadline and 5 s more."""


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


def _pause_clickhouse(scene: Scene) -> str:
    worker, server = scene.worker("heeding-answers"), scene.deployment.servers.server
    scene.at_work(worker)
    pause(server.pid)
    try:
        time.sleep(PAUSED_SECONDS)
    finally:
        resume(server.pid)
    scene.after_batches(BATCHES_BEFORE)
    return scene.miscounts()


def _slow_clickhouse(scene: Scene) -> str:
    worker, proxies = scene.worker("heeding-answers"), scene.deployment.servers.proxies
    scene.at_work(worker)
    refused = len(proxies.inserts.refused)
    proxies.clickhouse.slow_seconds, proxies.inserts.slow = SLOW_INSERT_SECONDS, True
    try:
        until(lambda: len(proxies.inserts.refused) > refused, "an insert that is refused as late", 30)
    finally:
        proxies.inserts.slow = False
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
    "pause-clickhouse": ("heeding the server's answers", _pause_clickhouse),
    "slow-clickhouse": ("heeding the server's answers", _slow_clickhouse),
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
        with filled(given, folder / f"control-{fault}") as scene:
            differs = scene_of(scene)
            why_not = "" if differs else "all was right without it"
    except (AdledgerError, OSError, DriverError, subprocess.TimeoutExpired) as error:
        why_not = str(error)
    return ControlDone(fault, without, differs, round(time.monotonic() - began, 1), why_not)
