"""A group as its coordinator describes it: its members, what they publish, and their lanes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, for_code
from aiokafka.protocol.admin import DescribeGroupsResponse_v3
from aiokafka.protocol.api import Request, RequestStruct
from aiokafka.protocol.types import Array, Boolean, Schema, String

from adledger.pipeline.log.kafka_admin.broker_retry import MissingAnswer
from adledger.pipeline.log.kafka_admin.worker_info import NO_INFO, WorkerInfo, decode_worker_info
from adledger.pipeline.retry import RetryPolicy

NOT_READY = frozenset({14, 15, 16})
"""A coordinator's error codes before it serves the group: loading, not available, not coordinator."""

COORDINATOR_RETRY = RetryPolicy(attempts_max=50, backoff_ms_max=250)


class _DescribeGroupsRequestV3(RequestStruct):  # type: ignore[misc] # aiokafka is untyped
    API_KEY = 15
    API_VERSION = 3
    RESPONSE_TYPE = DescribeGroupsResponse_v3
    SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_authorized_operations", Boolean))


class DescribeGroup(Request[_DescribeGroupsRequestV3]):  # type: ignore[misc]
    """Describe a group and what this user may do with it. aiokafka's own request parses the answer as an older version."""

    API_KEY = 15

    def __init__(self, group: str) -> None:
        self._group = group

    def build(self, request_struct_class: type[Any]) -> Any:
        """Return the request as aiokafka sends it."""
        return request_struct_class([self._group], True)  # noqa: FBT003 - on the wire


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One member: its ids, its host, its lanes (partitions of any topic), and what it publishes."""

    client_id: str
    host: str
    lanes: tuple[int, ...]
    info: WorkerInfo = NO_INFO


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """A group as its coordinator describes it. `protocol` is the assignor's name."""

    name: str
    state: str
    protocol_type: str
    protocol: str
    members: Sequence[GroupMember]
    operations: int = 0  # bits of what this user may do with it, as `rights.Operation` numbers them


async def describe_group(client: AIOKafkaClient, group: str) -> GroupFacts:
    """Return what the group's coordinator knows. A group that never had members is in state Dead. Raises KafkaError.

    Repeats the request while brokers get ready: after a start, or before their first group.
    """
    for attempt in COORDINATOR_RETRY.attempts():
        try:
            node = await client.coordinator_lookup(CoordinationType.GROUP, group)
            found = _described(await client.send(node, DescribeGroup(group)), group)
        except KafkaError as error:
            if not error.retriable or attempt.is_last:
                raise
        else:
            if found[0] not in NOT_READY:
                break
        await COORDINATOR_RETRY.pause(attempt)
    error_code, name, state, protocol_type, protocol, members, operations = found
    if error_code:
        raise for_code(error_code)(f"group {group}")
    return GroupFacts(
        name,
        state,
        protocol_type,
        protocol,
        [GroupMember(m[1], m[2], _lanes(m[4]), _info(m[3])) for m in members],
        operations,
    )


def _described(response: Any, group: str) -> tuple[Any, ...]:
    """Return a group's fields. Raises MissingAnswer."""
    fields = next((fields for fields in response.groups if fields[1] == group), None)
    if fields is None:
        raise MissingAnswer(f"group {group}", response.throttle_time_ms)
    return tuple(fields)


async def group_operations(client: AIOKafkaClient, group: str) -> int:
    """Return what this user may do with a group, as bits; 0 where it may not even see it. Raises KafkaError."""
    try:
        return (await describe_group(client, group)).operations
    except GroupAuthorizationFailedError:
        return 0


def _lanes(assignment: bytes) -> tuple[int, ...]:
    """Return the partitions, of any topic, of a member of a `consumer` group; none for other groups."""
    try:
        decoded: Any = ConsumerProtocolMemberAssignment.decode(assignment)
    except (ValueError, IndexError, TypeError):
        return ()
    return tuple(sorted({lane for _, lanes in decoded.assignment for lane in lanes}))


def _info(subscription: bytes) -> WorkerInfo:
    """Return what a member publishes; NO_INFO for another program or release."""
    try:
        decoded: Any = ConsumerProtocolMemberMetadata.decode(subscription)
    except (ValueError, IndexError, TypeError):
        return NO_INFO
    return decode_worker_info(decoded.user_data)
