"""Where a sender's ticks go: a Kafka cluster's topics, or a `files:` log."""

import asyncio
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from adledger.loadtest.runner.ticks import Tick
from adledger.pipeline.addresses import FilesAddress
from adledger.pipeline.log.files.writer import FilesLogWriter
from adledger.pipeline.log.kafka.producer import BatchProducer, batch_producer
from adledger.pipeline.log.kafka_admin.topics import kafka_options
from adledger.pipeline.settings import Settings


@dataclass(frozen=True, slots=True)
class Ack:
    """Records of one partition that the log has, in its order: when they were due, and the log's time (all ms)."""

    topic: int
    partition: int
    count: int
    due_ms: int
    log_time_ms: int


class Outlet(Protocol):
    """Takes ticks in order. Every method may raise LogError; how much of the last tick was written is then unknown."""

    encodes: bool
    """Whether it wants packets; otherwise blocks."""

    async def send(self, tick: Tick, due_ms: int) -> None:
        """Send a tick to the log; waits while too much is unacknowledged."""

    def acks(self) -> list[Ack]:
        """Return what was acknowledged since the last call."""

    async def flush(self) -> None:
        """Wait until all is acknowledged, in bounded time."""


class KafkaOutlet:
    """Sends to topics, idempotent, acknowledged by all in-sync replicas."""

    encodes = True

    def __init__(self, producer: BatchProducer, topics: Sequence[str]) -> None:
        self._producer = producer
        self._topics = topics
        self._due: dict[tuple[str, int], deque[int]] = defaultdict(deque)
        self._acks: list[Ack] = []
        producer.on_written = self._written

    async def send(self, tick: Tick, due_ms: int) -> None:
        """Append all packets, each partition's in order."""
        for packet in tick.packets:
            topic = self._topics[packet.topic]
            self._due[topic, packet.partition].append(due_ms)
            await self._producer.append_encoded(topic, packet.partition, packet.data, packet.count)

    def acks(self) -> list[Ack]:
        """Return what was acknowledged since the last call."""
        acks, self._acks = self._acks, []
        return acks

    async def flush(self) -> None:
        """Wait for all acknowledgements."""
        await self._producer.flush()

    def _written(self, topic: str, partition: int, records: int, log_time_ms: int) -> None:
        due_ms = self._due[topic, partition].popleft()
        at = log_time_ms if log_time_ms >= 0 else now_ms()
        self._acks.append(Ack(self._topics.index(topic), partition, records, due_ms, at))


class FilesOutlet:
    """Appends to a log on the disk; a tick is durable when `send` has returned."""

    encodes = False

    def __init__(self, writer: FilesLogWriter) -> None:
        self._writer = writer
        self._acks: list[Ack] = []

    async def send(self, tick: Tick, due_ms: int) -> None:
        """Append all blocks and flush."""
        await asyncio.to_thread(self._append, tick)
        at = now_ms()
        self._acks += [
            Ack(topic, partition, len(block), due_ms, at) for topic, partition, block in tick.blocks
        ]

    def acks(self) -> list[Ack]:
        """Return what was acknowledged since the last call."""
        acks, self._acks = self._acks, []
        return acks

    async def flush(self) -> None:
        """Do nothing: each tick was flushed."""

    def _append(self, tick: Tick) -> None:
        for topic, partition, block in tick.blocks:
            self._writer.append(topic, partition, block)
        self._writer.flush()


@asynccontextmanager
async def outlet(settings: Settings) -> AsyncIterator[Outlet]:
    """Yield the outlet of these settings' source. Raises LogError."""
    if isinstance(settings.source, FilesAddress):
        with FilesLogWriter(Path(settings.source.directory)) as writer:
            yield FilesOutlet(writer)
        return
    async with batch_producer(kafka_options(settings)) as producer:
        yield KafkaOutlet(producer, settings.topics)


def now_ms() -> int:
    """Return the time, ms since the epoch."""
    return time.time_ns() // 1_000_000
