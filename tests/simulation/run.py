"""One seed: draw a scenario, run it, let the faults cease, and check every law."""

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adledger.pipeline.lanes.ports import IdleClock
from tests.simulation import truth
from tests.simulation.clickhouse import Server, SimSink
from tests.simulation.damage import plan_damage, plan_forced
from tests.simulation.kafka import TOPICS, Broker, SimSource
from tests.simulation.room import FAULT_SECONDS, PATIENCE_SECONDS, Process, Room
from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a seed: `problems` is empty where every law held."""

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
    """The parts of a run; mutations replace some."""

    sink: Callable[..., SimSink] = SimSink
    source: Callable[..., SimSource] = SimSource
    server: dict[str, Any] = field(default_factory=dict)
    broker: dict[str, Any] = field(default_factory=dict)


DAY_ENDS = 15.0
"""When log time goes into the next day."""

REAL = Parts()


def run(seed: int, *, trace: bool = False, parts: Parts = REAL, forced: bool = False) -> Outcome:
    """Run one seed. Deterministic: the same seed gives the same trace.

    `forced`: an unclean election overwrites what was read, at a moment when that is hard to notice.
    """
    collects = gc.isenabled()
    gc.disable()  # what it would end, and when, is not the seed's
    gc.freeze()  # what is there already need not be looked through after each run
    try:
        return _run(World(seed, [] if trace else None), parts, forced=forced)
    finally:
        gc.collect()  # the world is made after freezing, and no name of it is left here: else it would stay for ever
        gc.unfreeze()
        if collects:
            gc.enable()


def _run(world: World, parts: Parts, *, forced: bool) -> Outcome:
    try:
        room = _scenario(world, parts, forced=forced)
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


def _scenario(world: World, parts: Parts, *, forced: bool) -> Room:
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
    if forced:
        plan_forced(room)
    elif rng.random() < 0.15:
        plan_damage(room)
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
    """Plan outside faults: crashes, pauses, servers killed, clocks set, members coming and going."""
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
