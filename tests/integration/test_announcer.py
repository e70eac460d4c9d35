"""Laws of the announcer on a real broker: an announced message is in the topic, and a failure is reported."""

import asyncio
import socket
from uuid import uuid4

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from adledger.pipeline.control.announcer import DELIVERY_SECONDS_MAX, Announcer
from adledger.pipeline.control.rollups_message import COLUMNS, PART_ROWS_MAX, decode
from adledger.pipeline.errors import SinkUnavailable
from adledger.pipeline.lanes.ports import RolledUp
from adledger.pipeline.log.kafka_admin.properties import client_options
from adledger.pipeline.settings import Settings
from tests.support.brokers import running_broker
from tests.support.rollups import MINUTE, columns_of, many_rows

CLOCK = MINUTE * 1000
PARTITIONS = 3


def batch(lane, batch_no, rollup=None):
    return RolledUp(
        "epoch", lane, batch_no, CLOCK, columns_of([(1, MINUTE, 1, 1, 1, 1, 1)]) if rollup is None else rollup
    )


async def make(kafka, topic, **configs):
    """Make a topic; return when it is known."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(topic, PARTITIONS, 1, topic_configs=configs)])
    finally:
        await admin.close()


async def read(kafka, topic):
    """Return the topic's records: (key, partition, message), in the order of each partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka.servers, auto_offset_reset="earliest", check_crcs=True
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        consumer.assign(partitions)
        missing = sum((await consumer.end_offsets(partitions)).values())
        found = []
        while missing > len(found):
            for records in (await consumer.getmany(timeout_ms=1_000)).values():
                found += [(r.key, r.partition, decode(r.value)) for r in records]
        return found
    finally:
        await consumer.stop()


@pytest.fixture
async def topic(kafka):
    name = f"rollups-{uuid4().hex[:8]}"
    await make(kafka, name)
    return name


@pytest.fixture
async def announcer(kafka, topic):
    counted: list[str] = []
    made = Announcer(topic, client_options([kafka.servers], {}), counted.append)
    made.counted = counted
    yield made
    await made.stop()


async def test_announced_batches_are_in_the_topic(kafka, topic, announcer):
    """Every batch of every lane is in the topic, keyed by lane, a lane in one partition and in order."""
    for batch_no in range(4):
        await asyncio.gather(*(announcer.announce(batch(lane, batch_no)) for lane in range(8)))
    found = await read(kafka, topic)
    assert announcer.counted == ["sent"] * 32
    for lane in range(8):
        mine = [(key, partition, m.batch_no) for key, partition, m in found if m.lane == lane]
        assert mine == [(str(lane).encode(), mine[0][1], n) for n in range(4)]


async def test_the_largest_batch_goes_in_parts_under_the_default_limits(kafka, topic, announcer):
    """A topic with Kafka's default limit takes a batch that nothing compresses, whole."""
    rollup = many_rows(2 * PART_ROWS_MAX + 5)
    await announcer.announce(batch(3, 7, rollup))
    parts = [m for _, _, m in await read(kafka, topic)]
    assert [(m.part, m.parts, m.batch_no) for m in parts] == [(0, 3, 7), (1, 3, 7), (2, 3, 7)]
    for name in COLUMNS:
        assert (np.sort(np.concatenate([m.rollup[name] for m in parts])) == np.sort(rollup[name])).all(), name


async def test_a_missing_topic_is_named_and_used_once_it_exists(kafka):
    """The error names the topic and the command, and the batch is not sent; later the same announcer sends it."""
    name, counted = f"rollups-{uuid4().hex[:8]}", []
    announcer = Announcer(name, client_options([kafka.servers], {}), counted.append)
    try:
        with pytest.raises(SinkUnavailable) as failed:
            await announcer.announce(batch(1, 4))
        assert (
            f"{name} did not take the message of lane 1, batch 4: there is no such topic"
            in failed.value.message
        )
        assert "topics create" in failed.value.remedy
        await make(kafka, name)
        await announcer.announce(batch(1, 4))
        assert [m.batch_no for _, _, m in await read(kafka, name)] == [4]
        assert counted == ["failed", "sent"]
    finally:
        await announcer.stop()


async def test_a_topic_with_a_smaller_limit_is_reported(kafka):
    """The error names max.message.bytes, and other lanes' messages go on."""
    name = f"rollups-{uuid4().hex[:8]}"
    await make(kafka, name, **{"max.message.bytes": "2000"})
    announcer = Announcer(name, client_options([kafka.servers], {}))
    try:
        with pytest.raises(SinkUnavailable, match=r"max\.message\.bytes"):
            await announcer.announce(batch(1, 4, many_rows(1_000)))
        await announcer.announce(batch(2, 9))
        assert [m.batch_no for _, _, m in await read(kafka, name)] == [9]
    finally:
        await announcer.stop()


async def test_an_unreachable_broker_is_reported_with_its_address():
    """SinkUnavailable with the address is raised soon, and stopping has nothing left to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    announcer = Announcer.of(Settings(source=f"kafka://{address}"))
    with pytest.raises(SinkUnavailable, match=address) as failed:
        await announcer.announce(batch(0, 0))
    assert failed.value.remedy
    await announcer.stop()
    await announcer.stop()


@pytest.mark.slow
async def test_a_hanging_broker_is_reported_in_time(tmp_path):
    """SinkUnavailable is raised instead of waiting forever; once the broker answers, the batch is sent."""
    with running_broker(tmp_path) as broker:
        name = f"rollups-{uuid4().hex[:8]}"
        await make(broker, name)
        announcer = Announcer(name, client_options([broker.servers], {}))
        await announcer.announce(batch(1, 0))
        broker.pause()
        async with asyncio.timeout(4 * DELIVERY_SECONDS_MAX):
            with pytest.raises(SinkUnavailable, match="lane 1, batch 1"):
                await announcer.announce(batch(1, 1))
        broker.resume()
        for _ in range(5):
            try:
                await announcer.announce(batch(1, 1))
                break
            except SinkUnavailable:
                continue
        numbers = [m.batch_no for _, _, m in await read(broker, name)]
        assert sorted(set(numbers)) == [0, 1]
        await announcer.stop()
