"""Kafka's Metadata request, version 12: it returns topic ids, and aiokafka (to 0.14) lacks it.

https://kafka.apache.org/protocol#The_Messages_Metadata; versions 9 and up are "flexible": compact arrays and
strings, and tagged fields at each end. Brokers since Kafka 3.1 support it.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import AbstractType as WireType
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Schema,
    TaggedFields,
)

from adledger.pipeline.log.kafka_admin.broker_retry import MissingAnswer

_API_KEY = 3
METADATA_VERSION = 12
_NO_ID = bytes(16)
NO_TOPIC_ID = base64.urlsafe_b64encode(_NO_ID).rstrip(b"=").decode()
"""The id of a topic without one."""
_CREATE_NONE_REPORT_RIGHTS = (False, True)


class Uuid(WireType):  # type: ignore[misc] # aiokafka is untyped
    """16 bytes; in text as Kafka's own tools print it, base64 for URLs without padding."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        """Return the bytes."""
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> str:
        """Return the text."""
        return base64.urlsafe_b64encode(data.read(16)).rstrip(b"=").decode()


def uuid_bytes(text: str) -> bytes:
    """Return the 16 bytes of an id in text."""
    return base64.urlsafe_b64decode(f"{text}==")


class MetadataResponse(Response):  # type: ignore[misc]
    """Brokers, and each topic's id and partitions."""

    API_KEY = _API_KEY
    API_VERSION = METADATA_VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("name", CompactString("utf-8")),
                ("topic_id", Uuid),
                ("is_internal", Boolean),
                (
                    "partitions",
                    CompactArray(
                        ("error_code", Int16),
                        ("partition", Int32),
                        ("leader", Int32),
                        ("leader_epoch", Int32),
                        ("replicas", CompactArray(Int32)),
                        ("isr", CompactArray(Int32)),
                        ("offline_replicas", CompactArray(Int32)),
                        ("tags", TaggedFields),
                    ),
                ),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _MetadataRequestV12(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = _API_KEY
    API_VERSION = METADATA_VERSION
    RESPONSE_TYPE = MetadataResponse
    SCHEMA = Schema(
        (
            "topics",
            CompactArray(("topic_id", Uuid), ("name", CompactString("utf-8")), ("tags", TaggedFields)),
        ),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class MetadataRequest(Request[_MetadataRequestV12]):  # type: ignore[misc]
    """Describe these topics, without creating any of them."""

    API_KEY = _API_KEY

    def __init__(self, topics: Sequence[str]) -> None:
        self._topics = topics

    def build(self, request_struct_class: type[Any]) -> Any:
        """Return the request as aiokafka sends it."""
        return request_struct_class(
            [(_NO_ID, name, {}) for name in self._topics], *_CREATE_NONE_REPORT_RIGHTS, {}
        )


@dataclass(frozen=True, slots=True)
class TopicFacts:
    """A topic as the brokers describe it. `error_code` is Kafka's; where it is 0, id and partitions are set."""

    name: str
    error_code: int
    topic_id: str
    leaders: tuple[int, ...]  # the broker that leads each partition, in partition order; -1 for none
    replication_factor: int
    operations: int  # bits of what this user may do with it, as `rights.Operation` numbers them

    @property
    def partitions(self) -> int:
        """The number of partitions."""
        return len(self.leaders)


async def topic_facts(client: AIOKafkaClient, topics: Sequence[str]) -> list[TopicFacts]:
    """Return the brokers' description of these topics, in order. Raises KafkaError, NotImplementedError (old brokers).

    A partition that the answer leaves out raises MissingAnswer, as a topic does: the leaders are listed by partition.
    """
    response = await client.send(client.get_random_node(), MetadataRequest(topics))
    found = {topic[1]: _facts(*topic) for topic in response.topics}
    if missing := [name for name in topics if name not in found]:
        raise MissingAnswer(f"topic {', '.join(missing)}", response.throttle_time_ms)
    for _, name, _, _, partitions, *_ in response.topics:
        if missing_numbers := set(range(len(partitions))) - {partition[1] for partition in partitions}:
            raise MissingAnswer(
                f"partition {min(missing_numbers)} of topic {name}", response.throttle_time_ms
            )
    return [found[name] for name in topics]


def _facts(
    error_code: int,
    name: str,
    topic_id: str,
    _internal: object,
    partitions: list[Any],
    operations: int,
    *_: object,
) -> TopicFacts:
    ordered = sorted(partitions, key=lambda p: p[1])
    replicas = min((len(p[4]) for p in ordered), default=0)
    return TopicFacts(name, error_code, topic_id, tuple(p[2] for p in ordered), replicas, operations)
