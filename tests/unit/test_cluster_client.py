"""A client that got no metadata requests it again soon, however well all else goes."""

import asyncio
from typing import Any

from aiokafka.client import AIOKafkaClient

from adledger.pipeline.log.kafka_admin import cluster_client
from adledger.pipeline.log.kafka_admin.cluster_client import ClusterClient


async def test_metadata_that_no_broker_gave_is_requested_again(monkeypatch):
    """One connection that broke at the wrong moment does not make a worker count as cut off until the metadata is old."""
    answers, answered = [False, True], asyncio.Event()

    async def metadata_update(self: Any, cluster: Any, topics: Any) -> bool:
        found = answers.pop(0)
        if found:
            answered.set()
        return found

    monkeypatch.setattr(AIOKafkaClient, "_metadata_update", metadata_update)
    monkeypatch.setattr(cluster_client, "AGAIN_AFTER_SECONDS", 0.0)
    client = ClusterClient(bootstrap_servers="127.0.0.1:1", metadata_max_age_ms=300_000)
    client._sync_task = asyncio.create_task(client._md_synchronizer())
    try:
        assert not await client.force_metadata_update()
        await asyncio.wait_for(answered.wait(), 30)
        assert client.silent_seconds == 0
    finally:
        await client.close()
