"""The intents that a group has committed, read as stock Kafka tools read them."""

import asyncio
import json
from collections.abc import Mapping

from aiokafka.admin import AIOKafkaAdminClient


def committed_batches(servers: str, group: str) -> Mapping[int, int]:
    """Return lane -> the batch of the newest intent that is committed, as stock Kafka tools read it."""

    async def ask() -> dict[int, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        try:
            committed = await admin.list_consumer_group_offsets(group)
        finally:
            await admin.close()
        newest: dict[int, int] = {}
        for place, at in committed.items():
            batch_no = int(json.loads(at.metadata)["batch"])
            newest[place.partition] = max(batch_no, newest.get(place.partition, batch_no))
        return newest

    return asyncio.run(ask())
