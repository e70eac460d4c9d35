"""Every use of aiokafka's private parts, isolated in this module.

aiokafka keeps the connections (with TLS, SASL, metadata, negotiated versions) and the group. Fetching is our own:
aiokafka's Fetcher sends each broker one request at a time for all partitions, so an idle lane's long poll delays the
others, and it reads ahead. Here each lane has its own connection to each broker, through a `ConnectionGroup` number of
its own, and fetches exactly what it requests. AIOKafkaConsumer is not used either: a `GroupCoordinator` and a
`SubscriptionState` suffice, combined as AIOKafkaConsumer combines them.

Proved on the versions of `PROVED_ON`; tests/unit/test_aiokafka_private.py fails when another one is installed, or
when a private part has changed its signature.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import ExitStack, suppress
from typing import Any

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.client import AIOKafkaClient, ConnectionGroup, CoordinationType
from aiokafka.conn import CloseReason
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import KafkaError, MemberIdRequired, UnknownMemberIdError
from aiokafka.protocol.group import JoinGroupRequest, LeaveGroupRequest
from aiokafka.protocol.offset import OffsetRequest
from aiokafka.structs import TopicPartition

from adledger.pipeline.log.kafka.fetch_requests import FetchById, FetchedPartition, Position, partitions
from adledger.pipeline.log.kafka_admin.broker_retry import MissingAnswer
from adledger.pipeline.log.kafka_admin.group_facts import NOT_READY

PROVED_ON = ("0.14.0",)

READ_COMMITTED = 1
LATEST, EARLIEST = -1, -2
_HAS_ENTERED = frozenset({0, MemberIdRequired.errno})
_IS_OUT = frozenset({0, UnknownMemberIdError.errno})
_LEAVE_RETRY_SECONDS = 0.1
_CONSUMER = -1
"""The replica id of a client."""
_FIRST_LANE_CONNECTION = max(ConnectionGroup) + 1


async def send_fetch(
    client: AIOKafkaClient,
    node: int,
    lane: int,
    positions: Mapping[str, Position],
    bytes_max: int,
    wait_ms: int,
) -> list[FetchedPartition]:
    """Fetch partition `lane` of topics (id -> position) from one broker, at most `bytes_max` of each.

    Raises KafkaError, LogError.
    """
    request = FetchById(lane, positions, bytes_max=bytes_max, wait_ms=wait_ms, isolation_level=READ_COMMITTED)
    response = await client.send(node, request, group=_FIRST_LANE_CONNECTION + lane)
    return partitions(response, lane, positions)


async def send_list_offsets(
    client: AIOKafkaClient, node: int, lane: int, topics: Collection[str], which: int
) -> dict[str, tuple[int, int]]:
    """Return (error code, `EARLIEST` or `LATEST` stable offset) of each topic from one broker. Raises KafkaError."""
    request = OffsetRequest(_CONSUMER, READ_COMMITTED, [(topic, [(lane, which)]) for topic in topics])
    response = await client.send(node, request)
    found = {
        topic: (error_code, offset)
        for topic, in_topic in response.topics
        for partition, error_code, _, offset, *_ in in_topic
        if partition == lane
    }
    if missing := set(topics) - found.keys():
        raise MissingAnswer(f"the offsets of {', '.join(sorted(missing))}, partition {lane}")
    return found


def leader(client: AIOKafkaClient, topic: str, lane: int) -> int | None:
    """Return the broker that leads a partition, as far as the client knows."""
    node = client.cluster.leader_for_partition(TopicPartition(topic, lane))
    return None if node in (None, -1) else int(node)


def drop_connection(client: AIOKafkaClient, node: int, group: object) -> None:
    """Close a connection, if it exists: nothing sent after an unanswered request would be answered either."""
    connection = client._conns.get((node, group))  # noqa: SLF001
    if connection is not None:
        connection.close(reason=CloseReason.CONNECTION_TIMEOUT)


async def refresh_metadata(client: AIOKafkaClient) -> None:
    """Refresh the partitions' leaders from the brokers."""
    await client.force_metadata_update()


async def leave_group(client: AIOKafkaClient, group: str, member_id: str, seconds_max: float) -> bool:
    """Remove a member from its group, through the current coordinator. Returns whether it is known to be out.

    aiokafka sends LeaveGroup once, to the last coordinator it knew, and ignores the answer: after the coordinator has
    moved, the old member stays until its session ends and delays every rebalance until then.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds_max):
            while True:
                try:
                    node = await client.coordinator_lookup(CoordinationType.GROUP, group)
                    # Not on the new member's connection, where its JoinGroup may wait for the old member to leave.
                    response = await client.send(node, LeaveGroupRequest(group, member_id))
                except KafkaError as error:
                    if not error.retriable:
                        return False
                    await client.force_metadata_update()
                else:
                    if response.error_code not in NOT_READY:
                        return response.error_code in _IS_OUT
                await asyncio.sleep(_LEAVE_RETRY_SECONDS)
    return False


class _Coordinator(GroupCoordinator):  # type: ignore[misc]
    """aiokafka's coordinator, but `leave_group` does the leaving, and `entered` is set once the group knows the member."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.entered = asyncio.Event()
        super().__init__(*args, **options)

    async def _send_req(self, request: Any) -> Any:
        response = await super()._send_req(request)
        if isinstance(request, JoinGroupRequest) and response.error_code in _HAS_ENTERED:
            self.entered.set()
        return response

    async def _maybe_leave_group(self) -> None:
        self.reset_generation()


class Member(ConsumerRebalanceListener):  # type: ignore[misc] # aiokafka has no types
    """One member of a group, from its first join until it leaves. A new member id needs a new Member.

    `revoked(lanes)` is awaited before each rejoin, while heartbeats continue; `assigned(lanes)` after it, and must be
    quick, since heartbeats wait for it; `failed(error)` is called once, on an error that membership does not survive.
    """

    def __init__(
        self,
        client: AIOKafkaClient,
        group: str,
        topics: Collection[str],
        assignor: Any,
        options: Mapping[str, Any],
        *,
        assigned: Callable[[list[int]], Awaitable[None]],
        revoked: Callable[[list[int]], Awaitable[None]],
        failed: Callable[[BaseException], None],
    ) -> None:
        """Begin to join. `options` are GroupCoordinator's timeouts and static membership."""
        self._assigned, self._revoked, self._failed = assigned, revoked, failed
        subscription = SubscriptionState()
        self._open = ExitStack()
        # The coordinator leaves the group after max.poll.interval.ms without a poll. A worker whose lanes wait for
        # ClickHouse does not poll but must stay a member, so aiokafka sees one fetch that never ends.
        self._open.enter_context(subscription.fetch_context())
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._failure.add_done_callback(self._on_failure)
        subscription.register_fetch_waiters({self._failure})
        subscription.subscribe(topics=set(topics), listener=self)
        self._coordinator = _Coordinator(
            client, subscription, group_id=group, assignors=(assignor,), enable_auto_commit=False, **options
        )

    @property
    def generation(self) -> int:
        """The current generation; below 0 outside the group."""
        return int(self._coordinator.generation)

    @property
    def member_id(self) -> str:
        """The current member id; "" outside the group."""
        return str(self._coordinator.member_id)

    @property
    def stays(self) -> bool:
        """Whether the group keeps this member's place while it is away (it is static)."""
        return self._coordinator._group_instance_id is not None  # noqa: SLF001

    async def entered(self) -> None:
        """Return when the group knows this member, which then has a member id."""
        await self._coordinator.entered.wait()

    async def close(self) -> None:
        """End all tasks. The group keeps the member until `leave_group`, or until its session ends."""
        self._failure.remove_done_callback(self._on_failure)
        self._failure.cancel()
        try:
            await self._coordinator.close()
        except KafkaError:
            pass  # it was reported already, or no longer matters: the member is gone either way
        finally:
            self._coordinator._cluster.remove_listener(self._coordinator._handle_metadata_update)  # noqa: SLF001
            self._open.close()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Aiokafka's hook."""
        await self._revoked(sorted({tp.partition for tp in revoked}))

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Aiokafka's hook."""
        await self._assigned(sorted({tp.partition for tp in assigned}))

    def _on_failure(self, failure: "asyncio.Future[None]") -> None:
        if not failure.cancelled() and (error := failure.exception()) is not None:
            self._failed(error)
