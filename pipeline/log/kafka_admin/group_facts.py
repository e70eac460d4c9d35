"""A group as its coordinator tells it to whoever asks: its members, what they say of themselves, and their lanes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import DescribeGroupsRequest

from adledger.pipeline.log.kafka_admin.worker_info import NO_INFO, WorkerInfo, decode_worker_info
from adledger.pipeline.retry import RetryPolicy

NOT_READY = frozenset({14, 15, 16})
"""A coordinator's answers before it serves the group: loading, not available, not coordinator."""

COORDINATOR_RETRY = RetryPolicy(attempts_max=50, backoff_ms_max=250)


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member: what it calls itself, from where, its lanes (partitions of any topic), and what it tells of itself."""

    client_id: str
    host: str
    lanes: tuple[int, ...]
    info: WorkerInfo = NO_INFO


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A group as its coordinator tells it. `protocol` is the assignor's name."""

    name: str
    state: str
    protocol_type: str
    protocol: str
    members: Sequence[GroupMember]


async def describe_group(client: AIOKafkaClient, group: str) -> GroupFacts:
    """Ask the group's coordinator. One that nobody was ever in is in state Dead. Raises KafkaError.

    Brokers that just started, or never had a group, are asked again while they make ready.
    """
    for attempt in COORDINATOR_RETRY.attempts():
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            response = await client.send(node, DescribeGroupsRequest([group]))
        except KafkaError as error:
            if not error.retriable or attempt.is_last:
                raise
        else:
            if response.groups[0][0] not in NOT_READY:
                break
        await COORDINATOR_RETRY.pause(attempt)
    [(error_code, name, state, protocol_type, protocol, members, *_)] = response.groups
    if error_code:
        raise for_code(error_code)(f"group {group}")
    return GroupFacts(
        name,
        state,
        protocol_type,
        protocol,
        [GroupMember(m[1], m[2], _lanes(m[4]), _info(m[3])) for m in members],
    )


def _lanes(assignment: bytes) -> tuple[int, ...]:
    """Return the partitions of any topic that a member of a `consumer` group has; other groups' say nothing."""
    try:
        decoded: Any = ConsumerProtocolMemberAssignment.decode(assignment)
    except (ValueError, IndexError, TypeError):
        return ()
    return tuple(sorted({lane for _, lanes in decoded.assignment for lane in lanes}))


def _info(subscription: bytes) -> WorkerInfo:
    """Return what a member tells of itself; of another program or release, nothing."""
    try:
        decoded: Any = ConsumerProtocolMemberMetadata.decode(subscription)
    except (ValueError, IndexError, TypeError):
        return NO_INFO
    return decode_worker_info(decoded.user_data)
