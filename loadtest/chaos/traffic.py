"""Traffic during faults: generated and sent at a rate; its ground truth covers exactly what was acknowledged."""

import threading
import time

from adledger.loadtest.lab.waiting import until
from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.ground_truth import GroundTruth, GroundTruthBuilder
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.log.kafka.writer import KafkaLogWriter
from adledger.pipeline.settings import Settings

CHUNK_SLOTS = 1_000
LOG_HOURS_PER_SECOND = 0.12
"""How fast log time passes: four minutes cross the end of a day and of a dedupe window."""
EDGE_MARGIN_MINUTES = 300
"""A chunk is sent topic by topic, so the lane's watermark may be this far ahead of a record's own log time."""
START_SECONDS_MAX = 60
END_SECONDS_MAX = 60


def traffic_model(seed: int, seconds: float, rate_per_second: float, partitions: int) -> TrafficModel:
    """Return traffic for `seconds`, with so few users and publishers that duplicates and clicks meet restarts."""
    return TrafficModel(
        seed=seed, events=int(seconds * rate_per_second), partitions=partitions, duration_hours=seconds * LOG_HOURS_PER_SECOND,
        duplicate_share=0.1,
        malformed_share=0.005, publishers=200, users=20_000, campaigns=500, second_currency_share=0.2,
        edge_margin_minutes=EDGE_MARGIN_MINUTES,
    )  # fmt: skip


class ChaosTraffic:
    """Sends a model's records in a thread, until `stop` or the model's end."""

    def __init__(self, model: TrafficModel, settings: Settings, rate_per_second: float) -> None:
        assert settings.log_time == "record", "the ground truth depends on the records' own times"
        self._model, self._settings = model, settings
        self.rate_per_second = rate_per_second
        self._ground_truth = GroundTruthBuilder(model)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="traffic", daemon=True)
        self.records = 0
        """Records acknowledged so far."""
        self.failed = ""

    def start(self) -> None:
        """Start sending, and return when the first records are acknowledged. Raises NotSeen, AdledgerError."""
        self._thread.start()
        until(self.flows, "the first records of the traffic, acknowledged", START_SECONDS_MAX)

    def flows(self) -> bool:
        """Whether records were acknowledged. Raises AdledgerError where sending failed."""
        if self.failed:
            raise AdledgerError(
                f"traffic could not be sent: {self.failed}",
                remedy="what reached the log is unknown, so the run does not count",
            )
        return self.records > 0

    def end(self) -> None:
        """Stop sending."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join(END_SECONDS_MAX)

    def stop(self) -> GroundTruth:
        """Stop sending, and return the ground truth of what was sent. Raises AdledgerError where sending failed."""
        self.end()
        if self._thread.is_alive():
            self.failed = "the broker does not acknowledge it"
        self.flows()
        return self._ground_truth.build()

    def _work(self) -> None:
        due = time.monotonic()
        try:
            with KafkaLogWriter(self._settings, say=lambda _: None) as writer:
                for chunk in Generator(self._model, chunk_slots=CHUNK_SLOTS).chunks():
                    for topic, partition, block in chunk.blocks:
                        writer.append(topic, partition, block)
                    writer.flush()
                    self._ground_truth.add(chunk.rows)
                    self.records += len(chunk.rows)
                    # A stall is not made up for: a burst would exceed this rate.
                    due = max(due + len(chunk.rows) / self.rate_per_second, time.monotonic() - 1.0)
                    if self._stopped.wait(max(0.0, due - time.monotonic())):
                        break
        except AdledgerError as error:
            self.failed = error.message
