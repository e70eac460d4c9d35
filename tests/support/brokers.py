"""A broker of a test's own, which a laptop may lack."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.lab.kafka_jars import KafkaMissing, kafka_jars
from tests.support.services import missing


def need_kafka() -> None:
    """Skip the test where Kafka is missing, with the reason; in CI fail it."""
    try:
        kafka_jars()
    except KafkaMissing as error:
        missing("Kafka", error)


@contextmanager
def running_broker(folder: Path, **options: Any) -> Iterator[LocalBroker]:
    """Run a broker in a folder; where Kafka is missing, the test is skipped, or fails in CI."""
    need_kafka()
    with LocalBroker(folder, **options) as broker:
        yield broker
