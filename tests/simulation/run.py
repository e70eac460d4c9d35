"""One seed: draw a scenario, run it, let the faults cease, and look whether everything is as it must be."""

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adledger.pipeline.lanes.ports import IdleClock
from tests.simulation import truth
from tests.simulation.clickhouse import Server, SimSink
from tests.simulation.kafka import TOPICS, Broker, SimSource
from tests.simulation.room import FAULT_SECONDS, PATIENCE_SECONDS, Process, Room
from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a seed: `problems` is empty where all was well."""

    seed: int
    problems: tuple[str, ...]
    faults: Counter[str]
    batches: int
    records: int
    virtual_seconds: float
    steps: int
    trace: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Parts:
    """What a run is made of; mutations replace some."""

    sink: Callable[..., SimSink] = SimSink
    source: Callable[..., SimSource] = SimSource
    server: dict[str, Any] = field(default_factory=dict)
    broker: dict[str, Any] = field(default_factory=dict)


DAY_ENDS = 15.0
"""When log time goes into the next day."""

REAL = Parts()


def run(seed: int, *, trace: bool = False, parts: Parts = REAL) -> Outcome:
    """Run one seed. Deterministic: the same seed gives the same trace."""
    collects = gc.isenabled()
    gc.disable()  # what it would end, and when, is not the seed's
    gc.freeze()  # what is there already need not be looked through after each run
    try:
        return _run(World(seed, [] if trace else None), parts)
    finally:
        gc.collect()  # the world is made after freezing, and no name of it is left here: else it would stay for ever
        gc.unfreeze()
        if collects:
            gc.enable()


def _run(world: World, parts: Parts) -> Outcome:
    try:
        room = _scenario(world, parts)
        world.loop.run()
        found = _problems(world, room)
        return Outcome(
            world.seed, tuple(found), world.faults, sum(p.table == "ledger" for p in room.server.parts),
            sum(len(log.history) for log in room.broker.logs.values()), world.now, world.loop.steps,
            tuple(world.trace or ()),
        )  # fmt: skip
    finally:
        world.loop.dispose()


def _problems(world: World, room: Room) -> list[str]:
    found = [
        *room.failures,
        *(f"crash of an invariant: {f}" for f in world.loop.failures),
        *room.broker.cut_problems[:3],
    ]
    if room.behind():
        ends = {lane: room.positions().get(lane, {}) for lane in room.behind()}
        found.append(
            f"stuck: lanes {ends} are not at the log's end, {PATIENCE_SECONDS:.0f} s after the last fault"
        )
    found.extend(truth.problems(room.broker, room.server, room.stopped))
    return found


def _scenario(world: World, parts: Parts) -> Room:
    rng = world.rng
    broker = Broker(
        world,
        lanes=rng.choice((1, 2, 2, 3)),
        clock_skew_ms=(0, rng.choice((0, 0, -2_000, 3_000))),
        **parts.broker,
    )
    server = Server(
        world, replicated=rng.random() < 0.3, skew=rng.uniform(-5, 5), drift=rng.choice((0.0, 0.0, -0.02, 0.02)),
        **parts.server,
    )  # fmt: skip
    if server.drift:
        world.fault("clock drift", "clickhouse", f"{server.drift:+.0%}")
    room = Room(world, broker, server, rng.random() < 0.4, parts.sink, parts.source)
    room.idle_clock = IdleClock(every_seconds=5, skew_seconds=8) if rng.random() < 0.4 else None
    world.on_crash = room.crashed
    world.loop.worked = room.worked
    for number in range(rng.choice((1, 2, 2, 3))):
        process = Process(f"w{number}", f"static{number}" if rng.random() < 0.3 else None)
        room.processes.append(process)
        world.loop.on_network(rng.random() * 2.0, room.start, process)
    _plan_traffic(room)
    _plan_faults(room)
    if rng.random() < 0.15:
        _plan_damage(room)
    world.loop.on_network(FAULT_SECONDS, _cease, room)
    return room


def _plan_traffic(room: Room) -> None:
    """Each partition gets a few bursts; a topic may idle for a long while."""
    rng = room.world.rng
    for lane in range(room.broker.lanes):
        for topic in range(len(TOPICS)):
            begins, ends = 0.0, FAULT_SECONDS - 4.0
            if rng.random() < 0.2:
                room.world.fault("topic idle", "producer", f"{TOPICS[topic]}-{lane}")
                begins, ends = rng.choice(((0.0, 6.0), (25.0, ends), (0.0, 0.0)))
            if begins < DAY_ENDS < ends:
                room.world.loop.on_network(DAY_ENDS + rng.uniform(-0.3, 0.1), room.produce, topic, lane)
            for _ in range(rng.randrange(4, 12)):
                at = rng.uniform(begins, ends)
                if ends > begins:
                    room.world.loop.on_network(at, room.produce, topic, lane)


def _plan_faults(room: Room) -> None:
    """What comes from outside: crashes, pauses, servers killed, clocks set, members coming and going."""
    rng, world = room.world.rng, room.world

    def at_some_time(p: float, times: int, what: Callable[[], None]) -> None:
        for _ in range(times):
            if rng.random() < p:
                world.loop.on_network(rng.uniform(2.0, FAULT_SECONDS - 1.0), what)

    level = rng.choice((0.0, 0.2, 0.5))
    at_some_time(level, 3, lambda: _on_a_worker(room, lambda node: world.crash(node, "kill -9")))
    at_some_time(level, 2, lambda: _on_a_worker(room, lambda node: world.pause(node, "SIGSTOP")))
    at_some_time(level, 2, lambda: _joined(room))
    at_some_time(level, 2, lambda: _left(room))
    at_some_time(level, 2, lambda: _rebalance(room))
    at_some_time(level / 2, 2, lambda: room.server.up and room.server.kill())
    at_some_time(level / 2, 1, lambda: room.server.jump(rng.uniform(0.5, 8.0)))


def _on_a_worker(room: Room, what: Callable[[Any], None]) -> None:
    nodes = [p.node for p in room.processes if p.node and not p.node.dead and not p.node.paused]
    if nodes:
        what(room.world.rng.choice(nodes))


def _joined(room: Room) -> None:
    process = Process(f"w{len(room.processes)}", None)
    room.processes.append(process)
    room.world.fault("joined", process.name)
    room.start(process)


def _left(room: Room) -> None:
    """A worker is told to stop (SIGTERM); it comes back later."""
    able = [p for p in room.processes if p.node and not p.node.dead and not p.node.paused and p.worker]
    if able:
        process = room.world.rng.choice(able)
        assert process.worker is not None
        assert process.node is not None
        room.world.fault("left", process.node.name)
        room.world.loop.on_node(process.node, process.worker.stop)


def _rebalance(room: Room) -> None:
    room.broker.rebalance()


def _plan_damage(room: Room) -> None:
    """The log or the group loses something: lanes may stop and say so, and must never jump."""
    rng, world = room.world.rng, room.world
    kind = rng.choice(
        ("retention", "truncated", "overwritten", "overwritten", "topic recreated", "commits expired")
    )
    topic, lane = rng.randrange(len(TOPICS)), rng.randrange(room.broker.lanes)
    at = rng.uniform(5.0, FAULT_SECONDS - 8.0)

    def begin() -> None:
        room.damaged = True
        log = room.broker.log(topic, lane)
        if kind == "commits expired":
            _expire_commits(room)
            return
        if kind == "overwritten":
            _overwrite(room)
            return
        world.fault(kind, "kafka", f"{TOPICS[topic]}-{lane}")
        if kind == "retention":
            log.first = rng.randrange(log.first, log.end + 1)
            log.batches = [b for b in log.batches if b[1] > log.first]
        elif kind == "truncated":
            starts = [b[0] for b in log.batches]
            if starts:
                log.end = rng.choice(starts)
                log.batches = [b for b in log.batches if b[1] <= log.end]
            log.frozen = True
        else:
            room.broker.ids[topic] += "x"
            for key in [k for k in room.broker.commits if k[0] == topic]:
                del room.broker.commits[key]

    world.loop.on_network(at, begin)


def _overwrite(room: Room) -> None:
    """A leader without the last records of one partition takes over, and gets more than it lacks at once."""
    ends = room.positions()
    places = [
        (topic, lane, begins)
        for lane, of_lane in sorted(ends.items())
        for topic, end in sorted(of_lane.items())
        for begins in [b[0] for b in room.broker.log(topic, lane).batches if b[0] < end][-3:]
    ]
    if not places:
        return
    topic, lane, begins = room.world.rng.choice(places)
    room.world.fault(
        "overwritten", "kafka", f"{TOPICS[topic]}-{lane} from {begins} on, the ledger has {ends[lane][topic]}"
    )
    log = room.broker.log(topic, lane)
    log.past_batches = max(
        p.stamp.batch_no for p in room.server.parts if (p.table, p.stamp.lane) == ("ledger", lane)
    )
    log.cut(begins)
    while log.end <= max(log.lost, default=0):
        room.produce(topic, lane)


def _expire_commits(room: Room) -> None:
    """The group was empty for longer than its offsets are kept: days, so nothing of before is on its way any more."""
    world = room.world
    room.closed = True
    for process in room.processes:
        process.restarting = False
        if process.node and not process.node.dead:
            world.crash(process.node, "an outage of all workers")

    def begin_again() -> None:
        world.fault("commits expired", "kafka")
        room.broker.commits.clear()
        room.broker.members.clear()
        room.closed = False
        for process in room.processes:
            room.start(process)

    world.loop.on_network(30.0, begin_again)


def _cease(room: Room) -> None:
    world = room.world
    world.cease()
    world.say("faults", "cease")
    deadline = world.now + PATIENCE_SECONDS

    def look() -> None:
        if room.failures or world.loop.failures or not (room.closed or room.behind()) or world.now > deadline:
            room.closed = True
            world.loop.stop()
        else:
            world.loop.on_network(1.0, look)

    world.loop.on_network(1.0, look)
