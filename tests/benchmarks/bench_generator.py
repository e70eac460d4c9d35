"""How fast traffic is generated. Target: 500,000 events a CPU-second, columns in, bytes out, ground truth kept."""

import time

import pytest

from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.ground_truth import GroundTruthBuilder
from adledger.loadtest.traffic.model import TrafficModel

EVENTS = 1_000_000

pytestmark = pytest.mark.benchmark


def measure(what: str, model: TrafficModel, *, render: bool, **options) -> None:
    for run in ("compiling", "measured"):
        generator, ground_truth, size = Generator(model, **options), GroundTruthBuilder(model), 0
        begin = time.process_time()
        for chunk in generator.chunks() if render else generator.rows():
            ground_truth.add(chunk.rows)
            size += sum(len(block.values) for _, _, block in chunk.blocks)
        seconds = time.process_time() - begin
        if run == "measured":
            rate = model.events / seconds
            print(f"\n{what}: {rate:,.0f} events/CPU-s, {size / model.events:.0f} bytes a record")


def test_generate_everything():
    """Plan, fill, render and ground truth."""
    measure("generate", TrafficModel(events=EVENTS), render=True)


def test_plan_and_fill_only():
    """What a verification pays to compute the expected records again."""
    measure("expected records only", TrafficModel(events=EVENTS), render=False)


def test_one_shard_of_eight():
    """What planning everything costs a process that renders an eighth."""
    measure("one of eight shards", TrafficModel(events=EVENTS), render=True, partitions=range(0, 16, 8))
