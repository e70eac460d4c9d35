"""OffsetCommit and OffsetFetch, each in a version that Kafka 2.8 to 4.x all support and that has the fields we need.

aiokafka 0.14 stops at version 3: too early for static members' ids (OffsetCommit 7) and stable offsets (OffsetFetch 7).
Kafka 4.0 removed OffsetCommit 0-1 and OffsetFetch 0; topics by id came after 4.0, in version 10.
"""

from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Array,
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    String,
    TaggedFields,
)

OFFSET_COMMIT = 8
OFFSET_FETCH = 9

NO_LEADER_EPOCH = -1
NO_OFFSET = -1

Positions = list[tuple[str, list[tuple[int, int, int, str]]]]
"""Topic, then partition, offset, leader epoch, metadata."""


class OffsetCommitResponseV7(Response):  # type: ignore[misc]  # aiokafka has no types
    """Throttle time (ms); for each partition an error code, 0 for accepted."""

    API_KEY = OFFSET_COMMIT
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                ("partitions", Array(("partition", Int32), ("error_code", Int16))),
            ),
        ),
    )


class OffsetCommitRequestV7(RequestStruct):  # type: ignore[misc]
    """A group's positions, committed by one member in one generation."""

    API_KEY = OFFSET_COMMIT
    API_VERSION = 7
    RESPONSE_TYPE = OffsetCommitResponseV7
    SCHEMA = Schema(
        ("group_id", String("utf-8")),
        ("generation_id", Int32),
        ("member_id", String("utf-8")),
        ("group_instance_id", String("utf-8")),
        (
            "topics",
            Array(
                ("topic", String("utf-8")),
                (
                    "partitions",
                    Array(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", String("utf-8")),
                    ),
                ),
            ),
        ),
    )


class OffsetCommit(Request[OffsetCommitRequestV7]):  # type: ignore[misc]
    """Commit positions; `instance` is the static member's id or None."""

    API_KEY = OFFSET_COMMIT

    def __init__(
        self, group: str, generation: int, member_id: str, instance: str | None, positions: Positions
    ) -> None:
        self._fields = (group, generation, member_id, instance, positions)

    def build(self, request_struct_class: type[OffsetCommitRequestV7]) -> OffsetCommitRequestV7:
        """Return the request as it goes on the wire."""
        return request_struct_class(*self._fields)


class OffsetFetchResponseV7(Response):  # type: ignore[misc]
    """For each partition an offset (-1: none), metadata and an error code; one error code for the group."""

    API_KEY = OFFSET_FETCH
    API_VERSION = 7
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
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class OffsetFetchRequestV7(RequestStruct):  # type: ignore[misc]
    """Request a group's positions in the named partitions."""

    FLEXIBLE_VERSION = True
    API_KEY = OFFSET_FETCH
    API_VERSION = 7
    RESPONSE_TYPE = OffsetFetchResponseV7
    SCHEMA = Schema(
        ("group_id", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                ("partitions", CompactArray(Int32)),
                ("tags", TaggedFields),
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class OffsetFetch(Request[OffsetFetchRequestV7]):  # type: ignore[misc]
    """Fetch one partition number's positions in all topics; refused by the broker while a commit is pending."""

    API_KEY = OFFSET_FETCH

    def __init__(self, group: str, topics: tuple[str, ...], partition: int) -> None:
        self._group, self._topics, self._partition = group, topics, partition

    def build(self, request_struct_class: type[OffsetFetchRequestV7]) -> OffsetFetchRequestV7:
        """Return the request as it goes on the wire."""
        topics: list[tuple[str, list[int], dict[int, bytes]]] = [
            (topic, [self._partition], {}) for topic in self._topics
        ]
        return request_struct_class(group_id=self._group, topics=topics, require_stable=True, tags={})
