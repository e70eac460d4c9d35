"""Reading lanes from Kafka: each lane pulls over its own connection, at positions that it chooses.

Nothing is read ahead, so a lane that does not fetch costs nothing, and a position may go back. A lane's long poll does
not delay the requests of others (a broker handles one request of a connection at a time).

When a log is truncated and grows again beyond a reader's position, a plain fetch would continue in records that do not
follow those that were read. So each fetch states the leader epoch of the batch before its position
(adledger.pipeline.log.leader_epochs), and the broker reports where its log diverges.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeVar

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import (
    KafkaError,
    LeaderNotAvailableError,
    OffsetOutOfRangeError,
    for_code,
)

from adledger.pipeline.errors import LaneHalted, UnreadableBatch
from adledger.pipeline.halts import HaltReason, override_command
from adledger.pipeline.log.kafka.aiokafka_private import (
    EARLIEST,
    LATEST,
    leader,
    refresh_metadata,
    send_fetch,
    send_list_offsets,
)
from adledger.pipeline.log.kafka.answer_codes import FROM_THE_FIRST, UNREADABLE, log_rewritten, raise_for_code
from adledger.pipeline.log.kafka.batches import DecodedBatches, LogTime, decode_batches
from adledger.pipeline.log.kafka.damage import is_whole
from adledger.pipeline.log.kafka.fetch_requests import FetchedPartition, Position
from adledger.pipeline.log.kafka.progress import (
    FOLLOWING_BYTES_MAX,
    brings_nothing,
    fetch_alone,
    nothing_brought,
    readable_from,
)
from adledger.pipeline.log.kafka_admin.broker_retry import BrokerRetry
from adledger.pipeline.log.kafka_admin.metadata import topic_facts
from adledger.pipeline.log.leader_epochs import NO_EPOCH, LeaderEpochs
from adledger.pipeline.log.source import OffsetBounds, Topology
from adledger.pipeline.records.encoded import Fetched
from adledger.schemas.wire import BATCH_BYTES_MAX

WAIT_MS_MAX = 10_000
"""The longest wait of one request at the broker, well below request.timeout.ms, after which a broker counts as dead."""
INLINE_BYTES_MAX = 64 * 1024
"""Fetches up to this are decoded on the event loop, in a millisecond at most; larger ones in a thread."""
INLINE_ROOM_BYTES_MAX = 1 << 20
"""So are those that take no more memory than this decompressed: a few bytes may expand to many."""

T = TypeVar("T")


class KafkaReader:
    """The `Reader` of a Kafka log, through a bootstrapped client that knows the topics."""

    def __init__(
        self, client: AIOKafkaClient, topology: Topology, log_time: LogTime, retry: BrokerRetry
    ) -> None:
        self._client, self._topology, self._log_time, self._retry = client, topology, log_time, retry
        self._index = {name: i for i, name in enumerate(topology.topics)}
        self._ids = dict(zip(topology.topics, topology.topic_ids, strict=True))
        self._names = {topic_id: name for name, topic_id in self._ids.items()}
        self._read: dict[tuple[int, str], LeaderEpochs] = {}  # by lane and topic

    async def bounds(self, lane: int) -> Mapping[int, OffsetBounds]:
        """Return each topic's first offset and its end: the last stable offset. Raises LogError, LaneHalted."""

        async def ask() -> dict[int, OffsetBounds]:
            await self._same_topics(lane)
            first, end = await asyncio.gather(self._offsets(lane, EARLIEST), self._offsets(lane, LATEST))
            return {self._index[name]: OffsetBounds(first[name], end[name]) for name in first}

        return await self._retry.call(f"the ends of lane {lane}", ask, lambda: self._refresh(lane))

    async def fetch(
        self, lane: int, positions: Mapping[int, int], bytes_max: int, wait_ms_max: int
    ) -> Sequence[Fetched]:
        """Fetch as `Reader.fetch` says. Raises OffsetOutOfRange, UnreadableBatch, LogError."""
        names = {self._topology.topics[topic]: position for topic, position in positions.items()}

        async def ask() -> list[FetchedPartition]:
            return await self._ask(lane, names, bytes_max, min(wait_ms_max, WAIT_MS_MAX))

        answers = await self._call(lane, ask)
        enlarged = set[str]()
        while True:
            try:
                return await self._decoded(lane, names, answers)
            except UnreadableBatch as error:
                name = self._topology.topics[error.topic]
                if not error.end_guessed:
                    raise
                if name in enlarged:
                    error.end = await self._call(lane, partial(self._readable_from, lane, name, names[name]))
                    raise
            enlarged.add(name)
            answers = await self._with_what_follows(lane, name, names[name], answers)

    def resume(self, lane: int, positions: Mapping[int, int], leader_epochs: Mapping[int, int]) -> None:
        """Forget what was read of a lane, except these leader epochs before these positions, by topic."""
        for topic, name in enumerate(self._topology.topics):
            self._read.pop((lane, name), None)
            if topic in leader_epochs:
                self._read[lane, name] = LeaderEpochs(positions[topic], leader_epochs[topic])

    def leader_epochs(self, lane: int, positions: Mapping[int, int]) -> dict[int, int]:
        """Return topic -> leader epoch before its position, where it was read."""
        found = {t: self._position(lane, self._topology.topics[t], p).epoch for t, p in positions.items()}
        return {topic: epoch for topic, epoch in found.items() if epoch != NO_EPOCH}

    async def _ask(
        self, lane: int, positions: Mapping[str, int], bytes_max: int, wait_ms: int
    ) -> list[FetchedPartition]:
        """Return an answer for each topic. Raises KafkaError, LogError."""
        by_node = self._by_leader(lane, positions)
        if len(by_node) == 1:
            answers = await self._ask_brokers(lane, by_node, positions, bytes_max, wait_ms)
        else:
            # First without waiting: one broker's records must not wait for another broker that has none.
            answers = await self._ask_brokers(lane, by_node, positions, bytes_max, 0)
            if wait_ms and not any(answer.data for answer in answers):
                answers = await self._ask_brokers(lane, by_node, positions, bytes_max, wait_ms)
        # A broker returns a batch that exceeds the limit only for the first partition with records: fetch the other
        # partitions that have records one by one.
        for i, answer in enumerate(answers):
            name = self._names[answer.topic_id]
            if brings_nothing(answer, positions[name]):
                answers[i] = await self._alone(lane, name, positions[name], bytes_max)
        return answers

    async def _alone(self, lane: int, name: str, position: int, bytes_max: int) -> FetchedPartition:
        """Fetch one topic until there is progress. Raises UnreadableBatch when there is none."""

        async def ask(limit: int) -> FetchedPartition:
            by_node = self._by_leader(lane, [name])
            [answer] = await self._ask_brokers(lane, by_node, {name: position}, limit, 0)
            return answer

        answer = await fetch_alone(ask, position, bytes_max, self._retry.policy)
        if brings_nothing(answer, position):
            raise await self._unreadable(lane, name, position, nothing_brought(answer, position))
        return answer

    async def _ask_brokers(
        self, lane: int, by_node: Mapping[int, Sequence[str]], positions: Mapping[str, int], bytes_max: int, wait_ms: int
    ) -> list[FetchedPartition]:  # fmt: skip
        asked = {self._ids[name]: self._position(lane, name, offset) for name, offset in positions.items()}
        requests = [
            send_fetch(self._client, node, lane, {self._ids[name]: asked[self._ids[name]] for name in topics}, bytes_max, wait_ms)
            for node, topics in by_node.items()
        ]  # fmt: skip
        answers = [answer for some in await _all(requests) for answer in some]
        rewritten = {}
        for answer in answers:
            name = self._names[answer.topic_id]
            if _doubts_epoch(answer, asked[answer.topic_id]):
                await self._without_epoch(lane, name, positions[name])
                rewritten[name] = FROM_THE_FIRST
                continue
            if answer.error_code in UNREADABLE:
                await self._same_topics(lane)  # a topic that is being deleted is answered for alike
                kind = for_code(answer.error_code)
                what = f"the broker can't read offset {positions[name]}: {kind.__name__} ({kind.description})"
                raise await self._unreadable(lane, name, positions[name], what)
            raise_for_code(answer.error_code, f"{name}-{lane}", positions[name])
            if answer.diverges_at is not None:
                rewritten[name] = answer.diverges_at
        for name in rewritten:
            self._read.pop((lane, name), None)
        if rewritten:
            raise log_rewritten(lane, positions, rewritten, self._index)
        return answers

    async def _without_epoch(self, lane: int, name: str, position: int) -> None:
        """Raise OffsetOutOfRange where the broker refuses an offset for a reason other than the stated epoch."""
        self._read.pop((lane, name), None)
        await self._ask_brokers(lane, self._by_leader(lane, [name]), {name: position}, 1, 0)

    async def _unreadable(self, lane: int, name: str, position: int, what: str) -> UnreadableBatch:
        """Return the error, with the offset from which the broker returns batches again."""
        end = await self._readable_from(lane, name, position)
        return UnreadableBatch(
            f"{name}-{lane}: {what}", topic=self._index[name], start=position, end=end,
            remedy="look at the broker's log and disk: another replica may be whole",
        )  # fmt: skip

    async def _readable_from(self, lane: int, name: str, position: int) -> int:
        async def holds(offset: int) -> bool:
            [node] = self._by_leader(lane, [name])
            asked = {self._ids[name]: Position(offset)}
            [answer] = await send_fetch(self._client, node, lane, asked, 1, 0)
            if answer.error_code not in UNREADABLE:
                raise_for_code(answer.error_code, f"{name}-{lane}", offset)
            return answer.error_code == 0 and is_whole(answer.data, offset, f"{name}-{lane}")

        end = (await self._offsets(lane, LATEST))[name]
        return await readable_from(holds, position, max(end, position + 1))

    async def _call(self, lane: int, ask: Callable[[], Awaitable[T]]) -> T:
        return await self._retry.call(f"lane {lane}", ask, lambda: self._refresh(lane))

    async def _with_what_follows(
        self, lane: int, name: str, position: int, answers: Sequence[FetchedPartition]
    ) -> list[FetchedPartition]:
        """Return the answers, one topic's with what follows its damaged batch, which a limit may have cut off."""
        had = sum(len(answer.data) for answer in answers if answer.topic_id == self._ids[name])

        async def ask() -> list[FetchedPartition]:
            by_node = self._by_leader(lane, [name])
            return await self._ask_brokers(lane, by_node, {name: position}, had + FOLLOWING_BYTES_MAX, 0)

        [larger] = await self._call(lane, ask)
        return [larger if answer.topic_id == larger.topic_id else answer for answer in answers]

    def _position(self, lane: int, name: str, offset: int) -> Position:
        read = self._read.get((lane, name))
        return Position(offset, read.before(offset) if read is not None else NO_EPOCH)

    async def _decoded(
        self, lane: int, positions: Mapping[str, int], answers: Sequence[FetchedPartition]
    ) -> list[Fetched]:
        def decode(room_bytes_max: int) -> list[Fetched]:
            return [
                self._fetched(lane, positions[self._names[a.topic_id]], a, room_bytes_max) for a in answers
            ]

        if sum(len(answer.data) for answer in answers) <= INLINE_BYTES_MAX:
            try:
                return decode(INLINE_ROOM_BYTES_MAX)
            except UnreadableBatch as error:
                if not error.no_memory:
                    raise
                # It takes more memory, and so time, than the event loop can spare.
        return await asyncio.to_thread(decode, BATCH_BYTES_MAX)

    def _fetched(self, lane: int, position: int, answer: FetchedPartition, room_bytes_max: int) -> Fetched:
        name = self._names[answer.topic_id]
        try:
            found: DecodedBatches = decode_batches(
                answer.data, position, answer.aborted, self._log_time, f"{name}-{lane}", room_bytes_max,
                self._index[name],
            )  # fmt: skip
        except UnreadableBatch as error:
            if error.end_guessed:
                error.end = min(error.end, max(answer.end, position + 1))
            raise
        self._read.setdefault((lane, name), LeaderEpochs()).read(position, found.epochs)
        return Fetched(
            self._index[name],
            position,
            found.next_offset,
            max(answer.end, found.next_offset),
            found.batches,
        )

    async def _offsets(self, lane: int, which: int) -> dict[str, int]:
        by_node = self._by_leader(lane, self._topology.topics)
        answers = await _all(
            [send_list_offsets(self._client, node, lane, topics, which) for node, topics in by_node.items()]
        )
        found = {}
        for topic, (error_code, offset) in ((t, a) for some in answers for t, a in some.items()):
            raise_for_code(error_code, f"{topic}-{lane}", which)
            found[topic] = offset
        return found

    def _by_leader(self, lane: int, topics: Collection[str]) -> dict[int, list[str]]:
        by_node: dict[int, list[str]] = {}
        for topic in topics:
            node = leader(self._client, topic, lane)
            if node is None:
                raise LeaderNotAvailableError(f"{topic}-{lane} has no leader")
            by_node.setdefault(node, []).append(topic)
        return by_node

    async def _refresh(self, lane: int) -> None:
        """Refresh the metadata: which broker leads what. Raises LaneHalted where a topic is not the one that the worker joined for."""
        await refresh_metadata(self._client)
        with suppress(KafkaError):  # a broker that is still away fails the next attempt
            await self._same_topics(lane)

    async def _same_topics(self, lane: int) -> None:
        for facts in await topic_facts(self._client, self._topology.topics):
            if facts.error_code == 0 and facts.topic_id != self._ids[facts.name]:
                raise LaneHalted(
                    f"{facts.name} was recreated: its id is {facts.topic_id}, the ledger's is {self._ids[facts.name]}",
                    reason=HaltReason.TOPIC_RECREATED,
                    remedy="give up what was not read of the old one: "
                    f"{override_command(HaltReason.TOPIC_RECREATED, lane)}. Then start the workers again",
                )


def _doubts_epoch(answer: FetchedPartition, asked: Position) -> bool:
    """Whether the offset was refused, possibly only because the broker does not know the stated epoch."""
    return asked.epoch != NO_EPOCH and for_code(answer.error_code) is OffsetOutOfRangeError


async def _all(requests: Sequence[Awaitable[T]]) -> list[T]:
    """Await all, and raise the first error only when all have ended, so that no request is left unattended."""
    done = await asyncio.gather(*requests, return_exceptions=True)
    found: list[T] = []
    for answer in done:
        if isinstance(answer, BaseException):
            raise answer
        found.append(answer)
    return found
