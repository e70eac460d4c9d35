"""Kafka's Fetch request, version 13: the first that names topics by id, which aiokafka (to 0.14) lacks.

https://kafka.apache.org/protocol#The_Messages_Fetch. With names, a worker would not notice that a topic was recreated and
would continue in the new one at the old one's offset. Brokers since Kafka 3.1 support it.
"""

import struct
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactBytes,
    CompactString,
    Int8,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from adledger.pipeline.log.kafka.answer_codes import raise_for_code
from adledger.pipeline.log.kafka.offset_requests import NO_OFFSET
from adledger.pipeline.log.kafka_admin.broker_retry import MissingAnswer
from adledger.pipeline.log.kafka_admin.metadata import Uuid, uuid_bytes
from adledger.pipeline.log.leader_epochs import NO_EPOCH

_API_KEY = 1
_VERSION = 13
_CONSUMER = -1
"""The replica id of a client."""
_NO_SESSION, _WHOLE_FETCH = 0, -1
_NO_RACK = ""
_DIVERGING_EPOCH_TAG = 0
_EPOCH_END = struct.Struct(">iq")


@dataclass(frozen=True, slots=True)
class Position:
    """Where to fetch from, and the leader epoch of the batch that was fetched before it (`NO_EPOCH`: unknown).

    From the epoch the broker tells where its log diverges from the one that was read: KIP-320, KIP-595.
    """

    offset: int
    epoch: int = NO_EPOCH


@dataclass(frozen=True, slots=True)
class FetchedPartition:
    """A broker's answer for one partition. `end` is the last stable offset; `aborted` (producer id, first offset).

    `diverges_at`: the offset from which the log differs from what was read before; None: it does not.
    """

    topic_id: str
    error_code: int
    end: int
    aborted: Collection[tuple[int, int]]
    data: bytes
    diverges_at: int | None = None


class FetchResponse(Response):  # type: ignore[misc] # aiokafka is untyped
    """For each partition: error, high watermark, last stable offset, aborted transactions, records as bytes."""

    API_KEY = _API_KEY
    API_VERSION = _VERSION
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        ("error_code", Int16),
        ("session_id", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("error_code", Int16),
                        ("high_watermark", Int64),
                        ("last_stable_offset", Int64),
                        ("log_start_offset", Int64),
                        (
                            "aborted_transactions",
                            CompactArray(
                                ("producer_id", Int64), ("first_offset", Int64), ("tags", TaggedFields)
                            ),
                        ),
                        ("preferred_read_replica", Int32),
                        ("records", CompactBytes),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _FetchRequestV13(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = _API_KEY
    API_VERSION = _VERSION
    RESPONSE_TYPE = FetchResponse
    SCHEMA = Schema(
        ("replica_id", Int32),
        ("max_wait_ms", Int32),
        ("min_bytes", Int32),
        ("max_bytes", Int32),
        ("isolation_level", Int8),
        ("session_id", Int32),
        ("session_epoch", Int32),
        (
            "topics",
            CompactArray(
                ("topic_id", Uuid),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("current_leader_epoch", Int32),
                        ("fetch_offset", Int64),
                        ("last_fetched_epoch", Int32),
                        ("log_start_offset", Int64),
                        ("partition_max_bytes", Int32),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        (
            "forgotten_topics",
            CompactArray(("topic_id", Uuid), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)),
        ),
        ("rack_id", CompactString("utf-8")),
        ("tags", TaggedFields),
    )


class FetchById(Request[_FetchRequestV13]):  # type: ignore[misc]
    """Fetch one partition number of topics (id -> Position), at most `bytes_max` of each topic."""

    API_KEY = _API_KEY

    def __init__(
        self,
        partition: int,
        positions: Mapping[str, Position],
        *,
        bytes_max: int,
        wait_ms: int,
        isolation_level: int,
    ) -> None:
        self._partition, self._positions = partition, positions
        self._bytes_max, self._wait_ms, self._isolation_level = bytes_max, wait_ms, isolation_level

    def build(self, request_struct_class: type[Any]) -> Any:
        """Return the request as aiokafka sends it."""
        topics: list[tuple[Any, ...]] = [
            (uuid_bytes(topic), [self._one(position)], {}) for topic, position in self._positions.items()
        ]
        return request_struct_class(
            _CONSUMER, self._wait_ms, 1, self._bytes_max * len(topics), self._isolation_level,
            _NO_SESSION, _WHOLE_FETCH, topics, [], _NO_RACK, {},
        )  # fmt: skip

    def _one(self, position: Position) -> tuple[Any, ...]:
        return (self._partition, NO_EPOCH, position.offset, position.epoch, -1, self._bytes_max, {})


def partitions(response: Any, partition: int, topic_ids: Collection[str]) -> list[FetchedPartition]:
    """Return the answer for each of these topics, in their order.

    Raises MissingAnswer, and as `raise_for_code` does for an error of the request as a whole, which names no topics.
    """
    raise_for_code(response.error_code, f"fetching partition {partition}", NO_OFFSET)
    answers = {
        topic_id: FetchedPartition(
            topic_id,
            error,
            high if stable < 0 else stable,
            [(p, f) for p, f, _ in aborted or ()],
            records or b"",
            _diverges_at(tags),
        )
        for topic_id, in_topic, _ in response.topics
        for number, error, high, stable, _, aborted, _, records, tags in in_topic
        if number == partition
    }
    if missing := [topic_id for topic_id in topic_ids if topic_id not in answers]:
        raise MissingAnswer(f"partition {partition} of topic {', '.join(missing)}", response.throttle_time_ms)
    return [answers[topic_id] for topic_id in topic_ids]


def _diverges_at(tags: Mapping[int, bytes]) -> int | None:
    """Return the end of the last common epoch, from the tagged field DivergingEpoch (epoch i32, end offset i64)."""
    field = tags.get(_DIVERGING_EPOCH_TAG)
    return None if field is None else int(_EPOCH_END.unpack_from(field)[1])
