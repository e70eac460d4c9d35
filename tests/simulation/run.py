"""One seed: draw a scenario, run it, let the faults cease, and check every law."""

import gc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from adledger.pipeline.lanes.ports import IdleWatermark
from tests.simulation import expected
from tests.simulation.clickhouse import Server, SimSink
from tests.simulation.damage import plan_damage, plan_forced
from tests.simulation.deployment import FAULT_SECONDS, PATIENCE_SECONDS, Deployment, Process
from tests.simulation.kafka import TOPICS, Broker, SimSource
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
"""When log time reaches the next day."""

REAL = Parts()


def run(seed: int, *, trace: bool = False, parts: Parts = REAL, forced: bool = False) -> Outcome:
    """Run one seed. Deterministic: the same seed gives the same trace.

    `forced`: an unclean election overwrites what was read, at a moment when that is hard to notice.
    """
    collects = gc.isenabled()
    gc.disable()  # when it would run does not follow from the seed
    gc.freeze()  # existing objects need not be scanned after each run
    try:
        return _run(World(seed, [] if trace else None), parts, forced=forced)
    finally:
        gc.collect()  # the world was made after freezing, and nothing here refers to it, so it is freed
        gc.unfreeze()
        if collects:
            gc.enable()


def _run(world: World, parts: Parts, *, forced: bool) -> Outcome:
    try:
        deployment = _scenario(world, parts, forced=forced)
        world.loop.run()
        found = _problems(world, deployment)
        return Outcome(
            world.seed, tuple(found), world.faults, sum(p.table == "ledger" for p in deployment.server.parts),
            sum(len(log.history) for log in deployment.broker.logs.values()), world.now, world.loop.steps,
            tuple(world.trace or ()),
        )  # fmt: skip
    finally:
        world.loop.dispose()


def _problems(world: World, deployment: Deployment) -> list[str]:
    found = [
        *deployment.failures,
        *(f"crash of an invariant: {f}" for f in world.loop.failures),
        *deployment.broker.cut_problems[:3],
    ]
    if deployment.behind():
        ends = {lane: deployment.positions().get(lane, {}) for lane in deployment.behind()}
        found.append(
            f"stuck: lanes {ends} are not at the log's end, {PATIENCE_SECONDS:.0f} s after the last fault"
        )
    found.extend(expected.problems(deployment.broker, deployment.server, deployment.stopped))
    return found


def _scenario(world: World, parts: Parts, *, forced: bool) -> Deployment:
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
    deployment = Deployment(world, broker, server, rng.random() < 0.4, parts.sink, parts.source)
    deployment.idle_watermark = IdleWatermark(every_seconds=5, skew_seconds=8) if rng.random() < 0.4 else None
    world.on_crash = deployment.crashed
    world.loop.worked = deployment.worked
    for number in range(rng.choice((1, 2, 2, 3))):
        process = Process(f"w{number}", f"static{number}" if rng.random() < 0.3 else None)
        deployment.processes.append(process)
        world.loop.on_network(rng.random() * 2.0, deployment.start, process)
    _plan_traffic(deployment)
    _plan_faults(deployment)
    if forced:
        plan_forced(deployment)
    elif rng.random() < 0.15:
        plan_damage(deployment)
    world.loop.on_network(FAULT_SECONDS, _cease, deployment)
    return deployment


def _plan_traffic(deployment: Deployment) -> None:
    """Each partition gets a few bursts; a topic may idle for a long while."""
    rng = deployment.world.rng
    for lane in range(deployment.broker.lanes):
        for topic in range(len(TOPICS)):
            begins, ends = 0.0, FAULT_SECONDS - 4.0
            if rng.random() < 0.2:
                deployment.world.fault("topic idle", "producer", f"{TOPICS[topic]}-{lane}")
                begins, ends = rng.choice(((0.0, 6.0), (25.0, ends), (0.0, 0.0)))
            if begins < DAY_ENDS < ends:
                deployment.world.loop.on_network(
                    DAY_ENDS + rng.uniform(-0.3, 0.1), deployment.produce, topic, lane
                )
            for _ in range(rng.randrange(4, 12)):
                at = rng.uniform(begins, ends)
                if ends > begins:
                    deployment.world.loop.on_network(at, deployment.produce, topic, lane)


def _plan_faults(deployment: Deployment) -> None:
    """Plan outside faults: crashes, pauses, servers killed, clocks set, members coming and going."""
    rng, world = deployment.world.rng, deployment.world

    def at_some_time(p: float, times: int, what: Callable[[], None]) -> None:
        for _ in range(times):
            if rng.random() < p:
                world.loop.on_network(rng.uniform(2.0, FAULT_SECONDS - 1.0), what)

    level = rng.choice((0.0, 0.2, 0.5))
    at_some_time(level, 3, lambda: _on_a_worker(deployment, lambda node: world.crash(node, "kill -9")))
    at_some_time(level, 2, lambda: _on_a_worker(deployment, lambda node: world.pause(node, "SIGSTOP")))
    at_some_time(level, 2, lambda: _joined(deployment))
    at_some_time(level, 2, lambda: _left(deployment))
    at_some_time(level, 2, lambda: _rebalance(deployment))
    at_some_time(level / 2, 2, lambda: deployment.server.up and deployment.server.kill())
    at_some_time(level / 2, 1, lambda: deployment.server.jump(rng.uniform(0.5, 8.0)))


def _on_a_worker(deployment: Deployment, what: Callable[[Any], None]) -> None:
    nodes = [p.node for p in deployment.processes if p.node and not p.node.dead and not p.node.paused]
    if nodes:
        what(deployment.world.rng.choice(nodes))


def _joined(deployment: Deployment) -> None:
    process = Process(f"w{len(deployment.processes)}", None)
    deployment.processes.append(process)
    deployment.world.fault("joined", process.name)
    deployment.start(process)


def _left(deployment: Deployment) -> None:
    """Stop a worker with SIGTERM; it comes back later."""
    able = [p for p in deployment.processes if p.node and not p.node.dead and not p.node.paused and p.worker]
    if able:
        process = deployment.world.rng.choice(able)
        assert process.worker is not None
        assert process.node is not None
        deployment.world.fault("left", process.node.name)
        deployment.world.loop.on_node(process.node, process.worker.stop)


def _rebalance(deployment: Deployment) -> None:
    deployment.broker.rebalance()


def _cease(deployment: Deployment) -> None:
    world = deployment.world
    world.cease()
    world.say("faults", "cease")
    deadline = world.now + PATIENCE_SECONDS

    def check() -> None:
        if (
            deployment.failures
            or world.loop.failures
            or not (deployment.closed or deployment.behind())
            or world.now > deadline
        ):
            deployment.closed = True
            world.loop.stop()
        else:
            world.loop.on_network(1.0, check)

    world.loop.on_network(1.0, check)
