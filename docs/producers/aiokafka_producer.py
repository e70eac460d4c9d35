"""Sends events, one JSON object a line of stdin: python aiokafka_producer.py BROKERS < events.ndjson."""

import asyncio
import json
import sys

from aiokafka import AIOKafkaProducer

TOPICS = {"impression": "ad.impressions", "click": "ad.clicks"}
IN_FLIGHT_MAX = 10_000


async def main(brokers: str) -> None:
    producer = AIOKafkaProducer(
        bootstrap_servers=brokers,
        enable_idempotence=True,  # retries neither repeat nor reorder events; implies acks="all"
        compression_type="lz4",  # install aiokafka[lz4]
        linger_ms=20,
    )  # its partitioner is murmur2 already
    await producer.start()
    try:
        sent = []
        for line in sys.stdin.buffer:
            event = json.loads(line)
            key = event["user_id"] or event["ip"]
            sent.append(await producer.send(TOPICS[event["event_type"]], line.strip(), key.encode()))
            if len(sent) >= IN_FLIGHT_MAX:
                await asyncio.gather(*sent)  # raises if an event was not delivered
                sent.clear()
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


asyncio.run(main(sys.argv[1]))
