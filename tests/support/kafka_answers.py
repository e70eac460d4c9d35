"""A cluster of one broker that answers a reader's requests as a test says, and pauses that take no time."""

import struct
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from adledger.pipeline.log.kafka.fetch_requests import FetchById, FetchResponse
from adledger.pipeline.log.kafka.reader import KafkaReader
from adledger.pipeline.log.kafka_admin.broker_retry import BrokerRetry
from adledger.pipeline.log.kafka_admin.metadata import MetadataRequest
from adledger.pipeline.log.source import Topology
from adledger.pipeline.retry import RetryPolicy
from tests.support.crafted import record, wrapped

LANE, NODE = 1, 7
CLICKS = "AAAAAAAAAAAAAAAAAAAAAQ"
TOPOLOGY = Topology(("ad.clicks",), (2,), (CLICKS,), 2)
BATCH = wrapped(record(0, b"k", b"v"), 1, 0)
USUAL_PAUSE_SECONDS = 0.2


def at(offset: int) -> bytes:
    """Return a batch of one record at an offset; no checksum covers it."""
    return struct.pack(">q", offset) + BATCH[8:]


def fetched(data: bytes = BATCH, *, code: int = 0, end: int = 1, partition: int = LANE) -> FetchResponse:
    return FetchResponse(
        0, 0, 0, [(CLICKS, [(partition, code, end, end, 0, [], -1, data, {})], {})], {}
    )  # fmt: skip


def empty(*, throttle_ms: int = 0, code: int = 0) -> FetchResponse:
    """As a broker answers under a quota, or where it fails as a whole."""
    return FetchResponse(throttle_ms, code, 0, [], {})


def offsets(*answers: tuple[int, int]) -> SimpleNamespace:
    """An answer to ListOffsets of (error code, offset)."""
    return SimpleNamespace(
        topics=[("ad.clicks", [(LANE, code, -1, o) for code, o in answers])] if answers else []
    )


METADATA = SimpleNamespace(
    throttle_time_ms=0,
    topics=[
        (0, "ad.clicks", CLICKS, False, [(0, p, NODE, 0, [NODE], [NODE], [], {}) for p in range(2)], 0, {})
    ],
)


class Broker:
    """The only broker of a cluster, as a client: it answers fetches, offsets and the rest in a given order."""

    def __init__(self, fetches: Sequence[Any] = (), others: Sequence[Any] = ()) -> None:
        self.fetches, self.others = list(fetches), list(others)
        self.cluster = SimpleNamespace(leader_for_partition=lambda _: NODE)

    async def send(self, node: int, request: object, *, group: object = 0) -> Any:
        assert node == NODE
        if isinstance(request, MetadataRequest) and not self.others:
            return METADATA
        return (self.fetches if isinstance(request, FetchById) else self.others).pop(0)

    async def ready(self, node: int, *, group: object) -> bool:
        return node == NODE

    async def coordinator_lookup(self, kind: object, group: str) -> int:
        return NODE

    async def force_metadata_update(self) -> bool:
        return True

    def get_random_node(self) -> int:
        return NODE


class Pauses:
    """A policy whose pauses take no time; `seconds` are what they were, `said` what was logged of each attempt."""

    def __init__(self, attempts_max: int = 4) -> None:
        self.seconds, self.said = list[float](), list[str]()
        ms = round(USUAL_PAUSE_SECONDS * 2000)
        policy = RetryPolicy(attempts_max, ms, ms, draw=lambda: 0.0, sleep=self._sleep)
        self.retry = BrokerRetry("k1:9092", policy, self.said.append)

    async def _sleep(self, seconds: float) -> None:
        self.seconds.append(seconds)


def reader(broker: Broker, pauses: Pauses) -> KafkaReader:
    return KafkaReader(broker, TOPOLOGY, "record", pauses.retry)


async def read(broker: Broker, pauses: Pauses, position: int = 0) -> int:
    """Return the offset after what a lane reads."""
    [found] = await reader(broker, pauses).fetch(LANE, {0: position}, 1 << 20, 0)
    return found.next_offset
