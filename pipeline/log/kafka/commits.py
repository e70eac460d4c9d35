"""A group's committed positions on Kafka: each commit in its assignment's name, sent once.

Stock aiokafka resends a commit after a transient error, with the generation and member id that are current *then*: that
would let an old intent overwrite that of the lane's next owner. Here a request carries the assignment's generation and
member id and is sent once; `commit_outcome` says what its answer means.

The broker handles one request of a connection at a time, and a commit takes 7 ms, most of which it waits to be written
together with others. So lanes share `CONNECTIONS` connections to the coordinator: 64 lanes that commit at once wait
0.4 s on one connection, 0.1 s on four. The group's heartbeats and joins use another one.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError, NodeNotReadyError

from adledger.pipeline.errors import CommitRefused, CommitUnknown, LogError
from adledger.pipeline.log.kafka.aiokafka_private import drop_connection
from adledger.pipeline.log.kafka.commit_outcome import METADATA_BYTES_MAX, error_name, outcome, remedy
from adledger.pipeline.log.kafka.offset_requests import NO_LEADER_EPOCH, NO_OFFSET, OffsetCommit, OffsetFetch
from adledger.pipeline.log.kafka_admin.group_facts import NOT_READY
from adledger.pipeline.log.source import Assignment, Committed
from adledger.pipeline.retry import RetryPolicy

ANSWER_SECONDS_MAX = 10.0
"""Timeout for an answer: about the write deadline, since an intent that is accepted later is useless."""

CONNECTIONS = 4
"""Connections to the coordinator for offsets; lane p uses number p modulo this."""

COORDINATOR_WAIT = RetryPolicy(attempts_max=None, backoff_ms_max=400)
"""Pause between two requests to a coordinator that is not ready, until ANSWER_SECONDS_MAX have passed."""
ENDLESS = "attempts without a limit do not end"

PASSING = NOT_READY | {88}
"""Transient answers to OffsetFetch, a commit that is not stable yet among them."""


class GroupCommits:
    """The `Offsets` of one group, through a bootstrapped aiokafka client. It finds the coordinator itself."""

    def __init__(
        self,
        client: AIOKafkaClient,
        group: str,
        topics: tuple[str, ...],
        *,
        instance: str | None = None,
        answer_seconds_max: float = ANSWER_SECONDS_MAX,
    ) -> None:
        """`topics` are in topic-index order; `instance` is the member's `group.instance.id`, where it has one."""
        self._client, self._group, self._topics, self._instance = client, group, topics, instance
        self._answer_seconds_max = answer_seconds_max
        self._node: int | None = None
        self._finding = asyncio.Lock()
        self._in_doubt: dict[int, Assignment] = {}

    async def commit(self, assignment: Assignment, positions: Mapping[int, Committed]) -> None:
        """Commit a lane's positions (topic index -> position) in the assignment's name, in exactly one request.

        Raises CommitFenced; CommitRefused (nothing was or will be committed); CommitUnknown. After CommitUnknown, and after
        a cancelled commit, this lane sends nothing more under this assignment: the earlier request may still be on its
        way and would overwrite a later one.
        """
        lane = assignment.lane
        where = f"lane {lane}, group {self._group}"
        self._check(assignment, positions, where)
        node = await self._reached(lane, where)
        request = OffsetCommit(
            self._group, assignment.generation, assignment.member_id, self._instance,
            [(self._topics[topic], [(lane, at.offset, NO_LEADER_EPOCH, at.metadata)]) for topic, at in positions.items()],
        )  # fmt: skip
        self._in_doubt[lane] = assignment  # until an answer says otherwise, also when this is cancelled
        try:
            response = await self._answer(lane, node, request)
        except NodeNotReadyError as error:
            self._known(assignment)
            raise _not_sent(where, error) from error
        except LogError:
            self._known(assignment)
            raise
        except (KafkaError, TimeoutError) as error:
            raise CommitUnknown(
                f"{where}: no answer to a commit: {error!r}",
                remedy="the worker leaves the group and joins as a new member; if this keeps happening, look at the brokers",
            ) from error
        answers = {(topic, p): code for topic, partitions in response.topics for p, code in partitions}
        failure = outcome(where, [(self._topics[topic], lane) for topic in positions], answers)
        if not isinstance(failure, CommitUnknown):
            self._known(assignment)
        if failure is not None:
            self._node = None  # it may have moved, and a lookup is cheap
            raise failure

    async def committed(self, lane: int) -> Mapping[int, Committed]:
        """Return topic index -> the group's committed position; topics without a commit are left out.

        Repeats the request while the coordinator is not ready, for up to ANSWER_SECONDS_MAX. Raises LogError.
        """
        where, why = f"lane {lane}, group {self._group}", "no answer"
        request = OffsetFetch(self._group, self._topics, lane)
        try:
            async with asyncio.timeout(self._answer_seconds_max):
                for attempt in COORDINATOR_WAIT.attempts():
                    try:
                        node = await self._reached(lane, where)
                        response = await self._answer(lane, node, request)
                    except (KafkaError, CommitRefused) as error:
                        why = repr(error)
                    else:
                        code = _first_error(response)
                        missing = set(self._topics) - {topic for topic, *_ in _positions_in(response, lane)}
                        if code not in PASSING and (code or not missing):
                            return self._positions(where, lane, response, code)
                        why = error_name(code) if code else f"no answer for {', '.join(sorted(missing))}"
                    self._node = None
                    await COORDINATOR_WAIT.pause(attempt)
                raise AssertionError(ENDLESS)
        except TimeoutError as error:
            raise LogError(
                f"{where}: the committed positions can't be read: {why}",
                remedy="look at the brokers: is the group's coordinator up?",
            ) from error

    def _check(self, assignment: Assignment, positions: Mapping[int, Committed], where: str) -> None:
        if self._in_doubt.get(assignment.lane) == assignment:
            raise CommitUnknown(
                f"{where}: the outcome of an earlier commit is unknown, so this member sends no other",
                remedy="the worker leaves the group and joins as a new member",
            )
        longest = max(len(at.metadata.encode()) for at in positions.values())
        assert longest <= METADATA_BYTES_MAX, f"{where}: {longest} bytes of metadata"

    def _known(self, assignment: Assignment) -> None:
        """Forget a commit whose outcome is known, unless the lane has sent a newer one since."""
        if self._in_doubt.get(assignment.lane) == assignment:
            del self._in_doubt[assignment.lane]

    async def _reached(self, lane: int, where: str) -> int:
        """Return the coordinator's node, once it is connected. Raises CommitRefused: nothing was sent."""
        try:
            async with asyncio.timeout(self._answer_seconds_max):
                for attempt in COORDINATOR_WAIT.attempts():
                    try:
                        node = await self._coordinator(lane)
                    except KafkaError as error:
                        if not error.retriable:
                            raise _not_sent(where, error) from error
                    else:
                        if await self._client.ready(node, group=_connection(lane)):
                            return node
                        self._node = None
                    await COORDINATOR_WAIT.pause(attempt)
                    await self._client.force_metadata_update()
                raise AssertionError(ENDLESS)
        except TimeoutError as error:
            raise _not_sent(where, error) from error

    async def _coordinator(self, lane: int) -> int:
        """Return the coordinator's node. Raises KafkaError.

        A newly found one first gets a request for the group's offsets: while it is not ready for the group (after its
        start, say) it would answer a commit with NOT_COORDINATOR, which leaves the outcome unknown.
        """
        async with self._finding:
            if self._node is None:
                node = await self._client.coordinator_lookup(CoordinationType.GROUP, self._group)
                code = _first_error(
                    await self._answer(lane, node, OffsetFetch(self._group, self._topics, lane))
                )
                if code in NOT_READY:
                    raise GroupCoordinatorNotAvailableError(error_name(code))
                self._node = node
            return self._node

    async def _answer(self, lane: int, node: int, request: OffsetCommit | OffsetFetch) -> Any:
        """Send once and return the response. Raises KafkaError, TimeoutError; NodeNotReadyError, LogError: nothing was sent."""
        try:
            async with asyncio.timeout(self._answer_seconds_max):
                return await self._client.send(node, request, group=_connection(lane))
        except (
            NotImplementedError
        ) as error:  # aiokafka raises it where the broker lacks the request's version
            raise LogError(
                f"the broker is too old: {error}", remedy="Kafka 2.8 or newer is needed"
            ) from error
        except (KafkaError, TimeoutError):
            self._node = None
            drop_connection(self._client, node, _connection(lane))
            raise

    def _positions(self, where: str, lane: int, response: Any, code: int) -> dict[int, Committed]:
        if code:
            raise LogError(
                f"{where}: the committed positions can't be read: {error_name(code)}", remedy=remedy(code)
            )
        index = {topic: i for i, topic in enumerate(self._topics)}
        return {
            index[topic]: Committed(offset, metadata or "")
            for topic, offset, metadata in _positions_in(response, lane)
            if topic in index and offset != NO_OFFSET
        }


def _connection(lane: int) -> tuple[str, int]:
    """Return the name of a lane's connection: aiokafka's connection group may be any hashable."""
    return "offsets", lane % CONNECTIONS


def _positions_in(response: Any, lane: int) -> list[tuple[str, int, str | None]]:
    """Return (topic, offset, metadata) of a lane's partitions."""
    return [
        (topic, offset, metadata)
        for topic, partitions, _ in response.topics
        for partition, offset, _, metadata, _, _ in partitions
        if partition == lane
    ]


def _first_error(response: Any) -> int:
    codes = [response.error_code, *(p[4] for _, partitions, _ in response.topics for p in partitions)]
    return next((code for code in codes if code), 0)


def _not_sent(where: str, error: Exception) -> CommitRefused:
    return CommitRefused(
        f"{where}: no connection to the group's coordinator, nothing was sent: {error!r}",
        remedy="look at the brokers: is the group's coordinator up, and reachable under its advertised name?",
    )
