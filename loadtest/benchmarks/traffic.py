"""The events that every tool reads: one Kafka topic, written once, and the counts expected of it.

A job that every tool can do: all records are well-formed, none is late or expired, and a duplicate is in the
partition of its first. Keys, sizes, user agents, publishers (400,000, Zipf) and 1 % duplicates are the generator's own.
"""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.ground_truth import GroundTruth, GroundTruthBuilder
from adledger.loadtest.traffic.kernels.shapes import Records
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.log.kafka.writer import KafkaLogWriter
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.pipeline.settings import Settings
from adledger.schemas.classes import Class
from adledger.schemas.wire import EventType

PARTITIONS = 4
HOURS = 1.0
CHUNK_SLOTS = 8_192
"""A chunk's impressions precede its clicks in the one topic: small chunks keep both near their times."""

MINUTE = np.dtype(
    [("publisher_id", "i8"), ("minute", "i8"), ("impressions", "i8"), ("clicks", "i8"), ("nanos", "i8")]
)
"""What a contestant must find: a row for each publisher and minute, sorted by them."""


@dataclass(frozen=True, slots=True)
class FilledTopic:
    """A topic that was filled. `unique` is how many of its `events` are not duplicates."""

    topic: str
    events: int
    unique: int
    minutes: Records


def model_of(events: int, seed: int = 1) -> TrafficModel:
    """Return traffic of `events` records: clean except for duplicates, which follow within seconds or ten minutes."""
    return TrafficModel(
        seed=seed, events=events, partitions=PARTITIONS, duration_hours=HOURS, day_peak_to_trough=1.0,
        malformed_share=0.0, odd_share=0.0, late_share=0.0, expired_share=0.0, skewed_clock_share=0.0,
        crc32_share=0.0, keyless_share=0.0, cookie_appears_share=0.0, roaming_share=0.0, click_reuses_id_share=0.0,
        retry_hours_weight=0.0, retry_edge_weight=0.0, retry_beyond_weight=0.0,
    )  # fmt: skip


def settings_of(servers: str, topic: str, group: str = "contestants") -> Settings:
    """Return settings of a deployment whose one topic carries both kinds."""
    values: dict[str, Any] = {
        "source": f"kafka://{servers}", "topics": (topic,), "rollups_topic": f"{topic}.rollups", "group": group,
        "log_time": "record",
    }  # fmt: skip
    return Settings(**values)


def write_traffic(servers: str, events: int) -> FilledTopic:
    """Make a topic with `events` events. Raises LogError."""
    model, settings = model_of(events), settings_of(servers, f"contestants.{events}")
    asyncio.run(create_topics(settings, partitions=PARTITIONS))
    ground_truth = GroundTruthBuilder(model)
    with KafkaLogWriter(settings) as writer:
        for chunk in Generator(model, chunk_slots=CHUNK_SLOTS).chunks():
            for _, partition, block in chunk.blocks:
                writer.append(0, partition, block)
            ground_truth.add(chunk.rows)
        writer.flush()
        written = writer.records_written()
    found = ground_truth.build()
    return FilledTopic(
        settings.topics[0], written, int(found.classes[:, Class.BILLABLE].sum()), minutes_of(found)
    )


def minutes_of(ground_truth: GroundTruth) -> Records:
    """Return the billable part of a ground truth as MINUTE rows."""
    rows = ground_truth.rollup[ground_truth.rollup["class_code"] == Class.BILLABLE]
    place, index = np.unique(
        rows["publisher_id"].astype(np.int64) << 32 | rows["minute"], return_inverse=True
    )
    minutes = np.zeros(len(place), MINUTE)
    minutes["publisher_id"], minutes["minute"] = place >> 32, place & 0xFFFFFFFF
    for name, kind in (("impressions", EventType.IMPRESSION), ("clicks", EventType.CLICK)):
        of_kind = rows["event_type_code"] == kind
        np.add.at(minutes[name], index[of_kind], rows["records"][of_kind])
    np.add.at(minutes["nanos"], index, rows["money_nanos"])
    return minutes


def read_found(path: Path) -> Records:
    """Return what a contestant wrote (five columns of integers a line, tabs between), sorted."""
    columns = np.loadtxt(path, np.int64, delimiter="\t", ndmin=2)
    minutes = np.zeros(len(columns), MINUTE)
    for i, name in enumerate(MINUTE.names or ()):
        minutes[name] = columns[:, i]
    return minutes[np.lexsort((minutes["minute"], minutes["publisher_id"]))]


def rows_wrong(expected: Records, found: Records) -> int:
    """Return how many publisher-minutes are missing, too many, or not as expected in counts or nanos."""
    right = len(np.intersect1d(expected.view(_BYTES), found.view(_BYTES)))
    keys = [rows["publisher_id"] << 32 | rows["minute"] for rows in (expected, found)]
    return len(np.union1d(*keys)) - right


_BYTES = np.dtype((np.void, MINUTE.itemsize))
