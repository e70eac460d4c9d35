"""Sends events, one JSON object a line of stdin: python confluent_producer.py BROKERS < events.ndjson."""

import json
import sys

from confluent_kafka import Producer

TOPICS = {"impression": "ad.impressions", "click": "ad.clicks"}

producer = Producer(
    {
        "bootstrap.servers": sys.argv[1],
        "partitioner": "murmur2_random",  # librdkafka's own is CRC32: clicks would miss their impressions
        "enable.idempotence": True,  # retries neither repeat nor reorder events; implies acks=all
        "compression.type": "zstd",
        "linger.ms": 20,
    }
)
failed = []


def delivered(error, message):
    if error is not None:
        failed.append((error, message.value()))


for line in sys.stdin.buffer:
    event = json.loads(line)
    key = event["user_id"] or event["ip"]
    while True:
        try:
            producer.produce(TOPICS[event["event_type"]], line.strip(), key.encode(), on_delivery=delivered)
            break
        except BufferError:  # the local queue is full
            producer.poll(1)
    producer.poll(0)

producer.flush()
if failed:  # send these events again, with the same event_id: adledger counts them once
    sys.exit(f"{len(failed)} events were not delivered: {failed[0][0]}")
