"""A bare aiokafka loop: `getmany`, as its documentation shows for batches."""

import asyncio

from aiokafka import AIOKafkaConsumer
from tally import arguments


async def main() -> None:
    """Read the topic from its beginning to its end."""
    servers, topic, tally = arguments()
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=servers, group_id="contestant-aiokafka-" + tally.folder.name, auto_offset_reset="earliest",
    )  # fmt: skip
    await consumer.start()
    try:
        while not tally.done:
            for messages in (await consumer.getmany(timeout_ms=1_000, max_records=5_000)).values():
                tally.add_values(message.value for message in messages)
    finally:
        await consumer.stop()
    tally.finish()


asyncio.run(main())
