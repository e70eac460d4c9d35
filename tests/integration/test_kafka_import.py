"""Stock aiokafka reads back from Kafka what an import to files holds."""

import asyncio
import gzip
from collections import defaultdict
from importlib import resources
from pathlib import Path
from uuid import uuid4

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from adledger.loadtest.lab.broker import LocalBroker
from adledger.pipeline.errors import LogError
from adledger.pipeline.importing import import_file, import_into
from adledger.pipeline.importing.formats import FormatChoice
from adledger.pipeline.importing.refusing import ImportRefused, Limits
from adledger.pipeline.importing.run import ImportInterrupted, ImportOptions, import_files
from adledger.pipeline.importing.target import FilesTarget, ImportTarget, OpenedTarget
from adledger.pipeline.log.kafka.producer import batch_producer
from adledger.pipeline.log.kafka.writer import KafkaLogWriter
from adledger.pipeline.log.kafka_admin.properties import client_options
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.pipeline.log.record_block import RecordBlock, encode_batches
from adledger.pipeline.settings import Settings
from tests.support.files_log import read_log
from tests.unit.test_importing import event

STARTED = 1_767_225_600_000  # 2026-01-01T00:00:00Z
PARTITIONS = 4
DAY_MS = 86_400_000
DATA = Path(str(resources.files("adledger.loadtest"))) / "real_logs"
REAL = (("access-log", DATA / "apache_access.log.gz"), ("open-bandit", DATA / "open_bandit_women.csv.gz"))


async def made_settings(kafka, **changes) -> Settings:
    """Return settings of topics that were made for one test."""
    mine = uuid4().hex[:8]
    topics = {"topics": (f"i-{mine}", f"c-{mine}"), "rollups_topic": f"r-{mine}"}
    settings = Settings(source=f"kafka://{kafka.servers}", **(topics | changes))
    await create_topics(settings, partitions=PARTITIONS)
    return settings


async def read_kafka(settings: Settings) -> dict[tuple[int, int], list[tuple[int, int, bytes | None, bytes]]]:
    """Return (topic index, partition) -> offset, timestamp, key, value of every record, by stock aiokafka."""
    where = {
        TopicPartition(topic, partition): (index, partition)
        for index, topic in enumerate(settings.topics)
        for partition in range(PARTITIONS)
    }
    consumer = AIOKafkaConsumer(bootstrap_servers=list(settings.source.servers), auto_offset_reset="earliest")
    await consumer.start()
    found = defaultdict(list)
    try:
        consumer.assign(list(where))
        ends = await consumer.end_offsets(list(where))
        while any([await consumer.position(tp) < end for tp, end in ends.items()]):
            for tp, records in (await consumer.getmany(timeout_ms=100)).items():
                found[where[tp]] += [(r.offset, r.timestamp, r.key, r.value) for r in records]
    finally:
        await consumer.stop()
    return dict(found)


ANY_FILE = ImportOptions(limits=Limits(unreadable_share_max=1.0))


def import_kafka(settings: Settings, format_name: str, path: Path, **more):
    return import_into(
        [path], format_name, lambda: KafkaLogWriter(settings), started_at_ms=STARTED, options=ANY_FILE, **more
    )


def without_times(log):
    return {where: [(o, k, v) for o, _, k, v in records] for where, records in log.items() if records}


@pytest.mark.parametrize("log_time", ["append", "record"])
async def test_kafka_and_files_hold_the_same(kafka, tmp_path, log_time):
    """Of real logs both have the same records at the same offsets of the same partitions.

    With log_time = record the log times agree too, and each import continues them from what the log holds.
    """
    settings = await made_settings(kafka, log_time=log_time)
    for format_name, path in REAL:
        on_kafka = import_kafka(settings, format_name, path)
        in_files = import_file(
            path,
            format_name,
            tmp_path / "log",
            started_at_ms=STARTED,
            partitions=PARTITIONS,
            topics=settings.topics,
        )
        assert on_kafka == in_files
    found, expected = await read_kafka(settings), await asyncio.to_thread(read_log, tmp_path / "log")
    assert without_times(found) == without_times(expected)
    if log_time == "record":
        assert found == {where: records for where, records in expected.items() if records}


def events_of(day: int, count: int) -> bytes:
    """Return wire lines of one day of December, a minute apart."""
    times = (STARTED - (31 - day) * DAY_MS + n * 60_000 for n in range(count))
    return b"\n".join(event(event_id=f"{day}-{n}", event_time=at) for n, at in enumerate(times))


@pytest.mark.parametrize("again", ["the same file", "an older file"])
async def test_a_second_import_is_checked_on_kafka_as_in_files(kafka, tmp_path, again):
    """With log_time = record, lines that would expire are refused in the same words, and nothing is written.

    Only in a folder are lines found that the log has already, which lose nothing: there a repeat is accepted. With
    keep_expired both logs have the same records.
    """
    settings = await made_settings(kafka, log_time="record")
    young, old = tmp_path / "young", tmp_path / "old"
    young.write_bytes(events_of(20, 50) + b"\n" + events_of(10, 50))
    old.write_bytes(events_of(9, 50))
    second = old if again == "an older file" else young
    in_files = FilesTarget(tmp_path / "log", PARTITIONS, settings.topics)

    def import_to(target: ImportTarget, path: Path, *, keep: bool = False) -> object:
        """Return the summary, or the refusal."""
        options = ImportOptions(limits=Limits(keep_expired=keep))
        try:
            return import_files(
                [path], FormatChoice(name="wire"), target, started_at_ms=STARTED, options=options
            )
        except ImportRefused as refused:
            return refused.message, refused.remedy

    def on_kafka() -> OpenedTarget:
        return OpenedTarget(lambda: KafkaLogWriter(settings))

    def second_imports() -> tuple[object, object]:
        return import_to(on_kafka(), second), import_to(in_files, second)

    for target in (on_kafka(), in_files):
        await asyncio.to_thread(import_to, target, young, keep=True)
    before = await read_kafka(settings)
    from_kafka, from_files = await asyncio.to_thread(second_imports)
    assert from_kafka[0].startswith(f"50 of {100 if second == young else 50} lines would expire, unbilled")
    assert await read_kafka(settings) == before
    written = await asyncio.to_thread(import_to, on_kafka(), second, keep=True)
    if second == old:
        assert from_files == from_kafka
        assert await asyncio.to_thread(import_to, in_files, second, keep=True) == written
    found, expected = await read_kafka(settings), await asyncio.to_thread(read_log, tmp_path / "log")
    assert found == {where: records for where, records in expected.items() if records}


async def test_a_line_too_large_for_kafka_ends_the_import(kafka, tmp_path, monkeypatch):
    """For a line larger than the topic's messages the error says what to raise, what was written, and how to go on."""
    monkeypatch.setattr("adledger.pipeline.importing.lines.LINE_BYTES_MAX", 4_000_000)
    settings = await made_settings(kafka)
    path = tmp_path / "lines"
    path.write_bytes(b'{"event_type":"impression"}\n' * 10 + b"x" * 2_000_000)
    with pytest.raises(LogError) as refused:
        import_kafka(settings, "wire", path)
    assert "max.message.bytes" in str(refused.value)
    assert "at least 10 records were written before" in refused.value.message
    assert "import the whole file again" in refused.value.remedy


async def test_an_interrupted_import_says_what_was_written(kafka, tmp_path):
    """After Ctrl-C between two chunks what was flushed is reported and there; the exit code is a shell's for SIGINT."""
    settings = await made_settings(kafka)
    event = orjson.dumps(
        {"event_type": "impression", "user_id": "u", "event_time": STARTED, "pad": "p" * 4_000}
    )
    path = tmp_path / "lines.gz"
    path.write_bytes(gzip.compress((event + b"\n") * 20_000, 1))
    chunks = []

    def interrupt_after_a_flush(done: int, of: int) -> None:
        chunks.append(done)
        if len(chunks) == 17:
            raise KeyboardInterrupt

    with pytest.raises(ImportInterrupted, match=r"at least [\d,]+ records were written") as stopped:
        import_kafka(settings, "wire", path, progress=interrupt_after_a_flush)
    assert stopped.value.exit_code == 130
    reported = int("".join(c for c in stopped.value.message.split("records")[0] if c.isdigit()))
    written = sum(len(records) for records in (await read_kafka(settings)).values())
    assert 0 < reported <= written < 20_000


async def test_batches_stay_in_order_however_they_overlap(kafka):
    """When append_encoded is called at once for many batches of one partition, offsets are in the order of the calls."""
    settings = await made_settings(kafka)
    topic = settings.topics[0]
    records = [(STARTED + i, None if i % 3 else b"k%d" % i, b"v%d" % i) for i in range(3_000)]
    batches = [
        (bytearray(b.data), b.next_offset - b.base_offset)
        for b in encode_batches(RecordBlock.of(records), 0, records_max=100)
    ]
    async with batch_producer(client_options(settings.source.servers, {})) as producer:
        await asyncio.gather(*(producer.append_encoded(topic, 1, data, count) for data, count in batches))
        await producer.flush()
        assert producer.records_written == {topic: 3_000}
    found = await read_kafka(settings)
    assert [(k, v) for _, _, k, v in found[0, 1]] == [(k, v) for _, k, v in records]


async def test_a_broker_that_is_killed_and_comes_back_changes_nothing(kafka, tmp_path):
    """After kill -9 of the broker during an import, and a restart, every record is there once, in order, in its
    partition.
    """
    count = 20_000
    path = tmp_path / "lines"
    path.write_bytes(
        b"".join(
            orjson.dumps({"event_type": "impression", "user_id": f"u{i % 97}", "pad": "p" * 1_500, "n": i}) + b"\n"
            for i in range(count)
        )
    )  # fmt: skip
    with LocalBroker(
        tmp_path / "broker"
    ) as broker:  # one that may be hurt; `kafka` skips where there is none
        settings = await made_settings(broker)
        under_way, loop = asyncio.Event(), asyncio.get_running_loop()
        importing = asyncio.create_task(
            asyncio.to_thread(
                import_kafka,
                settings,
                "wire",
                path,
                progress=lambda _done, _of: loop.call_soon_threadsafe(under_way.set),
            )
        )
        await under_way.wait()
        broker.kill()
        broker.start()
        assert (await importing).records == count
        found = await read_kafka(settings)
        numbers = {
            lane: [orjson.loads(value)["n"] for *_, value in records] for lane, records in found.items()
        }
    assert all(ns == sorted(ns) for ns in numbers.values())
    assert sorted(n for ns in numbers.values() for n in ns) == list(range(count))


async def test_missing_topics_end_an_import_before_it_starts(kafka, tmp_path):
    """Topics are created on purpose, with the settings they need, never by an import."""
    settings = Settings(source=f"kafka://{kafka.servers}", topics=("no-such-topic",))
    path = tmp_path / "lines"
    path.write_bytes(b"{}\n")
    with pytest.raises(LogError, match="adledger topics create"):
        import_kafka(settings, "wire", path)
