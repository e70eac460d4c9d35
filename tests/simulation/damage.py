"""What the log or the group loses in a run: lanes may halt and report it, and must never skip records."""

from adledger.pipeline.lanes.events import Phase
from tests.simulation.deployment import FAULT_SECONDS, Deployment
from tests.simulation.kafka import TOPICS

KINDS = (
    "retention", "truncated", "overwritten", "overwritten", "overwritten in doubt", "topic recreated", "commits expired",
)  # fmt: skip


def plan_damage(deployment: Deployment) -> None:
    """Plan a loss of the log or the group: lanes may halt and report it, and must never skip records."""
    rng, world = deployment.world.rng, deployment.world
    kind = rng.choice(KINDS)
    if kind == "overwritten in doubt":
        plan_forced(deployment)
        return
    topic, lane = rng.randrange(len(TOPICS)), rng.randrange(deployment.broker.lanes)
    at = rng.uniform(5.0, FAULT_SECONDS - 8.0)

    def begin() -> None:
        deployment.damaged = True
        log = deployment.broker.log(topic, lane)
        if kind == "commits expired":
            _expire_commits(deployment)
            return
        if kind == "overwritten":
            _overwrite_some(deployment)
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
            deployment.broker.ids[topic] += "x"
            for key in [k for k in deployment.broker.commits if k[0] == topic]:
                del deployment.broker.commits[key]

    world.loop.on_network(at, begin)


def plan_forced(deployment: Deployment) -> None:
    """Plan an unclean election at the worst time: when a lane has just started, or has a batch in doubt."""
    rng, world = deployment.world.rng, deployment.world
    kind, left = rng.choice((Phase.IN_DOUBT, Phase.IN_DOUBT, Phase.REBUILDING)), rng.randrange(1, 6)
    delay, at_once = rng.choice((0.0, 0.005, 0.05, 0.5, 3.0)) * rng.random(), rng.random() < 0.8

    def on_phase(lane: int, phase: Phase) -> None:
        nonlocal left
        if phase is not kind or left == 0 or world.quiet:
            return
        left -= 1
        if left == 0:
            world.loop.on_network(delay, _overwrite_read, deployment, lane, at_once)

    deployment.on_phase = on_phase


def _overwrite_read(deployment: Deployment, lane: int, at_once: bool) -> None:
    """Overwrite records that a lane has read, whether or not they are in the ledger."""
    rng = deployment.world.rng
    places = [(t, b[0]) for t in range(len(TOPICS)) for b in deployment.broker.log(t, lane).batches[-4:]]
    if deployment.world.quiet or not places:
        return
    topic, begins = rng.choice(places)
    deployment.damaged = True
    deployment.world.fault("overwritten in doubt", "kafka", f"{TOPICS[topic]}-{lane} from {begins} on")
    _overwrite(deployment, topic, lane, begins, at_once=at_once)


def _overwrite_some(deployment: Deployment) -> None:
    """Overwrite some of the last records that the ledger has of one partition."""
    ends = deployment.positions()
    places = [
        (topic, lane, begins)
        for lane, of_lane in sorted(ends.items())
        for topic, end in sorted(of_lane.items())
        for begins in [b[0] for b in deployment.broker.log(topic, lane).batches if b[0] < end][-3:]
    ]
    if not places:
        return
    topic, lane, begins = deployment.world.rng.choice(places)
    deployment.world.fault(
        "overwritten", "kafka", f"{TOPICS[topic]}-{lane} from {begins} on, the ledger has {ends[lane][topic]}"
    )
    _overwrite(deployment, topic, lane, begins, at_once=True)


def _overwrite(deployment: Deployment, topic: int, lane: int, begins: int, *, at_once: bool) -> None:
    """A leader without the records from an offset on takes over, and appends more than it lacks, at once or gradually."""
    log = deployment.broker.log(topic, lane)
    ledger = [
        p.stamp.batch_no for p in deployment.server.parts if (p.table, p.stamp.lane) == ("ledger", lane)
    ]
    log.past_batches = max(ledger, default=0)
    log.cut(begins)
    last = max(log.lost, default=0)

    def grow() -> None:
        deployment.produce(topic, lane)
        if log.end <= last:
            if at_once:
                grow()
            else:
                deployment.world.loop.on_network(deployment.world.rng.uniform(0.1, 2.0), grow)

    deployment.world.loop.on_network(
        0.002, grow
    )  # expected.py distinguishes records by log time, so no two share a millisecond


def _expire_commits(deployment: Deployment) -> None:
    """The group was empty for longer than its offsets are kept: days, so no earlier request is on its way."""
    world = deployment.world
    deployment.closed = True
    for process in deployment.processes:
        process.restarting = False
        if process.node and not process.node.dead:
            world.crash(process.node, "an outage of all workers")

    def begin_again() -> None:
        world.fault("commits expired", "kafka")
        deployment.broker.commits.clear()
        deployment.broker.members.clear()
        deployment.closed = False
        for process in deployment.processes:
            deployment.start(process)

    world.loop.on_network(30.0, begin_again)
