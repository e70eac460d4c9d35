"""Several senders and several workers on Kafka: the same events for any number of senders, counted exactly by all workers
together.
"""

import asyncio
from pathlib import Path
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, TopicPartition

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.lab.events import events_of
from adledger.loadtest.results.run_folder import RunFolder, RunVerdict
from adledger.loadtest.runner.outlet import now_ms
from adledger.loadtest.runner.schedule import Schedule
from adledger.loadtest.runner.sender import Task
from adledger.loadtest.runner.senders import SenderProcess, wait_until_ready
from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.addresses import parse_source
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.pipeline.settings import Settings
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.commands import adledger

PARTITIONS = 6
START = 1_800_000_000_000
PATIENCE_SECONDS = 90

PROFILE = """
[load]
rate = 3_000
duration = "5s"
warm_up = "1s"
partitions = 6

[traffic]
publishers = 500
duplicate_share = 0.2
retry_restart_weight = 0.5
retry_restart_seconds_max = 4
malformed_share = 0.01
crc32_share = 0.05
click_delay_ms_median = 1_000

[thresholds]
dropped_events = ["count<=0"]
"""

MODEL = TrafficModel(
    seed=7, events=20_000, partitions=PARTITIONS, start_ms=START, duration_hours=1.0, duplicate_share=0.2,
    malformed_share=0.02, crc32_share=0.1, keyless_share=0.02,
)  # fmt: skip

Log = dict[tuple[int, int], list[tuple[int, bytes | None, bytes]]]


def test_a_run_of_many_counts_exactly(kafka: LocalBroker, tmp_path: Path) -> None:
    """Three senders share the partitions, two workers the lanes; each has some, and every row equals the ground truth."""
    (tmp_path / "many.toml").write_text(PROFILE)
    with EmbeddedServer.start(tmp_path / "clickhouse") as server:
        ended = adledger(
            tmp_path / "run", "loadtest", "run", str(tmp_path / "many.toml"), "--senders", "3", "--workers", "2",
            "--target", f"kafka://{kafka.servers}", "--runs", str(tmp_path / "runs"),
            "--clickhouse", f"clickhouse://{server.host}:{server.port}/?http_port={server.http_port}",
        )  # fmt: skip
        assert ended.process.returncode == 0, ended.err
        folder = RunFolder.find(tmp_path / "runs", "last")
        clean = adledger(tmp_path / "clean", "loadtest", "clean", "last", "--runs", str(tmp_path / "runs"))
        assert clean.process.returncode == 0, clean.err
    run, summary = folder.run(), folder.summary()
    assert (run.senders, run.workers, summary.verdict) == (3, 2, RunVerdict.HELD)
    found = summary.verification
    assert found.equal
    assert found.records_expected == found.records_found == summary.metrics["events_sent"]
    assert len(run.sent_until_ms) == PARTITIONS
    lanes = [owned_by(folder.path / f"worker-{number}.events.jsonl") for number in (1, 2)]
    assert all(lanes), "each worker held lanes"
    assert set.union(*lanes) == set(range(PARTITIONS))


async def test_the_log_is_the_same_however_many_send(kafka: LocalBroker, tmp_path: Path) -> None:
    """Every partition of both topics has the same log times, keys and values in the same order, with one sender and with
    three.
    """
    logs = []
    for senders in (1, 3):
        name = f"many-{uuid4().hex[:8]}"
        settings = Settings(
            source=parse_source(f"kafka://{kafka.servers}"), topics=(f"{name}-i", f"{name}-c"), rollups_topic=f"{name}-r",
            log_time="record",
        )  # fmt: skip
        await create_topics(settings, partitions=PARTITIONS)
        folder = tmp_path / str(senders)
        folder.mkdir()
        await asyncio.to_thread(send, settings, senders, folder)
        logs.append(await read(settings, kafka.servers))
    one, three = logs
    assert one == three
    assert len(one) == 2 * PARTITIONS
    assert sum(map(len, one.values())) == sum(len(chunk.rows) for chunk in Generator(MODEL).rows())


def send(settings: Settings, senders: int, folder: Path) -> None:
    """Send all of MODEL's records as fast as the log accepts them, from this many processes."""
    schedule = Schedule(start_ms=START, end_ms=START + 10**12, speed=0.0, warm_up_seconds=0.0, seconds=60.0)
    processes = [
        SenderProcess.start(
            Task(model=MODEL, schedule=schedule, partitions=tuple(range(number, PARTITIONS, senders)),
                 settings=settings.model_dump(mode="json", exclude_unset=True)),
            folder / f"sender-{number}.log",
        )
        for number in range(senders)
    ]  # fmt: skip
    try:
        wait_until_ready(processes)
        for process in processes:
            process.go(now_ms())
        for process in processes:
            assert process.ended.wait(PATIENCE_SECONDS)
            assert not process.failure
    finally:
        for process in processes:
            process.kill()


async def read(settings: Settings, servers: str) -> Log:
    """Return log time, key and value of every record, by topic index and partition."""
    where = {
        TopicPartition(topic, partition): (index, partition)
        for index, topic in enumerate(settings.topics)
        for partition in range(PARTITIONS)
    }
    found: Log = {place: [] for place in where.values()}
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign(list(where))
        ends = await consumer.end_offsets(list(where))
        while any([await consumer.position(at) < end for at, end in ends.items()]):
            for at, records in (await consumer.getmany(timeout_ms=100)).items():
                found[where[at]] += [(r.timestamp, r.key, r.value) for r in records]
    finally:
        await consumer.stop()
    return found


def owned_by(event_log: Path) -> set[int]:
    """Return the lanes that a worker ever owned, from its event log."""
    return {lane for event in events_of(event_log, "lanes_assigned") for lane in event.fields["lanes"]}
