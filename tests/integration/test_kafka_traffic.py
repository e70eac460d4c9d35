"""What producers may do on a real broker, with one worker process: transactions, a wrong partitioner, one topic for both."""

import asyncio
import heapq
import zlib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

from aiokafka import AIOKafkaProducer

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.lab.clickhouse_server import ClickHouseServer
from adledger.loadtest.real_logs.expected import murmur2
from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.ground_truth import GroundTruth, GroundTruthBuilder
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.log.kafka.writer import KafkaLogWriter
from adledger.pipeline.log.record_block import I64, NULL, U8, Record, RecordBlock
from adledger.schemas.classes import Reason
from tests.support.kafka_deployment import Deployment

MODEL = TrafficModel(seed=31, events=8_000, partitions=4, crc32_share=0.3, malformed_share=0.0)
CHUNK_SLOTS = 2_000


def test_transactions_and_another_partitioner(
    kafka: LocalBroker, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    """Each chunk is sent in a transaction that is aborted and again in one that is not, and counts once.

    Almost a third comes from producers with librdkafka's own partitioner: each record is counted once, and flagged.
    """
    deployment = Deployment.make(kafka.servers, clickhouse_server, tmp_path, partitions=MODEL.partitions)
    ground_truth, astray = asyncio.run(produce_in_transactions(deployment))
    deployment.run_to_the_end("worker")
    deployment.assert_expected(ground_truth)
    with deployment.client() as client:
        [(flagged, offsets, records)] = client.execute(
            f"SELECT countIf(bitTest(reasons, {Reason.MISROUTED:d})), "
            f"(SELECT sum(end - start) FROM {deployment.settings.database}.ledger ARRAY JOIN "
            f"range_start AS start, range_end AS end), count() FROM {deployment.settings.database}.events"
        )
    assert flagged == ground_truth.misrouted.sum() >= astray > MODEL.events / 10
    assert offsets > 2 * records, "aborted records, and the ends of transactions, lie in the ledger's ranges"


async def produce_in_transactions(deployment: Deployment) -> tuple[GroundTruth, int]:
    """Send the model's chunks; return the ground truth, and how many decodable records are in the partition of their
    key's CRC32.
    """
    ground_truth, astray = GroundTruthBuilder(MODEL), 0
    producer = AIOKafkaProducer(
        bootstrap_servers=deployment.settings.source.servers, transactional_id=deployment.settings.group
    )
    await producer.start()
    try:
        for chunk in Generator(MODEL, chunk_slots=CHUNK_SLOTS).chunks():
            for ends in (producer.abort_transaction, producer.commit_transaction):
                await producer.begin_transaction()
                for topic, partition, block in chunk.blocks:
                    await send(producer, deployment.settings.topics[topic], partition, records_of(block))
                await ends()
            ground_truth.add(chunk.rows)
            astray += sum(
                is_astray(key, partition)
                for _, partition, block in chunk.blocks
                for _, key, _ in records_of(block)
            )
    finally:
        await producer.stop()
    return ground_truth.build(), astray


def test_one_topic_for_both_kinds(
    kafka: LocalBroker, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    """Impressions and clicks in one topic, in their common order, have the ground truth of two topics."""
    deployment = Deployment.make(
        kafka.servers,
        clickhouse_server,
        tmp_path,
        partitions=MODEL.partitions,
        topics=[f"both-{uuid4().hex[:10]}"],
    )
    ground_truth = GroundTruthBuilder(MODEL)
    with KafkaLogWriter(deployment.settings) as writer:
        for chunk in Generator(MODEL, chunk_slots=CHUNK_SLOTS).chunks():
            kinds: dict[int, list[list[Record]]] = defaultdict(list)
            for _, partition, block in chunk.blocks:
                kinds[partition].append(records_of(block))
            for partition, both in kinds.items():
                writer.append(0, partition, RecordBlock.of(heapq.merge(*both, key=lambda record: record[0])))
            ground_truth.add(chunk.rows)
    deployment.run_to_the_end("worker")
    deployment.assert_expected(ground_truth.build())


def is_astray(key: bytes | None, partition: int) -> bool:
    """Whether a record is where librdkafka puts its key, and Java's client would not."""
    if key is None:
        return False
    by_java = (murmur2(key) & 0x7FFFFFFF) % MODEL.partitions
    return zlib.crc32(key) % MODEL.partitions == partition != by_java


async def send(producer: AIOKafkaProducer, topic: str, partition: int, records: list[Record]) -> None:
    """Send records of one partition, and return when they are queued."""
    for time, key, value in records:
        await producer.send(topic, value, key, partition, time)


def records_of(block: RecordBlock) -> list[Record]:
    """Return a block's records one by one."""
    values, keys = texts(block.values, block.value_ends), texts(block.keys, block.key_ends)
    return list(zip(block.log_times.tolist(), keys, values, strict=True))


def texts(data: U8, ends: I64) -> Iterator[bytes | None]:
    """Yield each row's bytes, None where it has none."""
    begin = 0
    for end in ends.tolist():
        yield None if end == NULL else data[begin:end].tobytes()
        begin = max(begin, end)
