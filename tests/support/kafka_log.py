"""A log on a real broker: topics of its own, written with aiokafka's producer."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient

from adledger.loadtest.lab.broker import LocalBroker
from adledger.pipeline.log.kafka.batches import LogTime
from adledger.pipeline.log.kafka.source import KafkaSource
from adledger.pipeline.log.kafka_admin.metadata import topic_facts
from adledger.pipeline.log.record_block import Record
from adledger.pipeline.retry import RetryPolicy
from tests.support.kafka_cluster import LocalCluster

PARTITIONS = 4
LOOK_SECONDS = 0.02
KEPT = {"retention.ms": "-1"}
"""Records may have times that are long past: a broker removes these half a minute after its start."""


def quiet(_: str) -> None:
    """Say nothing."""


@dataclass(slots=True)
class KafkaLog:
    """Two topics with record times by default, and one group."""

    broker: LocalBroker | LocalCluster
    log_time: LogTime = "record"
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    keeps_record_times: bool = True
    partitions: int = PARTITIONS
    replicas: int = 1

    @property
    def topics(self) -> tuple[str, str]:
        return f"{self.name}-impressions", f"{self.name}-clicks"

    async def make(self, **configs: str) -> "KafkaLog":
        """Make the topics; the arguments are settings, with _ for a dot."""
        settings = {"message.timestamp.type": "CreateTime", **KEPT}
        settings |= {name.replace("_", "."): value for name, value in configs.items()}
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.servers)
        await admin.start()
        try:
            await admin.create_topics(
                [
                    NewTopic(topic, self.partitions, self.replicas, topic_configs=settings)
                    for topic in self.topics
                ]
            )
        finally:
            await admin.close()
        await self._until_there()
        return self

    async def make_on(self, node: int) -> "KafkaLog":
        """Make the topics with their only copy on one broker."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.broker.servers)
        await admin.start()
        try:
            copies = {p: [node] for p in range(self.partitions)}
            await admin.create_topics(
                [
                    NewTopic(topic, -1, -1, replica_assignments=copies, topic_configs=KEPT)
                    for topic in self.topics
                ]
            )
        finally:
            await admin.close()
        await self._until_there()
        return self

    async def _until_there(self) -> None:
        """Wait until the broker reports the topics, each partition with a leader."""
        client = AIOKafkaClient(bootstrap_servers=self.broker.servers)
        await client.bootstrap()
        try:
            while any(t.error_code or -1 in t.leaders for t in await topic_facts(client, self.topics)):  # noqa: ASYNC110 - Kafka tells nobody
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await client.close()

    @asynccontextmanager
    async def producer(self, **options: object) -> AsyncIterator[AIOKafkaProducer]:
        """Yield a producer."""
        producer = AIOKafkaProducer(bootstrap_servers=self.broker.servers, **options)
        await producer.start()
        try:
            yield producer
        finally:
            await producer.stop()

    async def append(self, topic: int, partition: int, records: Sequence[Record]) -> None:
        """Append records as batches of their own."""
        async with self.producer() as producer:
            await self.send(producer, topic, partition, records)

    async def send(
        self, producer: AIOKafkaProducer, topic: int, partition: int, records: Sequence[Record]
    ) -> None:
        """Append records through a producer, which may be in a transaction."""
        rest = list(records)
        while rest:
            batch = producer.create_batch()
            while rest and batch.append(timestamp=rest[0][0], key=rest[0][1], value=rest[0][2]) is not None:
                del rest[0]
            await (await producer.send_batch(batch, self.topics[topic], partition=partition))

    def member(
        self, say: Callable[[str], None] = quiet, *, retry_attempts_max: int = 10, **properties: str
    ) -> KafkaSource:
        """Return a source that has not joined; `properties` are Kafka's, with _ for a dot."""
        return KafkaSource(
            self.broker.servers.split(","), self.topics, f"{self.name}-group",
            properties={name.replace("_", "."): value for name, value in properties.items()},
            log_time=self.log_time, revoke_ms_max=5_000, retry=RetryPolicy(retry_attempts_max, backoff_ms_max=1_000),
            say=say,
        )  # fmt: skip
