"""The largest record timestamp of partitions: Kafka's ListOffsets, version 7, the first that returns it.

https://kafka.apache.org/protocol#The_Messages_ListOffsets; aiokafka (to 0.14) lacks that version. Brokers since Kafka
3.0 support it.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from adledger.pipeline.log.kafka_admin.broker_retry import MissingAnswer
from adledger.pipeline.log.kafka_admin.metadata import TopicFacts, topic_facts
from adledger.pipeline.retry import RetryPolicy

NO_TIME = -1
"""The largest timestamp of an empty partition."""

LEADERS_RETRY = RetryPolicy(attempts_max=50, backoff_ms_max=250)

_API_KEY, _VERSION = 2, 7
_MAX_TIMESTAMP = -3
_NO_REPLICA = -1
_NO_EPOCH = -1
_READ_UNCOMMITTED = 0


class _ListOffsetsResponseV7(Response):  # type: ignore[misc] # aiokafka is untyped
    API_KEY = _API_KEY
    API_VERSION = _VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("timestamp", Int64),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _ListOffsetsRequestV7(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = _API_KEY
    API_VERSION = _VERSION
    RESPONSE_TYPE = _ListOffsetsResponseV7
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("isolation_level", Int8),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("leader_epoch", Int32),
                        ("timestamp", Int64),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _LargestTimestamps(Request[_ListOffsetsRequestV7]):  # type: ignore[misc]
    """Request the largest timestamp of each of these partitions from the broker that leads them."""

    API_KEY = _API_KEY

    def __init__(self, partitions: Sequence[tuple[str, int]]) -> None:
        self._topics: dict[str, list[int]] = defaultdict(list)
        for topic, partition in partitions:
            self._topics[topic].append(partition)

    def build(self, request_struct_class: type[Any]) -> Any:
        """Return the request as aiokafka sends it."""
        topics: list[Any] = [
            (topic, [(partition, _NO_EPOCH, _MAX_TIMESTAMP, {}) for partition in partitions], {})
            for topic, partitions in self._topics.items()
        ]
        return request_struct_class(_NO_REPLICA, _READ_UNCOMMITTED, topics, {})


async def largest_log_times(client: AIOKafkaClient, topics: Sequence[TopicFacts]) -> list[int]:
    """Return each lane's largest record timestamp (ms) over all these topics, NO_TIME where it is empty.

    Repeats the request while brokers are still taking over partitions, for example of a new topic. Raises KafkaError.
    """
    lanes = [NO_TIME] * max((topic.partitions for topic in topics), default=0)
    for attempt in LEADERS_RETRY.attempts():
        try:
            for _, partition, time in await _ask(client, topics):
                lanes[partition] = max(lanes[partition], time)
        except errors.KafkaError as error:
            if not error.retriable or attempt.is_last:
                raise
            await LEADERS_RETRY.pause(attempt)
            topics = await topic_facts(client, [topic.name for topic in topics])
        else:
            break
    return lanes


async def _ask(client: AIOKafkaClient, topics: Sequence[TopicFacts]) -> list[tuple[str, int, int]]:
    """Return (topic, partition, largest timestamp) from each partition's leader."""
    by_leader: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for topic in topics:
        for partition, leader in enumerate(topic.leaders):
            by_leader[leader].append((topic.name, partition))
    found = {}
    for leader, partitions in by_leader.items():
        response = await client.send(leader, _LargestTimestamps(partitions))
        for name, in_topic, _ in response.topics:
            for partition, error_code, timestamp, *_rest in in_topic:
                if error_code:
                    raise errors.for_code(error_code)
                found[name, partition] = timestamp
    asked = {at for partitions in by_leader.values() for at in partitions}
    if missing := asked - found.keys():
        raise MissingAnswer(", ".join(f"{name}-{partition}" for name, partition in sorted(missing)))
    return [(name, partition, found[name, partition]) for name, partition in sorted(asked)]
