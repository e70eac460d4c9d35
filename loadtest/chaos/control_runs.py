"""Negative controls: each fault again, without the protection against it. Something must then be wrong.

Controls have their own topics, group and database, filled before they start; those that remove the same protection share
them, one after the other. Each reports what was wrong: what `adledger ledger check` finds in batches since its start, or a
lane that makes no progress.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path

from clickhouse_driver.errors import Error as DriverError

from adledger.loadtest.chaos.clock import ahead, drop_deadline
from adledger.loadtest.chaos.deployment import differences_from, fill_disk, free_disk
from adledger.loadtest.chaos.pressure import SLOW_INSERT_SECONDS
from adledger.loadtest.chaos.results import ControlDone
from adledger.loadtest.chaos.scene import MISCOUNTS_SHOWN, WORKER_SECONDS_MAX, Scene, filled
from adledger.loadtest.lab.faults import down, paused
from adledger.loadtest.lab.processes import pause, resume
from adledger.loadtest.lab.proxied import ProxiedServers
from adledger.loadtest.lab.tcp_proxy import Action
from adledger.loadtest.lab.waiting import until
from adledger.pipeline.errors import AdledgerError

FAST = ("--until-caught-up", "--set", "batch_rows_max=65536", "--set", "inserts_per_second_max=1000")
EVENTS_PER_CONTROL = 20_000
LEAVES_AFTER_RECORDS = 3_000
BATCHES_AFTER = 6
AWAY_SECONDS = 2.0
ARRIVES_SECONDS_MAX = 15.0
PAUSED_SECONDS = 9.0
"""Longer than a worker waits for an insert's answer: its deadline and 5 s more."""


def _kill_worker(scene: Scene) -> str:
    first = scene.at_work()
    lane, batch_no = scene.stop_in_mid_batch(first)
    first.kill()
    scene.worker("lookup-before-retry")
    until(lambda: scene.deployment.tables.ledger_rows(lane, batch_no) > 0, "the end of the batch in doubt")
    return scene.miscounts()


def _drop_insert_reply(scene: Scene) -> str:
    scene.at_work("lookup-before-retry")
    inserts = scene.deployment.servers.proxies.inserts
    struck = len(inserts.struck)
    inserts.strike_next("events", Action.CUT)
    until(lambda: len(inserts.struck) > struck, "an insert whose answer is struck")
    scene.after_batches(BATCHES_AFTER)
    return scene.miscounts()


def _pause_worker(scene: Scene) -> str:
    workers = [scene.worker(), scene.worker()]
    until(lambda: all(w.lanes() for w in workers), "lanes of both workers", WORKER_SECONDS_MAX)
    look = scene.deployment.tables
    drop_deadline(scene.deployment.servers, scene.deployment.settings.database)
    proxies = scene.deployment.servers.proxies
    held = len(proxies.inserts.held)
    proxies.inserts.hold_next("ledger")  # so that it is certain to be paused with its last insert on the way
    try:
        until(lambda: len(proxies.inserts.held) > held, "an insert to hold back", WORKER_SECONDS_MAX)
        lane, batch_no = proxies.inserts.held[-1].lane, proxies.inserts.held[-1].batch_no
        first = next(worker for worker in workers if lane in worker.lanes())
        pause(first.pid)
        until(
            lambda: look.ledger_rows(lane, batch_no) > 0,
            "the batch's end by its new owner",
            WORKER_SECONDS_MAX,
        )
    finally:
        proxies.release_inserts()
        for worker in workers:
            resume(worker.pid)
    until(lambda: look.ledger_rows(lane, batch_no) > 1, "the held insert", ARRIVES_SECONDS_MAX)
    return scene.miscounts()


def _kill_broker(scene: Scene) -> str:
    worker, broker = scene.at_work("waiting-for-the-broker"), scene.deployment.servers.broker
    with down(broker):
        until(lambda: not worker.alive, "its end", WORKER_SECONDS_MAX)
    halted = scene.halted()
    return f"the worker ended with {worker.exit_code}; {halted}" if halted else ""


def _drop_commit_reply(scene: Scene) -> str:
    scene.at_work("rejoining")
    commits = scene.deployment.servers.proxies.commits
    struck = commits.struck
    commits.strike_next()
    until(lambda: commits.struck > struck, "a commit whose answer is struck")
    time.sleep(1.0)  # batches under way end
    return scene.halted()


def _join_leave(scene: Scene) -> str:
    first = scene.worker()
    until(lambda: (scene.deployment.tables.records() or 0) > LEAVES_AFTER_RECORDS, "a part of the traffic")
    first.stop()
    second = scene.deployment.worker(
        "rebuilding", (sys.executable, "-m", "adledger.loadtest.chaos.controls", "rebuilding")
    )
    second.start(*FAST)
    second.wait(WORKER_SECONDS_MAX)
    wrong = differences_from(scene.ground_truth, scene.deployment)
    return "; ".join(wrong[:MISCOUNTS_SHOWN])


def _kill_clickhouse(scene: Scene) -> str:
    scene.at_work("server-answers")
    servers = scene.deployment.servers
    servers.pause_clickhouse_in_mid_insert("events")
    with down(servers.server):
        time.sleep(AWAY_SECONDS)
    scene.after_batches(BATCHES_AFTER)
    return scene.miscounts()


def _full_disk(scene: Scene) -> str:
    scene.at_work("server-answers")
    fill_disk(scene.deployment)
    try:
        time.sleep(AWAY_SECONDS)
    finally:
        free_disk(scene.deployment)
    scene.after_batches(BATCHES_AFTER)
    return scene.miscounts()


def _clock_jump(scene: Scene) -> str:
    scene.at_work("server-answers")
    deployment = scene.deployment
    with ahead(deployment.servers, deployment.settings.database, 5, noticed_after_seconds=1.0):
        scene.after_batches(BATCHES_AFTER)
    return scene.miscounts()


def _pause_clickhouse(scene: Scene) -> str:
    scene.at_work("server-answers")
    servers = scene.deployment.servers
    servers.pause_clickhouse_in_mid_insert("events")
    with paused(servers.server.pid):
        time.sleep(PAUSED_SECONDS)
    scene.after_batches(BATCHES_AFTER)
    return scene.miscounts()


def _slow_clickhouse(scene: Scene) -> str:
    scene.at_work("server-answers")
    proxies = scene.deployment.servers.proxies
    refused = len(proxies.inserts.refused)
    proxies.clickhouse.slow_seconds, proxies.inserts.slow = SLOW_INSERT_SECONDS, True
    try:
        until(lambda: len(proxies.inserts.refused) > refused, "an insert that is refused as late", 30)
    finally:
        proxies.inserts.slow = False
    scene.after_batches(BATCHES_AFTER)
    return scene.miscounts()


def _outage(scene: Scene) -> str:
    scene.at_work("retrying")
    with down(scene.deployment.servers.server):
        time.sleep(AWAY_SECONDS)
    return scene.halted()


CONTROLS: Mapping[str, Mapping[str, Callable[[Scene], str]]] = {
    "the lookup before a retry": {"kill-worker": _kill_worker, "drop-insert-reply": _drop_insert_reply},
    "the tables' deadline": {"pause-worker": _pause_worker},
    "waiting for the broker": {"kill-broker": _kill_broker},
    "rejoining as a new member": {"drop-commit-reply": _drop_commit_reply},
    "rebuilding the window": {"join-leave": _join_leave},
    "the server's answers": {
        "kill-clickhouse": _kill_clickhouse, "full-disk": _full_disk, "clock-jump": _clock_jump,
        "pause-clickhouse": _pause_clickhouse, "slow-clickhouse": _slow_clickhouse,
    },
    "retrying": {"outage": _outage},
}  # fmt: skip
"""Protection -> fault -> the control: the fault against a worker without that protection. Controls of one protection share a scene and a worker."""


def try_controls(faults: Collection[str], given: ProxiedServers, folder: Path) -> Iterator[ControlDone]:
    """Run the controls of these faults and yield each. `differs` says what was wrong."""
    for without, acts in CONTROLS.items():
        asked = {fault: act for fault, act in acts.items() if fault in faults}
        if asked:
            yield from _on_one_scene(without, asked, given, folder / f"control-{next(iter(asked))}")


def _on_one_scene(
    without: str, acts: Mapping[str, Callable[[Scene], str]], given: ProxiedServers, folder: Path
) -> Iterator[ControlDone]:
    began = time.monotonic()
    with filled(given, folder, EVENTS_PER_CONTROL * len(acts)) as scene:
        for fault, act in acts.items():
            differs = why_not = ""
            try:
                differs = act(scene)
                why_not = "" if differs else "everything was right without it"
            except (AdledgerError, OSError, DriverError, subprocess.TimeoutExpired) as error:
                why_not = str(error)
            now = time.monotonic()
            yield ControlDone(fault, without, differs, round(now - began, 1), why_not)
            began = now
