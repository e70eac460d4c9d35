"""What writing encoded batches to a real broker costs the writer. Target: 500,000 events a CPU-second."""

import time
from uuid import uuid4

import pytest

from adledger.pipeline.log.kafka.producer import batch_producer
from adledger.pipeline.log.kafka_admin.properties import client_options
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.pipeline.log.record_block import RecordBlock, encode_batches
from adledger.pipeline.settings import Settings

RECORDS = 40_000
ROUNDS = 25
PARTITIONS = 16

pytestmark = pytest.mark.benchmark


async def test_encoded_batches(kafka):
    """Events of 400 bytes in batches of 256 KiB, all partitions in turn, acknowledged by the broker."""
    mine = uuid4().hex[:8]
    settings = Settings(source=f"kafka://{kafka.servers}", topics=(f"e-{mine}",), rollups_topic=f"r-{mine}")
    await create_topics(settings, PARTITIONS)
    block = RecordBlock.of((1_767_225_600_000 + i, b"user%010d" % i, b"x" * 380) for i in range(RECORDS))
    batches = [(b.data.copy(), b.next_offset - b.base_offset) for b in encode_batches(block, 0)]
    async with batch_producer(client_options(settings.source.servers, {})) as producer:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(ROUNDS):
            for i, (data, count) in enumerate(batches):
                await producer.append_encoded(settings.topics[0], i % PARTITIONS, data, count)
        await producer.flush()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    events = RECORDS * ROUNDS
    print(f"\nwrite to Kafka: {events / wall:,.0f} events/s, {events / cpu:,.0f} a CPU-second")
