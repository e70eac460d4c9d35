"""Errors around a worker on Kafka are reported in seconds, with cause, place and remedy; exit code 1, no traceback."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.structs import OffsetAndMetadata

from adledger.loadtest.lab.broker import LocalBroker
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.commands import Command
from tests.support.kafka_deployment import Deployment

PARTITIONS = 2
FEW_TRIES = {"retry_attempts_max": 3}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One ClickHouse for all tests here."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Fault:
    """A deployment with a fault, and words that its error must contain, remedy included."""

    deployment: Deployment
    words: tuple[str, ...]


def test_each_fault_is_reported(kafka: LocalBroker, server: EmbeddedServer, tmp_path: Path) -> None:
    """Each fault alone ends a worker with 1, its cause and its remedy. (All run at once, since starting takes long.)"""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
    faults = dict(faults_of(kafka.servers, closed, server, tmp_path))
    with ExitStack() as stack:
        ended = {
            name: stack.enter_context(fault.deployment.worker("worker", "--until-caught-up"))
            for name, fault in faults.items()
        }
        for name, command in ended.items():
            assert command.wait() == 1, f"{name}: {command.err}"
            assert_reported(name, command, faults[name].words)


def assert_reported(name: str, command: Command, words: tuple[str, ...]) -> None:
    last = command.err[command.err.rindex("adledger: ") :]
    for text in words:
        assert text in last, f"{name}: {command.err}"
    assert "Traceback" not in command.err, f"{name}: {command.err}"
    assert command.out == ""


def faults_of(servers: str, closed: str, server: EmbeddedServer, folder: Path) -> Iterator[tuple[str, Fault]]:
    """Yield a deployment of each fault by its name."""

    def without_topics(name: str, broker: str = servers, **changes: object) -> Deployment:
        return Deployment.without_topics(broker, server, folder / name, **(FEW_TRIES | changes))

    def made(name: str, **changes: object) -> Deployment:
        return Deployment.make(servers, server, folder / name, partitions=PARTITIONS, **(FEW_TRIES | changes))

    yield (
        "no broker",
        Fault(without_topics("no-broker", closed), (closed, "nothing listens there", "start Kafka")),
    )

    deployment = without_topics("no-topics")
    yield "no topics", Fault(deployment, (*deployment.settings.topics, "adledger topics create"))

    deployment = without_topics("widths", log_time="append")
    asyncio.run(make_widths(deployment))
    topics = deployment.settings.topics
    yield (
        "widths",
        Fault(
            deployment,
            (f"{topics[0]} has 2, {topics[1]} has 3", f"--alter --topic {topics[0]} --partitions 3"),
        ),
    )

    deployment = made("times")
    live = Deployment.without_topics(
        servers, server, folder / "live", **FEW_TRIES, log_time="append", topics=deployment.settings.topics,
        rollups_topic=deployment.settings.rollups_topic,
    )  # fmt: skip
    yield (
        "record times",
        Fault(
            live, ("message.timestamp.type = CreateTime", "--add-config message.timestamp.type=LogAppendTime")
        ),
    )

    deployment = made("strange-group")
    asyncio.run(commit_strangely(deployment))
    yield (
        "another program's group",
        Fault(deployment, ("another program commits for this group", "a group of its own")),
    )

    clickhouse = f"clickhouse://{closed}"
    yield "no ClickHouse", Fault(made("no-clickhouse", clickhouse=clickhouse), (closed, "ClickHouse"))


async def make_widths(deployment: Deployment) -> None:
    """Make the event topics with 2 and 3 partitions."""
    settings = deployment.settings
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.source.servers)
    await admin.start()
    try:
        await admin.create_topics([
            *(
                NewTopic(topic, width, 1, topic_configs={"message.timestamp.type": "LogAppendTime", "retention.ms": "-1"})
                for topic, width in zip(settings.topics, (2, 3), strict=True)
            ),
            NewTopic(settings.rollups_topic, 1, 1),
        ])  # fmt: skip
    finally:
        await admin.close()


async def commit_strangely(deployment: Deployment) -> None:
    """Commit for the group what another program would: an offset with its own metadata."""
    settings = deployment.settings
    place = TopicPartition(settings.topics[0], 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.source.servers, group_id=settings.group)
    await consumer.start()
    try:
        consumer.assign([place])
        await consumer.commit({place: OffsetAndMetadata(0, f"checkpoint {uuid4()}")})
    finally:
        await consumer.stop()
