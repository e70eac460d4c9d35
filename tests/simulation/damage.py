"""What the log or the group loses in a run: lanes may halt and say so, and must never jump."""

from adledger.pipeline.lanes.events import Phase
from tests.simulation.kafka import TOPICS
from tests.simulation.room import FAULT_SECONDS, Room

KINDS = (
    "retention", "truncated", "overwritten", "overwritten", "overwritten in doubt", "topic recreated", "commits expired",
)  # fmt: skip


def plan_damage(room: Room) -> None:
    """Plan a loss of the log or the group: lanes may halt and say so, and must never jump."""
    rng, world = room.world.rng, room.world
    kind = rng.choice(KINDS)
    if kind == "overwritten in doubt":
        plan_forced(room)
        return
    topic, lane = rng.randrange(len(TOPICS)), rng.randrange(room.broker.lanes)
    at = rng.uniform(5.0, FAULT_SECONDS - 8.0)

    def begin() -> None:
        room.damaged = True
        log = room.broker.log(topic, lane)
        if kind == "commits expired":
            _expire_commits(room)
            return
        if kind == "overwritten":
            _overwrite_some(room)
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


def plan_forced(room: Room) -> None:
    """Plan an unclean election at the worst time: when a lane has just started, or has a batch in doubt."""
    rng, world = room.world.rng, room.world
    kind, left = rng.choice((Phase.IN_DOUBT, Phase.IN_DOUBT, Phase.REBUILDING)), rng.randrange(1, 6)
    delay, at_once = rng.choice((0.0, 0.005, 0.05, 0.5, 3.0)) * rng.random(), rng.random() < 0.8

    def look(lane: int, phase: Phase) -> None:
        nonlocal left
        if phase is not kind or left == 0 or world.quiet:
            return
        left -= 1
        if left == 0:
            world.loop.on_network(delay, _overwrite_read, room, lane, at_once)

    room.on_phase = look


def _overwrite_read(room: Room, lane: int, at_once: bool) -> None:
    """Overwrite records that a lane has read, whether or not they are in the ledger."""
    rng = room.world.rng
    places = [(t, b[0]) for t in range(len(TOPICS)) for b in room.broker.log(t, lane).batches[-4:]]
    if room.world.quiet or not places:
        return
    topic, begins = rng.choice(places)
    room.damaged = True
    room.world.fault("overwritten in doubt", "kafka", f"{TOPICS[topic]}-{lane} from {begins} on")
    _overwrite(room, topic, lane, begins, at_once=at_once)


def _overwrite_some(room: Room) -> None:
    """Overwrite some of the last records that the ledger has of one partition."""
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
    _overwrite(room, topic, lane, begins, at_once=True)


def _overwrite(room: Room, topic: int, lane: int, begins: int, *, at_once: bool) -> None:
    """A leader without the records from an offset on takes over, and gets more than it lacks, at once or gradually."""
    log = room.broker.log(topic, lane)
    ledger = [p.stamp.batch_no for p in room.server.parts if (p.table, p.stamp.lane) == ("ledger", lane)]
    log.past_batches = max(ledger, default=0)
    log.cut(begins)
    last = max(log.lost, default=0)

    def grow() -> None:
        room.produce(topic, lane)
        if log.end <= last:
            if at_once:
                grow()
            else:
                room.world.loop.on_network(room.world.rng.uniform(0.1, 2.0), grow)

    room.world.loop.on_network(
        0.002, grow
    )  # the truth tells records apart by their log times: no two of one ms


def _expire_commits(room: Room) -> None:
    """The group was empty for longer than its offsets are kept: days, so no earlier request is on its way."""
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
