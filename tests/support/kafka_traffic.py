"""Generated traffic on Kafka, with its ground truth."""

import asyncio
from collections.abc import Iterable

from aiokafka import AIOKafkaProducer

from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.ground_truth import GroundTruth, GroundTruthBuilder
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.log.kafka.writer import KafkaLogWriter
from adledger.pipeline.settings import Settings
from adledger.pipeline.stages.plain_hashes import partition_of
from tests.support.records import Stored


def write_traffic_to_kafka(model: TrafficModel, settings: Settings) -> GroundTruth:
    """Write the model's records to the settings' topics (log_time = record: they carry the model's log times)."""
    assert settings.log_time == "record"
    ground_truth = GroundTruthBuilder(model)
    with KafkaLogWriter(settings) as writer:
        for chunk in Generator(model).chunks():
            for topic, partition, block in chunk.blocks:
                writer.append(topic, partition, block)
            ground_truth.add(chunk.rows)
        writer.flush()
    return ground_truth.build()


def send_records(settings: Settings, records: Iterable[tuple[int, Stored]], partitions: int) -> None:
    """Send (topic, record) in the order of their times, each to the partition of its key."""

    async def run() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=settings.source.servers)  # type: ignore[union-attr]
        await producer.start()
        try:
            for topic, (_, time, key, value) in sorted(records, key=lambda record: record[1][1]):
                place = partition_of(key, partitions) if key else 0
                await producer.send(settings.topics[topic], value, key, partition=place, timestamp_ms=time)
        finally:
            await producer.stop()

    asyncio.run(run())
