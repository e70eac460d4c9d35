"""Topics on a real broker: created as the protocol needs them, and refused where they are not."""

import json
from uuid import uuid4

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from typer.testing import CliRunner

from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import LogError, UsageError
from adledger.pipeline.log.kafka_admin.failures import connected
from adledger.pipeline.log.kafka_admin.properties import client_options
from adledger.pipeline.log.kafka_admin.rights import Role
from adledger.pipeline.log.kafka_admin.topics import (
    _until_there,
    check_topics,
    create_topics,
    kafka_options,
    require_fit_topics,
)
from adledger.pipeline.log.kafka_admin.topology import read_topology
from adledger.pipeline.settings import Settings


@pytest.fixture
def settings(kafka):
    """Return settings whose topics no other test uses."""
    return settings_of(kafka)


def settings_of(kafka, **changes):
    mine = uuid4().hex[:8]
    values = {"topics": (f"i-{mine}", f"c-{mine}"), "rollups_topic": f"r-{mine}"} | changes
    return Settings(source=f"kafka://{kafka.servers}", **values)


async def topology_of(settings):
    async with connected(kafka_options(settings)) as client:
        return await read_topology(client, settings.topics)


async def make(kafka, *topics: NewTopic):
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers)
    await admin.start()
    try:
        response = await admin.create_topics(list(topics))
    finally:
        await admin.close()
    assert [error for _, error, _ in response.topic_errors] == [0] * len(topics)
    async with connected(client_options([kafka.servers], {})) as client:
        await _until_there(client, [topic.name for topic in topics])


def described(kafka, topic: str) -> str:
    """Return what Kafka's own tool says of a topic."""
    found = kafka.tool(
        "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", kafka.servers, "--describe", "--topic", topic
    )  # fmt: skip
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()[0]


async def test_created_topics_pass_the_check(kafka, settings):
    """They are created once and left alone the second time; id and settings are those that Kafka's own tool prints."""
    made = await create_topics(settings, partitions=3)
    assert set(made) == {*settings.topics, settings.rollups_topic}
    assert (await require_fit_topics(settings, Role.WORKER)).fit
    assert await create_topics(settings) == ()
    topology = await topology_of(settings)
    assert (topology.topics, topology.kinds, topology.partitions) == (settings.topics, (1, 2), 3)
    description = described(kafka, settings.topics[0])
    for words in (
        f"TopicId: {topology.topic_ids[0]}", "PartitionCount: 3", "cleanup.policy=delete",
        "message.timestamp.type=LogAppendTime", f"retention.ms={7 * 86_400_000}",
    ):  # fmt: skip
        assert words in description
    assert len(set(topology.topic_ids)) == 2


async def test_one_topic_may_carry_both_kinds(kafka):
    """A combined topic has kind 0, 16 lanes by default, and record times with log_time = record."""
    settings = settings_of(kafka, topics=(f"both-{uuid4().hex[:8]}",), log_time="record")
    await create_topics(settings)
    topology = await topology_of(settings)
    assert (topology.kinds, topology.partitions) == ((0,), 16)
    assert (await require_fit_topics(settings, Role.WORKER)).fit
    with pytest.raises(LogError, match="log_time = append needs LogAppendTime"):
        await require_fit_topics(settings.model_copy(update={"log_time": "append"}), Role.WORKER)


async def test_missing_topics_get_the_width_of_existing_ones(kafka, settings):
    """Event topics have one width; a request for another is refused, and nothing is created."""
    append = {"message.timestamp.type": "LogAppendTime"}
    await make(kafka, NewTopic(settings.topics[0], 5, 1, topic_configs=append))
    with pytest.raises(UsageError, match="has 5 partitions, not 4"):
        await create_topics(settings, partitions=4)
    assert set(await create_topics(settings)) == {settings.topics[1], settings.rollups_topic}
    assert (await topology_of(settings)).partitions == 5


async def test_missing_topics_and_unequal_widths_are_refused(kafka, settings):
    """Topics that can't form lanes are refused with the command that fixes them."""
    with pytest.raises(LogError, match="adledger topics create"):
        await topology_of(settings)
    await make(kafka, NewTopic(settings.topics[0], 2, 1), NewTopic(settings.topics[1], 3, 1))
    with pytest.raises(LogError, match=rf"--alter --topic {settings.topics[0]} --partitions 3"):
        await topology_of(settings)


async def test_unfit_settings_are_refused_with_the_command_that_fixes_them(kafka, settings):
    """Each finding's command, run unchanged with Kafka's own tool, fixes it."""
    unfit = {
        "message.timestamp.type": "CreateTime", "cleanup.policy": "compact,delete", "retention.ms": "3600000",
        "max.message.bytes": "10000", "retention.bytes": "1000000",
    }  # fmt: skip
    await make(
        kafka,
        NewTopic(settings.topics[0], 1, 1, topic_configs=unfit),
        NewTopic(settings.topics[1], 1, 1, topic_configs={"message.timestamp.type": "LogAppendTime"}),
        NewTopic(settings.rollups_topic, 1, 1),
    )
    with pytest.raises(LogError) as refused:
        await require_fit_topics(settings, Role.WORKER)
    for name in ("message.timestamp.type", "cleanup.policy", "retention.ms", "max.message.bytes"):
        assert f"--add-config {name}=" in str(refused.value)
    assert "retention.bytes" not in str(refused.value), "advice refuses nothing"
    commands = [
        f.remedy.split() for f in (await check_topics(settings)).findings if f.remedy.startswith("kafka-configs.sh")
    ]  # fmt: skip
    together = ",".join(
        command[-1] for command in commands if command[-3] == settings.topics[0] and "," not in command[-1]
    )
    fixed = kafka.tool("kafka.admin.ConfigCommand", *commands[0][1:-1], together)
    assert fixed.returncode == 0, fixed.stderr
    assert (await require_fit_topics(settings, Role.WORKER)).fit


async def test_an_outage_must_fit_into_retention(kafka, settings):
    """Topics and committed offsets must outlast retention_min_hours."""
    await create_topics(settings, partitions=1)
    long = settings.model_copy(update={"retention_min_hours": 169})
    with pytest.raises(LogError) as refused:
        await require_fit_topics(long, Role.WORKER)
    assert "offsets.retention.minutes=10140" in str(refused.value)
    assert f"retention.ms={(169 + 24) * 3_600_000}" in str(refused.value)


async def test_an_unreachable_broker_is_an_error(unused_tcp_port):
    """An address without a listener is an error with a remedy."""
    with pytest.raises(LogError, match=rf"127.0.0.1:{unused_tcp_port}: nothing listens there"):
        async with connected(client_options([f"127.0.0.1:{unused_tcp_port}"], {})):
            pass


def test_the_commands(kafka):
    """`create` and `check` report the same in JSON; the exit code is 1 where a worker would not start."""
    settings = settings_of(kafka)
    flags = [
        "--source", str(settings.source), "--json", "--set", f"topics={','.join(settings.topics)}",
        "--set", f"rollups_topic={settings.rollups_topic}",
    ]  # fmt: skip
    run = CliRunner().invoke
    before = run(app, ["topics", "check", *flags])
    assert before.exit_code == 1
    assert [f["remedy"] for f in json.loads(before.stdout)["findings"]] == ["adledger topics create"] * 3
    made = run(app, ["topics", "create", "--partitions", "2", *flags])
    assert (made.exit_code, json.loads(made.stdout)["fit"]) == (0, True)
    assert all(topic["made"] for topic in json.loads(made.stdout)["topics"])
    after = run(app, ["topics", "check", *flags])
    assert (after.exit_code, json.loads(after.stdout)["fit"]) == (0, True)
    assert {f["advice"] for f in json.loads(after.stdout)["findings"]} == {True}
    assert run(app, ["topics", "check", "--source", "files:x"]).exception.exit_code == 2
