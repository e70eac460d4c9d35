"""Writing generated traffic to a `files:` log, with the ground truth of exactly what was written."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from adledger.loadtest.traffic.generator import TOPICS, Generator
from adledger.loadtest.traffic.ground_truth import GroundTruth, GroundTruthBuilder
from adledger.loadtest.traffic.kernels.shapes import I64
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.errors import UsageError
from adledger.pipeline.log.files.writer import FilesLogWriter


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: the model, its ground truth, and the offset of its first record in each [topic, partition]."""

    model: TrafficModel
    ground_truth: GroundTruth
    first_offsets: I64


def write_traffic(model: TrafficModel, writer: FilesLogWriter, progress: Callable[[int], None]) -> Written:
    """Generate the model's traffic into the log and flush it. `progress` is called with the records that each step wrote.

    Raises UsageError where the log does not fit the model (partitions, or records later than its start), LogError.
    """
    _check_fits(model, writer)
    ground_truth = GroundTruthBuilder(model)
    first_offsets = np.full((TOPICS, model.partitions), -1, np.int64)
    for chunk in Generator(model).chunks():
        for topic, partition, block in chunk.blocks:
            offset = writer.append(topic, partition, block)
            if first_offsets[topic, partition] < 0:
                first_offsets[topic, partition] = offset
        ground_truth.add(chunk.rows)
        progress(len(chunk.rows))
    writer.flush()
    return Written(model, ground_truth.build(), first_offsets)


def _check_fits(model: TrafficModel, writer: FilesLogWriter) -> None:
    manifest = writer.manifest
    if manifest.partitions != model.partitions or [t.kind for t in manifest.topics] != [1, 2]:
        raise UsageError(
            f"the log has {manifest.partitions} partitions and the topics {[t.name for t in manifest.topics]}; the "
            f"traffic is made for {model.partitions} partitions and one topic each of impressions and clicks",
            remedy="Generate for the log's partitions, or write to a new log.",
        )
    newest = max(writer.log_time_max(partition) for partition in range(manifest.partitions))
    if newest > model.start_ms:
        raise UsageError(
            f"the log holds records of log time {newest}, the traffic begins at {model.start_ms}: log time would fall",
            remedy="Let the traffic begin later (start_ms), or write to a new log.",
        )
