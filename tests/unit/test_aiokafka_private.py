"""What the Kafka source uses of aiokafka's internals is the same as when it was proved.

When this fails after an upgrade: read what changed in the named class, run tests/contracts/test_source_kafka.py and
tests/integration/test_kafka_reader.py, then write the new version and fingerprints here and in aiokafka_private.PROVED_ON.
"""

import hashlib
import inspect
from importlib.metadata import version

import pytest
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.consumer import AIOKafkaConsumer
from aiokafka.consumer.group_coordinator import CoordinatorGroupRebalance, GroupCoordinator
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.protocol.offset import OffsetRequest

from adledger.pipeline.log.kafka import aiokafka_private

FINGERPRINTS = {
    AIOKafkaClient.bootstrap: "198943b004e55849",
    AIOKafkaClient.send: "246b277687d7b687",
    AIOKafkaClient._get_conn: "68ce5d8391719d33",
    AIOKafkaClient.force_metadata_update: "cb7befef21c8f3f9",
    AIOKafkaClient._metadata_update: "06dc51ed3e0d38b8",
    AIOKafkaClient._md_synchronizer: "e0421bffa9a7735a",
    AIOKafkaClient.set_topics: "9f9b55d6d8997834",
    AIOKafkaConnection._handle_frame: "46a7d9b8cf7ca222",
    AIOKafkaConsumer.start: "2f1ba70443327538",
    AIOKafkaConsumer.stop: "bc5da9c98595299a",
    CoordinatorGroupRebalance: "20ed95eaf623513c",
    GroupCoordinator: "3cc75f875a239167",
    SubscriptionState: "387f8a497901966d",
    OffsetRequest: "d01378a63d0c1062",
}


def fingerprint(thing: object) -> str:
    """Return a short hash of the source of a class or function."""
    return hashlib.sha256(inspect.getsource(thing).encode()).hexdigest()[:16]  # type: ignore[arg-type]


def test_the_installed_version_was_proved():
    """No aiokafka but the proved versions is accepted."""
    assert version("aiokafka") in aiokafka_private.PROVED_ON


@pytest.mark.parametrize("thing", FINGERPRINTS, ids=lambda thing: thing.__qualname__)
def test_the_source_is_the_proved_one(thing):
    """Every class and function that we rely on is byte for byte the proved one."""
    assert fingerprint(thing) == FINGERPRINTS[thing], f"{thing.__qualname__} has changed"


def test_lanes_have_connections_of_their_own():
    """Connections are keyed by (node, group), where a group is any number; lanes use numbers that aiokafka does not."""
    assert max(ConnectionGroup) < aiokafka_private._FIRST_LANE_CONNECTION
    assert "conn_id = (node_id, group)" in inspect.getsource(AIOKafkaClient._get_conn)
