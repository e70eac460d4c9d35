"""A client that knows only brokers that are gone goes back to its bootstrap servers."""

import asyncio
import socket

from aiokafka.protocol.metadata import MetadataResponse_v1

from adledger.loadtest.lab.broker import HOST
from adledger.pipeline.log.kafka_admin.cluster_client import BOOTSTRAP_AFTER_SECONDS, ClusterClient
from adledger.pipeline.log.kafka_admin.properties import client_options
from tests.support.kafka_log import KafkaLog

GONE = 77


class Clock:
    """A clock that is set by hand."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def closed_port() -> int:
    with socket.create_server((HOST, 0)) as server:
        return server.getsockname()[1]


async def test_a_client_whose_brokers_are_all_gone_bootstraps_again(kafka):
    """It waits for BOOTSTRAP_AFTER_SECONDS without any answer, since a leader may only be moving.

    Its listeners get the topics as they are, never a cluster without them.
    """
    log, clock = await KafkaLog(kafka).make(), Clock()
    client = ClusterClient(clock=clock, **client_options([kafka.servers], {}))
    await client.bootstrap()
    try:
        await client.set_topics(log.topics)
        partitions = client.cluster.partitions_for_topic(log.topics[0])
        topics = [
            (0, name, False, [(0, p, GONE, [GONE], [GONE]) for p in sorted(partitions)])
            for name in log.topics
        ]
        gone = [(GONE, HOST, closed_port(), None)]
        client.cluster.update_metadata(MetadataResponse_v1(brokers=gone, controller_id=GONE, topics=topics))
        widths = []
        client.cluster.add_listener(
            lambda cluster: widths.append(cluster.partitions_for_topic(log.topics[0]))
        )

        assert not await client.force_metadata_update()
        clock.seconds = BOOTSTRAP_AFTER_SECONDS / 2
        assert not await client.force_metadata_update()
        assert client.silent_seconds == BOOTSTRAP_AFTER_SECONDS / 2
        clock.seconds = BOOTSTRAP_AFTER_SECONDS
        assert await client.force_metadata_update()
        assert client.silent_seconds == 0
        assert {broker.nodeId for broker in client.cluster.brokers()} == {1}
        assert set(map(tuple, map(sorted, widths))) == {tuple(sorted(partitions))}
    finally:
        await client.close()


async def test_a_client_knows_since_when_no_broker_has_answered():
    """Where the bootstrap servers are gone too it tries again each time, and knows since when."""
    clock = Clock()
    client = ClusterClient(clock=clock, **client_options([f"{HOST}:{closed_port()}"], {}))
    gone = [(GONE, HOST, closed_port(), None)]
    client.cluster.update_metadata(MetadataResponse_v1(brokers=gone, controller_id=GONE, topics=[]))
    for clock.seconds in (10.0, 100.0):
        assert not await client._metadata_update(client.cluster, [])
    assert client.silent_seconds == 90
    await client.close()
    await asyncio.sleep(0)
