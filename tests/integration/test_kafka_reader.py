"""The reader returns from a real broker exactly what stock aiokafka returns: records, offsets, times, keys, values."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from adledger.loadtest.lab.broker import LocalBroker
from adledger.pipeline.errors import LaneHalted, LogError, LogRewritten
from adledger.pipeline.log.kafka.source import KafkaSource
from adledger.pipeline.log.record_block import Record
from adledger.pipeline.retry import RetryPolicy
from adledger.pipeline.stages.walk import walk
from tests.contracts.source_suite import Listener, has_all
from tests.support.brokers import running_broker
from tests.support.kafka_log import KafkaLog
from tests.support.records import Stored, read_back

START = 1_767_225_600_000
LANE = 1
CODECS = (None, "gzip", "snappy", "lz4", "zstd")
PATIENCE_SECONDS = 60
POLL_SECONDS = 0.02


def records(count: int, first: int = 0) -> list[Record]:
    """Return records of varying sizes, with null and empty keys and values among them."""
    return [
        (
            START + i - (i % 5) * 100,
            (None, b"", b"user-%d" % i)[i % 3],
            (b'{"n":%d,"text":"' % i + b"abc" * (i * 37 % 400), b"", None)[0 if i % 7 else 1 + i % 2],
        )
        for i in range(first, first + count)
    ]


async def stock(log: KafkaLog, topic: int = 0) -> list[Stored]:
    """Return the committed records as aiokafka's own consumer reads them."""
    partition = TopicPartition(log.topics[topic], LANE)
    consumer = AIOKafkaConsumer(
        bootstrap_servers=log.broker.servers, isolation_level="read_committed", enable_auto_commit=False
    )
    await consumer.start()
    try:
        consumer.assign([partition])
        end = (await consumer.end_offsets([partition]))[partition]
        consumer.seek(partition, 0)
        found: list[Stored] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await consumer.position(partition) < end:
                for some in (await consumer.getmany(timeout_ms=200)).values():
                    found += [(r.offset, r.timestamp, r.key, r.value) for r in some]
        return found
    finally:
        await consumer.stop()


async def ours(source: KafkaSource, position: int, bytes_max: int = 1 << 20) -> list[Stored]:
    """Return the records from a position to the end, fetched step by step."""
    found: list[Stored] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            [fetched] = await source.fetch(LANE, {0: position}, bytes_max, 0)
            found += read_back(walk(fetched))
            position = fetched.next_offset
            if fetched.drained:
                return found


async def has_end(source: KafkaSource, end: int) -> None:
    """Wait for the stable end: a transaction's marker is written after the producer was answered."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (await source.bounds(LANE))[0].end < end:  # noqa: ASYNC110 - Kafka tells nobody
            await asyncio.sleep(POLL_SECONDS)


@asynccontextmanager
async def member(log: KafkaLog) -> AsyncIterator[KafkaSource]:
    source = log.member()
    await source.join(Listener())
    try:
        yield source
    finally:
        await source.leave()


async def assert_equal_from_each_offset(log: KafkaLog) -> list[Stored]:
    """Check the law from every offset, with large and with tiny fetches; return the records."""
    expected = await stock(log)
    async with member(log) as source:
        end = (await source.bounds(LANE))[0].end
        for position in range(end + 1):
            wanted = [record for record in expected if record[0] >= position]
            assert await ours(source, position) == wanted
            assert await ours(source, position, bytes_max=1) == wanted
    return expected


@pytest.mark.parametrize("codec", CODECS)
async def test_every_codec_of_a_client(kafka, codec):
    """Batches of many sizes that aiokafka's producer compressed are read."""
    log = await KafkaLog(kafka).make()
    async with log.producer(compression_type=codec) as producer:
        await log.send(producer, 0, LANE, records(1))
        await log.send(producer, 0, LANE, records(30, 1))
    await log.append(0, LANE, records(3, 31))
    assert len(await assert_equal_from_each_offset(log)) == 34


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_of_the_broker(kafka, codec):
    """Batches that Kafka's own Java code compressed are read, over 64 KiB too, which is several LZ4 and snappy blocks."""
    log = await KafkaLog(kafka).make(compression_type=codec)
    await log.append(0, LANE, [(START, b"k", bytes(range(256)) * 1_000), *records(20)])
    await log.append(0, LANE, records(5, 20))
    assert len(await assert_equal_from_each_offset(log)) == 26


async def test_transactions(kafka):
    """Aborted records are left out, all others stay, however they interleave."""
    log = await KafkaLog(kafka).make()
    async with (
        log.producer(transactional_id=f"{log.name}-a", compression_type="lz4") as a,
        log.producer(transactional_id=f"{log.name}-b") as b,
        log.producer() as plain,
    ):
        count = 0
        for a_commits, b_commits in ((True, False), (False, True), (False, False), (True, True)):
            await a.begin_transaction()
            await b.begin_transaction()
            for producer in (a, plain, b, a, b, plain):
                await log.send(producer, 0, LANE, records(2, count))
                count += 2
            await (a.commit_transaction() if a_commits else a.abort_transaction())
            await log.send(b, 0, LANE, records(1, count))
            await (b.commit_transaction() if b_commits else b.abort_transaction())
        last = await plain.send_and_wait(log.topics[0], b"the last", partition=LANE)
    async with member(log) as source:
        await has_end(source, last.offset + 1)
    expected = await assert_equal_from_each_offset(log)
    assert 0 < len(expected) < count, "some were aborted"


async def test_an_open_transaction_hides_its_end(kafka):
    """Nothing after the first record of an open transaction is returned, and the end is before it; then everything is."""
    log = await KafkaLog(kafka).make()
    await log.append(0, LANE, records(3))
    async with log.producer(transactional_id=log.name) as open_, member(log) as source:
        await open_.begin_transaction()
        await log.send(open_, 0, LANE, records(2, 3))
        await log.append(0, LANE, records(2, 5))
        assert (await source.bounds(LANE))[0].end == 3
        assert [offset for offset, *_ in await ours(source, 0)] == [0, 1, 2]
        await open_.commit_transaction()
        await has_end(source, 8)
        assert [offset for offset, *_ in await ours(source, 3)] == [3, 4, 5, 6]


async def test_append_time(kafka):
    """With LogAppendTime the broker's time is every record's; with log_time = append nothing else is accepted."""
    log = await KafkaLog(kafka, log_time="append").make(message_timestamp_type="LogAppendTime")
    async with log.producer(compression_type="lz4") as producer:
        await log.send(producer, 0, LANE, records(5))
    await log.append(0, LANE, records(5))
    found = await assert_equal_from_each_offset(log)
    assert min(time for _, time, _, _ in found) > START
    producers_time = await KafkaLog(kafka, log_time="append").make()
    await producers_time.append(0, LANE, records(1))
    async with member(producers_time) as source:
        with pytest.raises(LogError, match="log_time = append"):
            await ours(source, 0)


async def test_a_large_batch_of_the_second_topic_comes_too(kafka):
    """Both topics make progress where both have a batch larger than the limit."""
    log = await KafkaLog(kafka).make()
    for topic in (0, 1):
        await log.append(topic, LANE, [(START, b"k", b"v" * 100_000)])
    async with member(log) as source:
        fetched = await source.fetch(LANE, {0: 0, 1: 0}, 1_000, 0)
        assert [(f.topic, len(walk(f))) for f in fetched] == [(0, 1), (1, 1)]


@pytest.fixture
def own_broker(tmp_path):
    with running_broker(tmp_path, properties={"log.cleaner.backoff.ms": "50"}) as broker:
        yield broker


async def test_compacted_topics(own_broker):
    """Gaps that compaction left are skipped, as the stock consumer does."""
    log = await KafkaLog(own_broker).make(
        cleanup_policy="compact", segment_bytes="1048576", min_cleanable_dirty_ratio="0.01", segment_ms="50"
    )
    async with log.producer(compression_type="lz4") as producer:
        for first in range(0, 40, 10):
            await log.send(
                producer,
                0,
                LANE,
                [(START + i, b"k%d" % (i % 7), b"%d" % i) for i in range(first, first + 10)],
            )
    async with member(log) as source:
        async with asyncio.timeout(PATIENCE_SECONDS):
            rolls = 0
            while sum(r[0] < 40 for r in await ours(source, 0)) == 40:  # segments roll by the records' times
                rolls += 1
                await log.append(0, LANE, [(START + rolls * 60_000, b"roll", b"the segment")])
        for position in (0, 1, 5, 15, 33):
            found = {r[0]: r for r in await ours(source, position)}
            again = {r[0]: r for r in await stock(log) if r[0] >= position}  # the cleaner goes on in between
            assert again
            assert again.keys() <= found.keys()
            assert again == {offset: found[offset] for offset in again}


async def test_a_broker_that_restarts(own_broker):
    """Fetches during an outage are retried, visibly and without tracebacks, and return what is appended after it."""
    lines: list[str] = []
    log = await KafkaLog(own_broker).make()
    await log.append(0, LANE, records(3))
    source = log.member(lines.append, retry_attempts_max=100)
    listener = Listener()
    await source.join(listener)
    await has_all(listener)
    assert len(await ours(source, 0)) == 3
    waiting = asyncio.create_task(source.fetch(LANE, {0: 3}, 1 << 20, 500))
    await asyncio.sleep(0)  # it is on its way
    own_broker.kill()
    await asyncio.to_thread(own_broker.start)
    await waiting
    await log.append(0, LANE, records(2, 3))
    assert [offset for offset, *_ in await ours(source, 3)] == [3, 4]
    assert lines
    assert not any("Traceback" in line or "\n" in line for line in lines)
    assert any("; try 1 of " in line for line in lines)
    await source.leave()


def cut_segment(own_broker: LocalBroker, partition: str, offset: int) -> None:
    """Truncate a stopped broker's partition on disk before an offset, as an older copy has it."""
    [segment] = own_broker.directory.glob(f"data/**/{partition}/*.log")
    data, at = segment.read_bytes(), 0
    while int.from_bytes(data[at : at + 8], "big") < offset:
        at += 12 + int.from_bytes(data[at + 8 : at + 12], "big")
    assert at < len(data)
    segment.write_bytes(data[:at])
    for index in segment.parent.glob("*index"):
        index.unlink()


async def test_a_log_that_was_truncated_and_grew_again(own_broker):
    """Other records follow the reader's position than before, which the leader's epoch reveals."""
    log = await KafkaLog(own_broker).make()
    for first in (0, 4, 8):
        await log.append(0, LANE, records(4, first))
    source = log.member(retry_attempts_max=100)
    listener = Listener()
    await source.join(listener)
    await has_all(listener)
    assert len(await ours(source, 0)) == 12
    own_broker.kill()
    cut_segment(own_broker, f"{log.topics[0]}-{LANE}", 4)
    await asyncio.to_thread(own_broker.start)
    await log.append(0, LANE, records(20, 100))
    kept = source.leader_epochs(LANE, {0: 12})
    for position in (6, 12):  # in the middle of what was read; at its end, by the epoch that a ledger keeps
        with pytest.raises(LogRewritten, match="truncated: from offset 4 on") as error:
            await source.fetch(LANE, {0: position}, 1 << 20, 500)
        assert error.value.since == {0: 4}
        source.resume(LANE, {0: 12}, kept)
    source.resume(LANE, {}, {})
    assert len(await ours(source, 0)) == 24, "what is there now can be read, from where nothing is presumed"
    await source.leave()


async def test_a_topic_created_again_is_not_read_on(kafka):
    """Under a joined source neither its offsets nor its ends are taken for those of the joined topic."""
    log = await KafkaLog(kafka).make()
    await log.append(0, LANE, records(5))
    source = log.member(retry_attempts_max=100)
    listener = Listener()
    await source.join(listener)
    await has_all(listener)
    assert len(await ours(source, 0)) == 5
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers)
    await admin.start()
    await admin.delete_topics([log.topics[0]])
    await admin.create_topics([NewTopic(log.topics[0], log.partitions, 1)])
    await admin.close()
    await log.append(0, LANE, records(9))  # by name, a fetch from 5 would bring four of these
    with pytest.raises(LaneHalted, match="recreated"):
        await source.fetch(LANE, {0: 5}, 1 << 20, 500)
    with pytest.raises(LaneHalted, match="recreated"):
        await source.bounds(LANE)
    await source.leave()


async def test_an_unreachable_broker():
    """Joining names the servers, shows each attempt, and gives up with the remedy."""
    lines: list[str] = []
    source = KafkaSource(
        ["127.0.0.1:1"], ("a", "b"), "group", properties={}, log_time="append", revoke_ms_max=1_000,
        retry=RetryPolicy(3, backoff_ms_max=200), say=lines.append,
    )  # fmt: skip
    with pytest.raises(LogError, match=r"127\.0\.0\.1:1") as error:
        await source.join(Listener())
    assert error.value.remedy
    assert sum("try" in line for line in lines) == 2
