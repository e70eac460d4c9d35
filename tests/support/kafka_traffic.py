"""Generated traffic on Kafka, with its truth."""

from loadtest.generate import Generator
from loadtest.model import TrafficModel
from loadtest.truth import Truth, TruthBuilder
from pipeline.log.kafka.writer import KafkaLogWriter
from pipeline.settings import Settings


def write_traffic_to_kafka(model: TrafficModel, settings: Settings) -> Truth:
    """Write the model's records to the settings' topics (log_time = record: they carry the model's log times)."""
    assert settings.log_time == "record"
    truth = TruthBuilder(model)
    with KafkaLogWriter(settings) as writer:
        for chunk in Generator(model).chunks():
            for topic, partition, block in chunk.blocks:
                writer.append(topic, partition, block)
            truth.add(chunk.rows)
        writer.flush()
    return truth.truth()
