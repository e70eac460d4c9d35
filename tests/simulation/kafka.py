"""A simulated Kafka: partitions, a group with generations and member ids, commits with metadata.

`Broker` is what survives every node; `SimSource` is a worker's client, a `Source`. As in Kafka, a commit is refused for a
member id or generation that is not current, and not for another member's partition.
"""

import asyncio
import hashlib
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from adledger.pipeline.errors import (
    CommitFenced,
    CommitRefused,
    CommitUnknown,
    LogError,
    LogRewritten,
    OffsetOutOfRange,
)
from adledger.pipeline.lanes.intent import METADATA_BYTES_MAX
from adledger.pipeline.log.leader_epochs import NO_EPOCH, EpochRun, LeaderEpochs
from adledger.pipeline.log.record_block import RecordBlock, encode_batches
from adledger.pipeline.log.source import Assignment, Committed, GroupListener, OffsetBounds, Topology
from adledger.pipeline.records.batch_format import HEADER_BYTES
from adledger.pipeline.records.encoded import READ_AHEAD_BYTES, EncodedBatch, Fetched
from tests.simulation.world import World, who

CLOCK_BEGINS_MS = (1_767_225_600 - 15) * 1000
"""Log time at the start: 15 s before a day begins."""
SESSION_SECONDS = 5.0
HEARTBEAT_SECONDS = 1.5
REBALANCE_SECONDS = 6.0
HALF_DONE = "accepted for some partitions only"
TOPIC_IS_NEW = "a topic was created again"
TOPICS = ("ad.impressions", "ad.clicks")


@dataclass(frozen=True, slots=True)
class LogRecord:
    """One record, as it was appended; or a record batch that can't be decoded, for all the offsets that it covers."""

    topic: int
    offset: int
    log_time: int
    key: bytes | None
    value: bytes | None
    covers: int = 0  # offsets, of a batch that can't be decoded


@dataclass(slots=True)
class Partition:
    """One topic's partition. `history` keeps every record that was ever appended, for the ground truth."""

    first: int = 0
    end: int = 0
    last_time: int = 0
    batches: list[tuple[int, int, EncodedBatch | None]] = field(default_factory=list)
    history: dict[int, LogRecord] = field(default_factory=dict)
    frozen: bool = False
    lost: dict[int, LogRecord] = field(default_factory=dict)  # replaced records
    past_batches: int = 0  # the last batch that the ledger had then
    epochs: list[int] = field(default_factory=lambda: [0])  # leader epoch -> where it begins

    def runs(self, start: int, end: int) -> list[EpochRun]:
        """Return the leader epochs of the records between two offsets."""
        spans = ((max(b, start), min(self.end_of_epoch(e), end), e) for e, b in enumerate(self.epochs))
        return [EpochRun(*span) for span in spans if span[0] < span[1]]

    def end_of_epoch(self, epoch: int) -> int:
        """Return the end of what a leader epoch appended."""
        return min([*self.epochs[epoch + 1 :], self.end])

    def cut(self, end: int) -> None:
        """An unclean election: a leader that lacks the last records appends in their place."""
        self.batches = [b for b in self.batches if b[1] <= end]
        self.lost = {offset: record for offset, record in self.history.items() if offset >= end}
        for offset in self.lost:
            del self.history[offset]
        self.end = end
        self.epochs.append(end)


@dataclass(slots=True)
class Member:
    """A member of the group."""

    instance: str | None
    seen: float
    reply: Callable[[Any], None] | None = None
    lanes: tuple[int, ...] = ()


@dataclass(slots=True)
class Broker:
    """The cluster: the log, and the coordinator of the one group. `fences` and `checks_cut` are for controls."""

    world: World
    lanes: int
    clock_skew_ms: tuple[int, int] = (0, 0)
    fences: bool = True
    ids: list[str] = field(default_factory=lambda: ["A0", "B0"])
    logs: dict[tuple[str, int], Partition] = field(default_factory=dict)
    commits: dict[tuple[int, int], Committed] = field(default_factory=dict)
    members: dict[str, Member] = field(default_factory=dict)
    generation: int = 0
    preparing: bool = False
    waiters: list[Callable[[], None]] = field(default_factory=list)
    intended: set[tuple[int, str]] = field(default_factory=set)
    cut_problems: list[str] = field(default_factory=list)
    _count: int = 0

    def __post_init__(self) -> None:
        self.world.loop.on_network(1.0, self._expire)

    # the log

    def topology(self) -> Topology:
        return Topology(TOPICS, (1, 2), tuple(self.ids), self.lanes)

    def log(self, topic: int, lane: int) -> Partition:
        return self.logs.setdefault((self.ids[topic], lane), Partition())

    def time_ms(self, topic: int) -> int:
        """The append time of a topic's leader."""
        return int(CLOCK_BEGINS_MS + self.clock_skew_ms[topic] + self.world.now * 1000)

    def append(self, topic: int, lane: int, records: Sequence[tuple[bytes | None, bytes | None]]) -> None:
        """Append a record batch; all its records have its append time."""
        log = self.log(topic, lane)
        if log.frozen:
            return
        time = self.time_ms(topic)
        block = RecordBlock.of((time, key, value) for key, value in records)
        for written in encode_batches(block, log.end):
            buffer = np.concatenate([written.data, np.zeros(READ_AHEAD_BYTES, np.uint8)])
            count = written.next_offset - written.base_offset
            batch = EncodedBatch(
                buffer, HEADER_BYTES, len(written.data) - HEADER_BYTES, count, written.base_offset, time, time,
                last_offset_delta=count - 1, whole=buffer[: len(written.data)],
            )  # fmt: skip
            log.batches.append((written.base_offset, written.next_offset, batch))
        for key, value in records:
            log.history[log.end] = LogRecord(topic, log.end, time, key, value)
            log.end += 1
        self.changed()

    def append_undecodable(self, topic: int, lane: int, data: bytes, covers: int) -> None:
        """Append a record batch whose bytes are no records."""
        log = self.log(topic, lane)
        if log.frozen:
            return
        self.world.fault("batch that can't be decoded", "producer", f"{TOPICS[topic]}-{lane}")
        time = self.time_ms(topic)
        buffer = np.frombuffer(data + bytes(READ_AHEAD_BYTES), np.uint8)
        batch = EncodedBatch(
            buffer, 0, len(data), covers, log.end, time, time,
            last_offset_delta=covers - 1, whole=buffer[: len(data)], readable=False,
        )  # fmt: skip
        log.batches.append((log.end, log.end + covers, batch))
        summary = f"record batch of {len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"
        log.history[log.end] = LogRecord(topic, log.end, time, summary.encode(), data, covers)
        log.end += covers
        self.changed()

    def gap(self, topic: int, lane: int, count: int) -> None:
        """Offsets without records, as transaction markers leave them."""
        log = self.log(topic, lane)
        if log.frozen:
            return
        self.world.fault("offsets without records", "kafka", f"{TOPICS[topic]}-{lane}")
        log.batches.append((log.end, log.end + count, None))
        log.end += count
        self.changed()

    def changed(self) -> None:
        """Wake the fetches that wait for records."""
        waiting, self.waiters = self.waiters, []
        for look in waiting:
            look()

    def fetch(
        self,
        lane: int,
        positions: Mapping[int, int],
        bytes_max: int,
        ids: tuple[str, ...] | None,
        epochs: Mapping[int, int] | None = None,
    ) -> list[tuple[Fetched, list[EpochRun]]]:
        """Fetch from the topics of these ids, with the leader epochs of what comes; LogError where they are gone.

        `epochs`: topic -> the leader epoch of what was read before the position, as far as the client knows.
        """
        if ids is not None and tuple(self.ids) != ids:
            raise LogError(TOPIC_IS_NEW, remedy="start the worker again")
        ends = {topic: self.log(topic, lane).end_of_epoch(epoch) for topic, epoch in (epochs or {}).items()}
        if since := {topic: end for topic, end in ends.items() if end < positions[topic]}:
            self.world.say("kafka", f"another past: lane {lane}, by topic from {since} on")
            raise LogRewritten(f"lane {lane} was truncated: {since}", since=since, remedy="none")
        found = [self._fetch_one(topic, lane, position, bytes_max) for topic, position in positions.items()]
        return [(f, self.log(f.topic, lane).runs(f.position, f.next_offset)) for f in found]

    def _fetch_one(self, topic: int, lane: int, position: int, bytes_max: int) -> Fetched:
        log = self.log(topic, lane)
        if not log.first <= position <= log.end:
            raise OffsetOutOfRange(
                f"{TOPICS[topic]}-{lane}: offset {position} is not in {log.first} to {log.end}",
                remedy="restore the log",
            )
        behind = [b for b in log.batches if b[1] > position]
        if behind and not self.world.quiet and self.world.rng.random() < 0.15:
            self.world.fault("topic lags", "kafka", f"{TOPICS[topic]}-{lane} at {position}")
            return Fetched(topic, position, position, log.end)
        if len(behind) > 1 and self.world.rng.random() < 0.4:
            behind = behind[: self.world.rng.randrange(1, len(behind) + 1)]
        sizes = np.cumsum([0 if b is None else b.size for _, _, b in behind])
        behind = behind[: max(1, int(np.searchsorted(sizes, bytes_max, side="right")))]
        if behind and behind[0][0] < position:
            self.world.fault(
                "fetched again", "kafka", f"{TOPICS[topic]}-{lane}, {behind[0][0]} to {position - 1}"
            )
        batches = tuple(b for _, _, b in behind if b is not None)
        return Fetched(topic, position, behind[-1][1] if behind else position, log.end, batches)

    # commits

    def is_current(self, member_id: str, generation: int) -> bool:
        return not self.fences or (member_id in self.members and generation == self.generation)

    def commit(self, member_id: str, generation: int, lane: int, positions: Mapping[int, Committed]) -> None:
        """Accept, or raise CommitFenced."""
        if not self.is_current(member_id, generation):
            self.world.fault("commit fenced", "kafka", f"{member_id}, generation {generation}, lane {lane}")
            raise CommitFenced(f"lane {lane}: {member_id} in generation {generation} is not current")
        for topic, committed in positions.items():
            self.commits[topic, lane] = committed
            self.world.say(
                "kafka",
                f"committed {TOPICS[topic]}-{lane} at {committed.offset}: {_batch(committed.metadata)}",
            )

    # the group

    def join(self, member_id: str, instance: str | None, reply: Callable[[Any], None]) -> None:
        """A JoinGroup: answered with (member id, generation, lanes), or None where the member id is unknown."""
        if member_id and member_id not in self.members:
            reply(None)
            return
        if not member_id:
            self._count += 1
            member_id = f"m{self._count}"
            former = next((m for m, x in self.members.items() if instance and x.instance == instance), None)
            if former is not None:
                old = self.members.pop(former)
                self.members[member_id] = Member(instance, self.world.now, None, old.lanes)
                self.world.fault("static member returned", "kafka", f"{former} is {member_id} now")
                if not self.preparing:
                    reply((member_id, self.generation, old.lanes))
                    return
            else:
                self.members[member_id] = Member(instance, self.world.now)
        self.members[member_id].reply = reply
        self.members[member_id].seen = self.world.now
        self.rebalance()
        self._complete()

    def rebalance(self) -> None:
        """Ask every member to join again."""
        if self.preparing or not self.members:
            return
        self.preparing = True
        generation = self.generation
        self.world.fault("rebalance", "kafka", f"generation {generation} ends")
        self.world.loop.on_network(REBALANCE_SECONDS, self._late, generation)

    def _late(self, generation: int) -> None:
        if self.preparing and generation == self.generation:
            self._complete(wait=False)

    def _complete(self, *, wait: bool = True) -> None:
        if not self.preparing or (wait and any(m.reply is None for m in self.members.values())):
            return
        for member_id in [i for i, m in self.members.items() if m.reply is None]:
            del self.members[member_id]
        self.preparing = False
        self.generation += 1
        order = list(self.members)
        self.world.rng.shuffle(order)
        for place, member_id in enumerate(order):
            member = self.members[member_id]
            member.lanes = tuple(range(place, self.lanes, len(order)))
            member.seen = self.world.now
            reply, member.reply = member.reply, None
            if reply:
                reply((member_id, self.generation, member.lanes))
        self.world.say(
            "kafka", f"generation {self.generation}: { {m: x.lanes for m, x in self.members.items()} }"
        )

    def leave(self, member_id: str) -> None:
        if self.members.pop(member_id, None) is not None:
            self.rebalance()
            self._complete()

    def heartbeat(self, member_id: str, generation: int) -> str:
        member = self.members.get(member_id)
        if member is None:
            return "unknown"
        member.seen = self.world.now
        return "rebalance" if self.preparing or generation != self.generation else "ok"

    def _expire(self) -> None:
        late = [
            i
            for i, m in self.members.items()
            if m.reply is None and self.world.now - m.seen > SESSION_SECONDS
        ]
        for member_id in late:
            self.world.fault("member expired", "kafka", member_id)
            self.leave(member_id)
        self.world.loop.on_network(1.0, self._expire)


@dataclass(eq=False, slots=True)
class SimSource:
    """A worker's client. `cooperative`: lanes that stay ours are not revoked before we join again."""

    world: World
    broker: Broker
    instance: str | None = None
    cooperative: bool = False
    _listener: GroupListener | None = None
    _topology: Topology | None = None
    _member: str = ""
    _generation: int = -1
    _mine: tuple[int, ...] = ()
    _task: Any = None
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _leaving: bool = False
    _again: Any = None
    _ends: dict[tuple[int, int], int] = field(default_factory=dict)
    _read: dict[tuple[int, int], LeaderEpochs] = field(default_factory=dict)

    # group

    async def join(self, listener: GroupListener) -> Topology:
        self._listener = listener
        self._topology = await self.world.ask(self.broker.topology)
        self._task = self.world.loop.create_task(self._membership())
        return self._topology

    async def leave(self) -> None:
        if self._task is None:
            return
        self._leaving = True
        self._wake.set()
        await asyncio.wait([self._task])
        await self._revoke(self._mine)
        await self._leave_group()

    async def _leave_group(self) -> None:
        member, self._member = self._member, ""
        await self.world.ask(partial(self.broker.leave, member))

    async def rejoin(self) -> None:
        if self._again is None:
            self._again = self.world.loop.create_future()
        self._wake.set()
        if not self._leaving:
            await asyncio.shield(self._again)

    async def _membership(self) -> None:
        while not self._leaving:
            joined = await self._join_group()
            if joined is None:
                self._member = ""
                continue
            self._member, self._generation, lanes = joined
            await self._revoke([lane for lane in self._mine if lane not in lanes])
            self._mine = lanes
            assert self._listener is not None
            await self._listener.lanes_assigned(
                [Assignment(lane, self._generation, self._member) for lane in lanes]
            )
            await self._beat()

    async def _join_group(self) -> Any:
        reply = self.world.loop.create_future()
        loop, member = self.world.loop, self._member

        def answer(found: Any) -> None:
            loop.on_network(self.world.latency(), lambda: reply.done() or reply.set_result(found))

        loop.on_network(self.world.latency(), self.broker.join, member, self.instance, answer)
        return await reply

    async def _beat(self) -> None:
        """Stay a member until the group wants us to join again."""
        while not self._leaving:
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            if self._leaving:
                return
            if self._again is not None:
                await self._revoke(self._mine)
                await self._leave_group()
                again, self._again = self._again, None
                again.set_result(None)
                return
            state = await self.world.ask(partial(self.broker.heartbeat, self._member, self._generation))
            if state == "unknown":
                await self._revoke(self._mine)
                self._member = ""
                return
            if state == "rebalance":
                if not self.cooperative:
                    await self._revoke(self._mine)
                return

    async def _revoke(self, lanes: Collection[int]) -> None:
        if lanes:
            assert self._listener is not None
            await self._listener.lanes_revoked(lanes)
            self._mine = tuple(lane for lane in self._mine if lane not in lanes)

    # offsets

    async def committed(self, lane: int) -> Mapping[int, Committed]:
        self._check_lane(lane)
        await self.world.point(f"before reading lane {lane}'s commits")

        def found() -> dict[int, Committed]:
            commits = self.broker.commits
            return {t: commits[t, lane] for t in range(len(TOPICS)) if (t, lane) in commits}

        return await self.world.ask(found)

    async def commit(self, assignment: Assignment, positions: Mapping[int, Committed]) -> None:
        self._check_lane(assignment.lane)
        for committed in positions.values():
            if len(committed.metadata.encode()) > METADATA_BYTES_MAX:
                raise LogError("the metadata of a commit is too long")
        await self.world.point(f"before a commit of lane {assignment.lane}")
        self._check_cut(assignment.lane, positions)
        await self.send_commit(assignment, positions)
        await self.world.point(f"after a commit of lane {assignment.lane}")

    async def send_commit(self, assignment: Assignment, positions: Mapping[int, Committed]) -> None:
        """Send it once. Raises CommitFenced, CommitUnknown."""
        world, lane = self.world, assignment.lane
        reply = world.loop.create_future()
        reply.add_done_callback(lambda done: done.cancelled() or done.exception())
        name = f"lane {lane}: {_batch(next(iter(positions.values())).metadata)}"
        lost = CommitUnknown(f"lane {lane}: no answer to a commit")
        parts, error = self._fate(name, positions, lost)
        back = world.latency()

        def arrive(part: Mapping[int, Committed]) -> None:
            answer: Exception | None = error
            try:
                self.broker.commit(assignment.member_id, assignment.generation, lane, part)
            except CommitFenced as fenced:
                answer = fenced
            if error is not lost:
                world.loop.on_network(back, _land, reply, answer)

        for delay, part in parts:
            world.loop.on_network(delay, arrive, part)
        if isinstance(error, CommitRefused):
            world.loop.on_network(back, _land, reply, error)
        world.loop.on_network(world.rng.uniform(0.3, 2.0), _land, reply, lost)
        await world.point(f"after sending a commit of {name}")
        await reply

    def _fate(
        self, name: str, positions: Mapping[int, Committed], lost: CommitUnknown
    ) -> tuple[list[tuple[float, Mapping[int, Committed]]], Exception | None]:
        """Return when which partitions' commits arrive, and the answer (`lost`: none) where they are accepted."""
        world, chances = self.world, self.world.chances
        delay = world.latency()
        if world.chance(chances.commit_lost):
            world.fault("commit lost", who(), name)
            return [], lost
        if world.chance(chances.commit_refused):
            world.fault("commit refused", who(), name)
            return [], CommitRefused(f"{name}: the coordinator is loading")
        if len(positions) > 1 and world.chance(chances.commit_half):
            world.fault("commit half done", who(), name)
            taken = world.rng.choice(list(positions))
            parts: list[tuple[float, Mapping[int, Committed]]] = [(delay, {taken: positions[taken]})]
            if world.chance(0.5):
                rest = {t: c for t, c in positions.items() if t != taken}
                parts.append((world.rng.uniform(0.05, 3.0), rest))
            return parts, CommitUnknown(f"{name}: {HALF_DONE}")
        if world.chance(chances.commit_delayed):
            delay = world.rng.uniform(0.2, 8.0)
            world.fault("commit delayed", who(), f"{name}, {delay:.1f} s")
        elif world.chance(chances.commit_reply_lost):
            world.fault("commit reply lost", who(), name)
            return [(delay, positions)], lost
        return [(delay, positions)], None

    def _check_cut(self, lane: int, positions: Mapping[int, Committed]) -> None:
        """Check the cut's law: no record that the lane knew of, at or before the cut's position, is left out of the
        batch.
        """
        try:
            intent = json.loads(next(iter(positions.values())).metadata)
            cut, before, ranges = tuple(intent["cut"]), intent["clock"][0], intent["ranges"]
        except (ValueError, KeyError, TypeError):
            return  # no intent: the contract suite's texts
        batch = (lane, f"{intent['batch']} {ranges}")
        if batch in self.broker.intended:
            return  # intended again, by a lane that may know more
        self.broker.intended.add(batch)
        for topic, start, end in ranges:
            clock = before
            log = self.broker.log(topic, lane)
            for offset in range(start, self._ends.get((lane, topic), end)):
                record = log.history.get(offset)
                if record is None:
                    continue
                clock = max(clock, record.log_time)
                if offset >= end and (clock, topic, offset) <= cut:
                    self.broker.cut_problems.append(
                        f"lane {lane}, batch {intent['batch']}: cut at {cut}, but offset {offset} of topic {topic} lies "
                        f"before that, at {clock}, and is left out"
                    )
                    return

    # reading

    async def bounds(self, lane: int) -> Mapping[int, OffsetBounds]:
        self._check_lane(lane)
        broker = self.broker

        def found() -> dict[int, OffsetBounds]:
            logs = (broker.log(t, lane) for t in range(len(TOPICS)))
            return {t: OffsetBounds(log.first, log.end) for t, log in enumerate(logs)}

        return await self.world.ask(found)

    async def fetch(
        self, lane: int, positions: Mapping[int, int], bytes_max: int, wait_ms_max: int
    ) -> Sequence[Fetched]:
        self._check_lane(lane)
        positions = dict(positions)
        broker = self.broker
        ids = self._topology.topic_ids if self._topology else None
        epochs = self.leader_epochs(lane, positions)
        found = await self.world.ask(lambda: broker.fetch(lane, positions, bytes_max, ids, epochs))
        if wait_ms_max and not any(f.next_offset > f.position for f, _ in found):
            await self._wait(lane, positions, wait_ms_max / 1000)
            found = await self.world.ask(
                lambda: broker.fetch(lane, positions, bytes_max, ids, epochs), slow=False
            )
        for f, runs in found:
            self._ends[lane, f.topic] = f.end_offset
            self._read.setdefault((lane, f.topic), LeaderEpochs()).read(f.position, runs)
        return [f for f, _ in found]

    def resume(self, lane: int, positions: Mapping[int, int], leader_epochs: Mapping[int, int]) -> None:
        for topic in range(len(TOPICS)):
            self._read.pop((lane, topic), None)
            if topic in leader_epochs:
                self._read[lane, topic] = LeaderEpochs(positions[topic], leader_epochs[topic])

    def leader_epochs(self, lane: int, positions: Mapping[int, int]) -> dict[int, int]:
        found = {t: self._read[lane, t].before(p) for t, p in positions.items() if (lane, t) in self._read}
        return {topic: epoch for topic, epoch in found.items() if epoch != NO_EPOCH}

    async def _wait(self, lane: int, positions: Mapping[int, int], seconds: float) -> None:
        """Wait until a topic has records after its position."""
        future = self.world.loop.create_future()

        def answer() -> None:
            if future.done():
                return
            if any(self.broker.log(t, lane).end != p for t, p in positions.items()):
                future.set_result(None)
            else:
                self.broker.waiters.append(answer)

        answer()
        self.world.loop.on_network(seconds, lambda: future.done() or future.set_result(None))
        await future

    def _check_lane(self, lane: int) -> None:
        if not 0 <= lane < self.broker.lanes:
            raise LogError(f"there is no lane {lane}")


def _land(reply: Any, error: Exception | None) -> None:
    if not reply.done():
        if error is None:
            reply.set_result(None)
        else:
            reply.set_exception(error)


def _batch(metadata: str) -> str:
    try:
        intent = json.loads(metadata)
        ranges = ", ".join(f"{s}-{e}" for _, s, e in intent["ranges"])
        return f"batch {intent['batch']} [{ranges}), send_by {intent['send_by'] % 1000}"
    except (ValueError, KeyError, TypeError):
        return repr(metadata[:20])
