"""Real brokers that are old: the oldest supported release is exact; older ones are refused before a worker joins."""

from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from adledger.loadtest.lab.kafka_jars import KafkaMissing
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.errors import LogError
from adledger.pipeline.log.kafka_admin.failures import connected
from adledger.pipeline.log.kafka_admin.rights import Role
from adledger.pipeline.log.kafka_admin.topics import _until_there, create_topics, require_fit_topics
from adledger.pipeline.settings import Settings
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.kafka_deployment import Deployment
from tests.support.kafka_traffic import write_traffic_to_kafka
from tests.support.old_kafka import old_kafka
from tests.support.services import missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def settings(server: str) -> Settings:
    return Settings(source=f"kafka://{server}")  # type: ignore[arg-type]


def test_kafka_3_1_is_exact(tmp_path: Path) -> None:
    """The oldest supported release has other names for some topic settings, and a worker's tables are right."""
    model = TrafficModel(seed=31, events=10_000, partitions=2)
    try:
        with (
            old_kafka(tmp_path / "kafka", "3.1.2", group_min_session_timeout_ms="500") as server,
            EmbeddedServer.start(tmp_path / "tables") as tables,
        ):
            deployment = Deployment.make(server, tables, tmp_path, partitions=model.partitions)
            ground_truth = write_traffic_to_kafka(model, deployment.settings)
            ended = deployment.run_to_the_end("worker")
            assert "Traceback" not in ended.err
            deployment.assert_expected(ground_truth)
    except KafkaMissing as error:
        missing("Kafka 3.1", error)


async def create_with_stock_tools(server: str) -> None:
    named = settings(server)
    admin = AIOKafkaAdminClient(bootstrap_servers=server)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(t, 2, 1) for t in (*named.topics, named.rollups_topic)])
    finally:
        await admin.close()
    async with connected({"bootstrap_servers": [server]}) as client:
        await _until_there(client, named.topics)


async def test_kafka_3_0_is_refused(tmp_path: Path) -> None:
    """The error names the oldest version that is supported, and each broker with the versions that it may be of."""
    try:
        with old_kafka(tmp_path, "3.0.2") as server:
            with pytest.raises(LogError) as refused:
                await require_fit_topics(settings(server), Role.WORKER)
            with pytest.raises(LogError) as not_created:
                await create_topics(settings(server), partitions=2)
    except KafkaMissing as error:
        missing("Kafka 3.0", error)
    assert refused.value.message == (
        "adledger needs Kafka 3.1 or newer (Fetch 13, which names topics by id), and found "
        f"{server} with Fetch up to 12, as in Kafka 2.7 to 3.0"
    )
    assert not_created.value.message == refused.value.message


async def test_a_protocol_version_without_topic_ids_is_refused(tmp_path: Path) -> None:
    """A newer broker whose inter.broker.protocol.version is below 2.8: topics are neither created nor read, and the error
    names the setting, its value and the remedy.
    """
    try:
        with old_kafka(tmp_path, "3.9.1", inter_broker_protocol_version="2.7") as server:
            with pytest.raises(LogError) as not_created:
                await create_topics(settings(server), partitions=2)
            await create_with_stock_tools(server)
            with pytest.raises(LogError) as refused:
                await require_fit_topics(settings(server), Role.WORKER)
    except KafkaMissing as error:
        missing("Kafka 3.9", error)
    for error in (not_created.value, refused.value):
        assert "inter.broker.protocol.version = 2.7" in error.message
        assert "set inter.broker.protocol.version" in str(error)
