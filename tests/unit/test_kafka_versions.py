"""Brokers that are too old, and topics without ids, are refused with what was found."""

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from aiokafka.errors import NodeNotReadyError
from aiokafka.protocol.admin import ApiVersionResponse_v0

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.kafka_admin.metadata import NO_TOPIC_ID, TopicFacts
from adledger.pipeline.log.kafka_admin.topology import gives_ids, topology, unfit_topics
from adledger.pipeline.log.kafka_admin.versions import FETCH, METADATA, require_versions


@dataclass
class Brokers:
    """A client of brokers by their newest (Fetch, Metadata); None: unreachable."""

    newest: dict[int, tuple[int, int] | None]
    cluster: SimpleNamespace = field(init=False)

    def __post_init__(self):
        nodes = [SimpleNamespace(nodeId=node, host=f"kafka-{node}", port=9092) for node in self.newest]
        self.cluster = SimpleNamespace(brokers=lambda: nodes)

    async def send(self, node, _request):
        newest = self.newest[node]
        if newest is None:
            raise NodeNotReadyError
        return ApiVersionResponse_v0(
            error_code=0, api_versions=[(FETCH, 0, newest[0]), (METADATA, 0, newest[1])]
        )


async def test_every_broker_that_is_too_old_is_named():
    """One old broker of three is enough, since its lanes could not be read; an unreachable one is not named."""
    await require_versions(Brokers({1: (13, 12), 2: (17, 13), 3: None}))
    with pytest.raises(LogError) as refused:
        await require_versions(Brokers({1: (13, 12), 2: (12, 11)}))
    assert refused.value.message == (
        "adledger needs Kafka 3.1 or newer (Fetch 13, which names topics by id), and found "
        "kafka-2:9092 with Fetch up to 12, as in Kafka 2.7 to 3.0"
    )


def test_a_topic_without_an_id_is_refused_by_the_name_of_the_setting():
    """The id tells a topic from one that was deleted and created again under its name."""
    with pytest.raises(LogError) as refused:
        topology([TopicFacts("ad.events", 0, NO_TOPIC_ID, (1,), 1, 0)])
    assert "ad.events has no id" in str(refused.value)
    assert "inter.broker.protocol.version" in str(refused.value)


def test_the_setting_is_named_with_its_value_where_it_can_be_seen():
    """Brokers report it, except to users who may not see their settings."""
    [finding] = unfit_topics([TopicFacts("ad.events", 0, NO_TOPIC_ID, (1,), 1, 0)], "2.7-IV2")
    assert "inter.broker.protocol.version = 2.7-IV2" in finding.message


@pytest.mark.parametrize(
    ("version", "gives"),
    [("2.7", False), ("2.8-IV0", True), ("3.9", True), ("10.0", True), ("", True), ("0.11.0", False)],
)
def test_topics_have_ids_since_2_8(version, gives):
    """Versions are compared as numbers; an unknown one is not refused."""
    assert gives_ids(version) is gives
