"""A group as its coordinator tells it to whoever asks: its members, what they say of themselves, and their lanes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError, for_code
from aiokafka.protocol.admin import DescribeGroupsRequest

from adledger.pipeline.log.kafka.assignor import TELLS_NOTHING, About, told_about
from adledger.pipeline.log.kafka.commits import NOT_READY

COORDINATOR_TRIES_MAX, COORDINATOR_RETRY_SECONDS = 50, 0.2


@dataclass(frozen=True, slots=True)
class Member:
    """One member: what it calls itself, from where, its lanes (partitions of any topic), and what it tells of itself."""

    client_id: str
    host: str
    lanes: tuple[int, ...]
    about: About = TELLS_NOTHING


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A group as its coordinator tells it. `protocol` is the assignor's name."""

    name: str
    state: str
    protocol_type: str
    protocol: str
    members: Sequence[Member]


async def describe_group(client: AIOKafkaClient, group: str) -> GroupFacts:
    """Ask the group's coordinator. One that nobody was ever in is in state Dead. Raises KafkaError.

    Brokers that just started, or never had a group, are asked again while they make ready.
    """
    for attempt in range(1, COORDINATOR_TRIES_MAX + 1):
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            response = await client.send(node, DescribeGroupsRequest([group]))
        except KafkaError as error:
            if not error.retriable or attempt == COORDINATOR_TRIES_MAX:
                raise
        else:
            if response.groups[0][0] not in NOT_READY:
                break
        await asyncio.sleep(COORDINATOR_RETRY_SECONDS)
    [(error_code, name, state, protocol_type, protocol, members, *_)] = response.groups
    if error_code:
        raise for_code(error_code)(f"group {group}")
    return GroupFacts(
        name,
        state,
        protocol_type,
        protocol,
        [Member(m[1], m[2], _lanes(m[4]), _about(m[3])) for m in members],
    )


def _lanes(assignment: bytes) -> tuple[int, ...]:
    """Return the partitions of any topic that a member of a `consumer` group has; other groups' say nothing."""
    try:
        decoded: Any = ConsumerProtocolMemberAssignment.decode(assignment)
    except (ValueError, IndexError, TypeError):
        return ()
    return tuple(sorted({lane for _, lanes in decoded.assignment for lane in lanes}))


def _about(subscription: bytes) -> About:
    """Return what a member tells of itself; of another program or release, nothing."""
    try:
        decoded: Any = ConsumerProtocolMemberMetadata.decode(subscription)
    except (ValueError, IndexError, TypeError):
        return TELLS_NOTHING
    return told_about(decoded.user_data)
