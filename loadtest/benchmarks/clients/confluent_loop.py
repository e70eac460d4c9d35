"""A bare confluent-kafka loop: `consume`, as its documentation shows for batches."""

from confluent_kafka import Consumer, KafkaError, KafkaException
from tally import arguments

servers, topic, tally = arguments()
consumer = Consumer(
    {
        "bootstrap.servers": servers,
        "group.id": "contestant-confluent-" + tally.folder.name,
        "auto.offset.reset": "earliest",
        # librdkafka's default of 1 s lets its queue run empty, and the loop idle, a third of the time.
        "fetch.queue.backoff.ms": 20,
    }
)
consumer.subscribe([topic])
try:
    while not tally.done:
        values = []
        for message in consumer.consume(num_messages=5_000, timeout=0.1):
            error = message.error()
            if error is None:
                values.append(message.value())
            elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - so it is exported
                raise KafkaException(error)
        tally.add_values(values)
finally:
    consumer.close()
tally.finish()
