"""The faults. Each one disturbs something, observes that this took effect, and undoes it.

Each returns its observations. An expected effect that is not observed raises `NotSeen`: the run does not count.
"""

import time
from collections.abc import Callable, Iterable, Mapping

import psutil

from adledger.loadtest.chaos.clock import ahead
from adledger.loadtest.chaos.deployment import fill_disk, free_disk
from adledger.loadtest.chaos.intents import committed_batches
from adledger.loadtest.chaos.plan import KILLS_TOGETHER
from adledger.loadtest.chaos.play import Play
from adledger.loadtest.chaos.pressure import outage, slow_clickhouse
from adledger.loadtest.lab.clickhouse_frames import Insert, Refusal
from adledger.loadtest.lab.faults import down, paused
from adledger.loadtest.lab.processes import gone, seen
from adledger.loadtest.lab.tcp_proxy import Action
from adledger.loadtest.lab.waiting import Broken, NotSeen, until
from adledger.loadtest.lab.workers import WorkerProcess
from adledger.sinks.outcomes import VIOLATED_CONSTRAINT

KILL_GAP_SECONDS_MAX = 1.5
KILL_MOMENTS = ("mid-batch",) * 2 + ("lanes",) * 3 + ("any",) * 3
assert len(KILL_MOMENTS) == KILLS_TOGETHER
BROKER_AWAY_SECONDS = 2.0
ANSWER_SECONDS_MAX = 30.0
"""A worker waits for an insert's answer for its deadline and 5 s more."""
TAKEN_OVER_SECONDS_MAX = 60.0
TABLES = ("events", "rollup_minute", "ledger")
CLOCK_JUMP_SECONDS = 5
NOT_ENOUGH_SPACE = 243
"""ClickHouse's code of NOT_ENOUGH_SPACE."""
FULL_SECONDS = 2.0


def kill_worker(play: Play) -> str:
    """Kill workers (-9) at random moments: while they start, while they own lanes, and in mid-batch; each starts again at once."""
    with_lanes = in_mid_batch = 0
    for moment in play.rng.sample(KILL_MOMENTS, len(KILL_MOMENTS)):
        if moment == "mid-batch":
            worker, _ = play.stop_in_mid_batch()
        else:
            worker = play.pick() if moment == "lanes" else play.rng.choice(play.deployment.workers)
            time.sleep(play.rng.uniform(0.0, KILL_GAP_SECONDS_MAX))
        lanes = worker.lanes()
        worker.kill()
        if not gone(worker.pid):
            raise NotSeen(f"{worker.name} is alive after kill -9")
        with_lanes += bool(lanes)
        in_mid_batch += bool(play.deployment.tables.unfinished(lanes))
        worker.start()
    return (
        f"{KILLS_TOGETHER} processes gone, {with_lanes} of them with lanes, {in_mid_batch} with a batch between its first "
        "insert and its last"
    )


def pause_worker(play: Play) -> str:
    """Pause a worker in mid-batch for longer than its session, and resume it when another has finished the batch."""
    deployment = play.deployment
    worker, left = play.stop_in_mid_batch()
    lane, batch_no = left[0]
    others = [w for w in deployment.workers if w is not worker]
    with paused(worker.pid) as pause:
        taken = until(
            lambda: any(lane in w.lanes() for w in others), "its lane's new owner", TAKEN_OVER_SECONDS_MAX
        )
        until(
            lambda: deployment.tables.ledger_rows(lane, batch_no) > 0, "the end of the batch by its new owner"
        )
        group = deployment.settings.group
        before = committed_batches(deployment.servers.broker.servers, group)
    before_resume = worker.log.count("lanes_revoked")
    until(
        lambda: worker.log.count("lanes_revoked") > before_resume, "the resumed worker giving its lanes back"
    )
    after = committed_batches(deployment.servers.broker.servers, group)
    if any(after[lane] < batch for lane, batch in before.items()):
        raise Broken(f"an intent was overwritten by an older one: {before} became {after}")
    if (rows := deployment.tables.ledger_rows(lane, batch_no)) != 1:
        raise Broken(f"lane {lane}, batch {batch_no} has {rows} ledger rows after its first owner resumed")
    return (
        f"{worker.name} stopped in lane {lane}, batch {batch_no}; taken over after {taken:.1f} s, resumed: {pause.resumed}; "
        "one ledger row, and no intent went back"
    )


def kill_broker(play: Play) -> str:
    """Kill the broker (-9), and start it on its data after workers have failed to reach it."""
    broker, proxy = play.servers.broker, play.servers.proxies.kafka
    refused = proxy.refused
    with down(broker) as outage:
        until(lambda: proxy.refused > refused, "a worker that fails to reach the broker", 30)
        time.sleep(BROKER_AWAY_SECONDS)
        in_vain = proxy.refused - refused
    return _required(
        f"{outage}; workers failed to reach it {in_vain} times; started again on its data", outage.took_effect
    )


def kill_clickhouse(play: Play) -> str:
    """Kill ClickHouse (-9) while an insert runs on it: it has received the rows and not answered."""
    servers = play.servers
    server, running = servers.server, servers.pause_clickhouse_in_mid_insert()
    with down(server) as outage:
        pass
    return _required(f"{outage} while these ran: {_inserts(running)}", outage.took_effect)


def pause_clickhouse(play: Play) -> str:
    """Pause ClickHouse (SIGSTOP) in mid-insert for longer than workers wait for an answer; then resume it."""
    server, running = play.servers.server, play.servers.pause_clickhouse_in_mid_insert()
    with paused(server.pid) as pause:
        took = play.until(
            lambda: all(map(play.in_doubt, running)), "workers that no longer wait for an answer", ANSWER_SECONDS_MAX
        )  # fmt: skip
        stopped = seen(server.pid, psutil.STATUS_STOPPED)
    return _required(
        f"{pause} after {took:.1f} s while these ran: {_inserts(running)}; their workers are in doubt",
        stopped and pause.resumed,
    )


def drop_insert_reply(play: Play) -> str:
    """Drop the answer to an insert that the server has done."""
    inserts = play.servers.proxies.inserts
    struck = len(inserts.struck)
    inserts.strike_next(play.rng.choice(TABLES), Action.CUT)
    until(lambda: len(inserts.struck) > struck, "an insert whose answer is dropped")
    insert = inserts.struck[-1]
    play.until(lambda: play.in_doubt(insert), "its worker, in doubt")
    return f"the answer to {insert} never came; its worker is in doubt"


def drop_commit_reply(play: Play) -> str:
    """Drop the answer to a commit that the broker has done."""
    commits = play.servers.proxies.commits
    workers = play.deployment.workers
    rejoins = sum(w.log.count("rejoin_started") for w in workers)
    struck = commits.struck
    commits.strike_next()
    until(lambda: commits.struck > struck, "a commit whose answer is dropped")
    play.until(
        lambda: sum(w.log.count("rejoin_started") for w in workers) > rejoins,
        "a worker that joins as a new member",
    )
    return "the answer to a commit never came; its worker left the group and joined as a new member"


def join_leave(play: Play) -> str:
    """Let one more worker join, take lanes, and leave gracefully."""
    deployment = play.deployment
    more = deployment.worker("joiner")
    more.start()
    try:
        play.until(lambda: bool(more.lanes()), "lanes of the worker that joined")
        lanes, done = more.lanes(), deployment.tables.batches(more.lanes())
        until(lambda: deployment.tables.batches(lanes) > done, "a batch by the worker that joined")
    finally:
        in_order = more.stop()
        deployment.workers.remove(more)
    play.until(lambda: lanes <= frozenset().union(*deployment.owned().values()), "owners of its lanes")
    return _required(f"it took the lanes {_listed(lanes)}, and gave them back", in_order)


def _refused_for_space(worker: WorkerProcess) -> int:
    """Return how often ClickHouse refused a worker's insert for lack of space, since the worker's start."""
    refused = worker.log.events.named("insert_failed", "retry_scheduled")
    return sum(event.fields["code"] == NOT_ENOUGH_SPACE for event in refused)


def full_disk(play: Play) -> str:
    """Leave no free byte on the server's disk until a worker's insert is refused."""
    deployment = play.deployment
    before = sum(map(_refused_for_space, deployment.workers))
    fill_disk(deployment)
    try:
        took = play.until(
            lambda: sum(map(_refused_for_space, deployment.workers)) > before,
            "a worker whose insert is refused for lack of space", 60,
        )  # fmt: skip
        time.sleep(FULL_SECONDS)
    finally:
        free_disk(deployment)
    return f"{play.servers.disk.how}; a worker was refused after {took:.1f} s; the space was freed again"


def clock_jump(play: Play) -> str:
    """Move the server's clock ahead by more than the deadline while an insert is on its way; later move it back."""
    proxies, look = play.servers.proxies, play.deployment.tables
    inserts, held = proxies.inserts, len(proxies.inserts.held)
    inserts.hold_next("events")
    try:
        until(lambda: len(inserts.held) > held, "an insert to hold back", 30)
        insert = inserts.held[-1]
        with ahead(play.servers, play.deployment.settings.database, CLOCK_JUMP_SECONDS) as clock:
            proxies.release_inserts()
            until(lambda: Refusal(insert, VIOLATED_CONSTRAINT) in inserts.refused, "its refusal as late", 30)
            play.until(lambda: play.in_doubt(insert), "its worker, in doubt", 30)
            done = look.batches()
            play.until(lambda: look.batches() > done, "a batch under the clock that has jumped")
    finally:
        proxies.release_inserts()
    return (
        f"the clock went from {clock.before} to {clock.after}, and back; {insert} came late and was refused"
    )


FAULTS: Mapping[str, Callable[[Play], str]] = {
    "kill-worker": kill_worker, "pause-worker": pause_worker, "kill-broker": kill_broker, "kill-clickhouse": kill_clickhouse,
    "drop-insert-reply": drop_insert_reply, "drop-commit-reply": drop_commit_reply, "join-leave": join_leave,
    "full-disk": full_disk, "clock-jump": clock_jump, "pause-clickhouse": pause_clickhouse,
    "slow-clickhouse": slow_clickhouse, "outage": outage,
}  # fmt: skip


def _required(seen: str, holds: bool) -> str:  # noqa: FBT001 - the observation
    if not holds:
        raise NotSeen(f"no effect: {seen}")
    return seen


def _inserts(inserts: Iterable[Insert]) -> str:
    return ", ".join(sorted(map(str, inserts)))


def _listed(lanes: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(lanes)))
