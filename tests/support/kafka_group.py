"""Members of a Kafka group that take each step of joining explicitly, and topics to commit for."""

import asyncio
from collections.abc import Sequence
from typing import Any, Self
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.cluster import BrokerMetadata
from aiokafka.coordinator.protocol import ConsumerProtocolMemberMetadata
from aiokafka.errors import GroupCoordinatorNotAvailableError, for_code
from aiokafka.protocol.admin import DescribeGroupsRequest
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest, SyncGroupRequest

from adledger.pipeline.log.kafka.assignor import LaneAssignor
from adledger.pipeline.log.source import Assignment

SESSION_MS = 30_000
"""Members send no heartbeats between steps, so the session must outlast any test."""
POLL_SECONDS = 0.05

NOT_YET = {14, 15, 16}
"""Loading, not available, not coordinator: a new broker makes its offsets topic when it is asked first."""
MEMBER_ID_REQUIRED = 79


def fresh(name: str) -> str:
    """Return a name that no other test has."""
    return f"{name}-{uuid4().hex[:12]}"


async def make_topics(servers: str, partitions: int, count: int = 2) -> tuple[str, ...]:
    """Make topics of one width; return when the broker knows them, since until then it refuses commits for them."""
    topics = tuple(fresh("topic") for _ in range(count))
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, partitions, 1) for topic in topics])
        while any(found["error_code"] for found in await admin.describe_topics(list(topics))):  # noqa: ASYNC110
            await asyncio.sleep(POLL_SECONDS)
    finally:
        await admin.close()
    return topics


class Member:
    """One member: `join` (which waits for the others), then `sync`, and it has its lanes."""

    def __init__(
        self, client: AIOKafkaClient, group: str, topics: Sequence[str], instance: str | None = None
    ) -> None:
        self.client, self.group, self._instance = client, group, instance
        self._metadata = ConsumerProtocolMemberMetadata(0, list(topics), b"").encode()
        self.member_id, self.generation = "", -1

    async def join(self) -> None:
        """Join the next generation; return when all members have."""
        while True:
            answer = await self._ask(
                JoinGroupRequest(
                    self.group, SESSION_MS, SESSION_MS, self.member_id, self._instance, "consumer",  # type: ignore[arg-type]
                    [("by-order", self._metadata)],
                )
            )  # fmt: skip
            if answer.error_code in NOT_YET:
                await asyncio.sleep(POLL_SECONDS)
                continue
            self.member_id = answer.member_id
            if answer.error_code != MEMBER_ID_REQUIRED:  # else once more, with the id it was given
                assert answer.error_code == 0, for_code(answer.error_code)
                self.generation, self.leads = answer.generation_id, answer.leader_id == answer.member_id
                return

    async def sync(self) -> None:
        """Take the assignment; return when the leader has sent it."""
        assignments = [(self.member_id, b"")] if self.leads else []
        answer = await self._ask(
            SyncGroupRequest(self.group, self.generation, self.member_id, self._instance, assignments)  # type: ignore[arg-type]
        )
        assert answer.error_code == 0, for_code(answer.error_code)

    async def leave(self) -> None:
        """Leave the group."""
        answer = await self._ask(LeaveGroupRequest(self.group, self.member_id))
        assert answer.error_code == 0, for_code(answer.error_code)

    def owns(self, lane: int) -> Assignment:
        """Return what this member is assigned in its current generation."""
        return Assignment(lane, self.generation, self.member_id)

    async def _ask(self, request: Any) -> Any:
        while True:
            try:
                node = await self.client.coordinator_lookup(CoordinationType.GROUP, self.group)
            except (
                GroupCoordinatorNotAvailableError
            ):  # a new broker makes its offsets topic when it is asked first
                await asyncio.sleep(POLL_SECONDS)
            else:
                return await self.client.send(node, request)


async def assemble(*members: Member) -> None:
    """Run one rebalance: all join, all sync. At most one of them is new to the group, and all its other members are here.

    The new one joins first, and the others when the broker awaits them, so that there is one new generation.
    """
    new = [member for member in members if not member.member_id]
    assert len(new) <= 1, "a group without members begins with the first one that comes"
    async with asyncio.TaskGroup() as joining:
        for member in new:
            joining.create_task(member.join())
        if new and len(members) > 1:
            await awaits_members(new[0])
        for member in members:
            if member not in new:
                joining.create_task(member.join())
    async with asyncio.TaskGroup() as syncing:
        for member in members:
            syncing.create_task(member.sync())


async def awaits_members(member: Member) -> None:
    """Return when the broker waits for the members of a group to join again."""
    other = AIOKafkaClient(bootstrap_servers=member.client._bootstrap_servers)
    await other.bootstrap()
    try:
        state = ""
        while state != "PreparingRebalance":
            node = await other.coordinator_lookup(CoordinationType.GROUP, member.group)
            (described,) = (await other.send(node, DescribeGroupsRequest([member.group]))).groups
            state = described[2]
    finally:
        await other.close()


class Consumer(ConsumerRebalanceListener):
    """A stock aiokafka consumer with our assignor, and a queue of its assigned partitions, one entry a rebalance."""

    def __init__(self, servers: str, group: str, topics: Sequence[str], instance: str | None = None) -> None:
        self.assigned: asyncio.Queue[set[TopicPartition]] = asyncio.Queue()
        self.assignor = LaneAssignor(instance)
        self.aiokafka = AIOKafkaConsumer(
            bootstrap_servers=servers,
            group_id=group,
            group_instance_id=instance,
            enable_auto_commit=False,
            heartbeat_interval_ms=200,
            partition_assignment_strategy=[self.assignor],
        )
        self.aiokafka.subscribe(topics, listener=self)

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        await self.assigned.put(assigned)

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Do nothing."""

    async def __aenter__(self) -> Self:
        await self.aiokafka.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aiokafka.stop()


def reach_through(client: AIOKafkaClient, host: str, port: int) -> None:
    """Redirect a client's connections to a proxy, as the broker's advertised listener would."""
    client.cluster.broker_metadata = lambda node: BrokerMetadata(node, host, port, None)
