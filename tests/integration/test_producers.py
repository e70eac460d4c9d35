"""The producers of docs/events.md, as printed there, against a real broker: the lane that the pipeline expects, no repeats."""

import asyncio
import os
import re
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import orjson
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.lab.kafka_jars import kafka_jars
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.records.batch_format import HEADER_BYTES, LENGTH_FIELD_END
from adledger.pipeline.stages.plain_hashes import partition_of
from adledger.pipeline.stages.slow_path import DecodeContext, PlainEvent, decode_plain
from adledger.schemas.wire import TOPIC_CLICKS, TOPIC_IMPRESSIONS, Flag, currency_code
from tests.support.brokers import running_broker
from tests.support.services import missing
from tests.support.wire_texts import CLICK, IMPRESSION

DOCS = Path(__file__).resolve().parents[2] / "docs"
PRODUCERS = DOCS / "producers"
PARTITIONS = 8
TOPICS = (TOPIC_IMPRESSIONS, TOPIC_CLICKS)
SEND_SECONDS_MAX = 120
LOG_APPEND_TIME = 1 << 3
"""The bit of a record batch's attributes that says which time its records have."""


class BatchHeader(NamedTuple):
    """What a record batch says of its producer."""

    attributes: int
    producer_id: int
    base_sequence: int


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalBroker]:
    """A broker with the topics that `adledger topics create` makes: their names are the contract's."""
    with running_broker(tmp_path_factory.mktemp("kafka")) as started:
        subprocess.run(
            [sys.executable, "-m", "adledger", "topics", "create", "--source", f"kafka://{started.servers}",
             "--partitions", str(PARTITIONS), "--replication-factor", "1"],
            check=True, capture_output=True,
        )  # fmt: skip
        yield started


def events(prefix: str) -> list[bytes]:
    """Return events of users with and without an id, in any script, all of the present."""
    now = time.time_ns() // 1_000_000
    made = []
    for i in range(400):
        user = ("", f"u-{i}", f"ü€😀 {i}", "x" * (1 + i % 64))[i % 4]
        own = {"event_time": now, "user_id": user, "ip": f"10.{i % 7}.0.{i % 251}"}
        made.append(orjson.dumps(IMPRESSION | own | {"event_id": f"{prefix}-{i}"}))
        made.append(
            orjson.dumps(CLICK | own | {"event_id": f"{prefix}-{i}-c", "impression_id": f"{prefix}-{i}"})
        )
    return made


def python(name: str) -> Callable[[Path], list[str]]:
    return lambda _: [sys.executable, str(PRODUCERS / name)]


def java(folder: Path) -> list[str]:
    """Compile with the client's jars, which come with the broker's."""
    if shutil.which("javac") is None:
        missing("a JDK", AdledgerError("no javac on the PATH", remedy="install openjdk-17-jdk-headless"))
    jars = f"{kafka_jars()}/*"
    subprocess.run(
        ["javac", "-cp", jars, "-d", str(folder), str(PRODUCERS / "EventProducer.java")], check=True
    )
    return ["java", "-cp", os.pathsep.join([str(folder), jars]), "EventProducer"]


def go(folder: Path) -> list[str]:
    """Build with the modules that go.sum pins; Go is optional."""
    if shutil.which("go") is None:
        pytest.skip("no go on the PATH: the franz-go producer is not built")
    copy = folder / "franz-go"
    shutil.copytree(PRODUCERS / "franz-go", copy)
    built = subprocess.run(
        ["go", "build", "-o", "producer", "."], cwd=copy, env=os.environ | {"GOTOOLCHAIN": "local"}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    if "requires go >=" in built.stderr:
        pytest.skip(f"this Go is too old: {built.stderr.strip()}")
    assert built.returncode == 0, built.stderr
    return [str(copy / "producer")]


KINDS = {
    "confluent-kafka": python("confluent_producer.py"), "aiokafka": python("aiokafka_producer.py"), "Java": java,
    "franz-go": go,
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_a_producer_does_what_the_contract_asks(kind: str, broker: LocalBroker, tmp_path: Path) -> None:
    """Each event arrives once, unchanged, in the partition of its key's murmur2, at the broker's time, by an idempotent
    producer; and the decoder flags none of them as misrouted.
    """
    command = KINDS[kind](tmp_path)
    before = headers(broker)
    lines = events(kind)
    sent = subprocess.run(
        [*command, broker.servers], input=b"\n".join(lines) + b"\n", capture_output=True, check=False,
        timeout=SEND_SECONDS_MAX,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr.decode()
    received = [
        r for r in asyncio.run(records(broker)) if orjson.loads(r.value)["event_id"].startswith(f"{kind}-")
    ]
    assert sorted(r.value for r in received) == sorted(lines)
    for record in received:
        assert record.timestamp_type == 1, "LogAppendTime"
        event = orjson.loads(record.value)
        assert record.key == (event["user_id"] or event["ip"]).encode()
        assert record.partition == partition_of(record.key, PARTITIONS)
        context = DecodeContext(record.partition, PARTITIONS, (1, 2), currency_code("USD"))
        topic_kind = context.kinds[TOPICS.index(record.topic)]
        decoded = decode_plain(record.value, record.key, topic_kind, record.timestamp, context)
        assert isinstance(decoded, PlainEvent)
        assert not decoded.flags >> Flag.MISROUTED & 1
    new = [header for header in headers(broker) if header not in before]
    assert new
    for header in new:
        assert header.attributes & LOG_APPEND_TIME
        assert header.producer_id >= 0, "no idempotent producer"
        assert header.base_sequence >= 0


async def records(broker: LocalBroker) -> list:
    """Return every record of both topics."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        places = [TopicPartition(topic, p) for topic in TOPICS for p in range(PARTITIONS)]
        consumer.assign(places)
        ends = await consumer.end_offsets(places)
        found: list = []
        while any([await consumer.position(place) < ends[place] for place in places]):
            for batch in (await consumer.getmany(timeout_ms=1_000)).values():
                found += batch
        return found
    finally:
        await consumer.stop()


def headers(broker: LocalBroker) -> set[BatchHeader]:
    """Return the headers of all record batches of both topics, as they are on the broker's disk."""
    found = set()
    for topic in TOPICS:
        for path in broker.directory.glob(f"data/{topic}-*/*.log"):
            data, at = path.read_bytes(), 0
            while at + HEADER_BYTES <= len(data):
                (length,) = struct.unpack_from(">i", data, at + 8)
                attributes, producer_id, _, sequence = struct.unpack_from(">h20xqhi", data, at + 21)
                if length <= 0:
                    break  # preallocated
                found.add(BatchHeader(attributes, producer_id, sequence))
                at += LENGTH_FIELD_END + length
    return found


def test_the_page_has_the_producers_as_they_are_tested() -> None:
    """docs/events.md contains each program, letter by letter."""
    page = (DOCS / "events.md").read_text("utf-8")
    blocks = set(re.findall(r"```\w+\n(.*?)```", page, re.DOTALL))
    for name in ("confluent_producer.py", "aiokafka_producer.py", "EventProducer.java", "franz-go/main.go"):
        assert (PRODUCERS / name).read_text("utf-8") in blocks, (
            f"docs/events.md has another text than docs/producers/{name}"
        )
