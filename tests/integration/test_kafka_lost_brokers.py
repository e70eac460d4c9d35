"""Three brokers that are lost under a worker's load: it finds the cluster again, and every table equals the ground truth."""

import asyncio
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from adledger.loadtest.traffic.ground_truth import GroundTruth
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.integration.test_kafka_cluster import PATIENCE_SECONDS, coordinator, in_sync
from tests.support.commands import Command
from tests.support.kafka_cluster import LocalCluster, cluster
from tests.support.kafka_deployment import Deployment, LedgerReader, owned_lanes
from tests.support.kafka_traffic import write_traffic_to_kafka
from tests.support.kafka_worker import worker_here

pytestmark = [pytest.mark.timeout(600)]

MODEL = TrafficModel(seed=23, events=60_000, partitions=4, duration_hours=30, duplicate_share=0.05)
SLOW = {"batch_rows_max": 128, "inserts_per_second_max": 16}
"""Four batches a second a worker: there is traffic for as long as a slow machine takes."""
FAST = ("--set", "batch_rows_max=65536", "--set", "inserts_per_second_max=1000")
BATCHES_BETWEEN = 6
LOOK_SECONDS = 0.1


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three brokers, each with a copy of everything."""
    with cluster(tmp_path_factory.mktemp("three")) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One ClickHouse for all tests here: each has a database of its own."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


def deployment(
    three: LocalCluster, server: EmbeddedServer, folder: Path, model: TrafficModel = MODEL
) -> tuple[Deployment, GroundTruth]:
    """Return a deployment whose topics have a copy on each broker, with all traffic in them."""
    made = Deployment.without_topics(three.servers, server, folder, **SLOW)
    asyncio.run(create_topics(made.settings, partitions=model.partitions, replication_factor=3))
    return made, write_traffic_to_kafka(model, made.settings)


def test_the_coordinator_is_killed_under_load(
    three: LocalCluster, server: EmbeddedServer, tmp_path: Path
) -> None:
    """The group's coordinator goes while lanes fetch, commit and announce: all lanes go on without it, and no event is
    lost or doubled.
    """
    made, ground_truth = deployment(three, server, tmp_path)
    with ExitStack() as stack:
        ledger = LedgerReader(stack.enter_context(made.client()), made.settings.database)
        workers = [stack.enter_context(made.worker(name)) for name in ("first", "second")]
        workers[0].until(lambda: all(owned_lanes(worker) for worker in workers))
        ledger.wait_for_batches(workers[0], BATCHES_BETWEEN)
        node = asyncio.run(coordinator(three.servers, made.settings.group))
        os.kill(three.brokers[node].pid, signal.SIGKILL)
        wait_for_every_lane(ledger, workers[0])
        three.brokers[node].kill()
        three.brokers[node].start()
        asyncio.run(in_sync(three.servers, 3))
        assert ledger.records() < ground_truth.records_received, "there was traffic to the end"
        for worker in workers:
            worker.process.send_signal(signal.SIGTERM)
        for worker in workers:
            assert worker.wait() == 0, worker.err
            assert "Traceback" not in worker.err
    made.run_to_the_end("last", *FAST)
    made.assert_expected(ground_truth)


def wait_for_every_lane(ledger: LedgerReader, worker: Command) -> None:
    """Return when each lane has done two more batches: the first may have been under way."""
    before = ledger.newest()
    worker.until(lambda: all(n >= before.get(lane, 0) + 2 for lane, n in ledger.newest().items()))


@pytest.mark.slow
async def test_the_only_broker_that_a_worker_knows_dies(
    three: LocalCluster, server: EmbeddedServer, tmp_path: Path
) -> None:
    """While the others are back, a worker that knows of none of them finds them by the configured servers, and goes on."""
    made, ground_truth = await asyncio.to_thread(deployment, three, server, tmp_path)
    only, *others = three.brokers
    with made.client() as client:
        ledger = LedgerReader(client, made.settings.database)
        async with worker_here(made) as worker, asyncio.timeout(4 * PATIENCE_SECONDS):
            await at_least(ledger, 1)
            for node in others:
                three.brokers[node].kill()
            while worker.source.known_brokers != {only}:  # noqa: ASYNC110 - the cluster tells nobody
                await asyncio.sleep(LOOK_SECONDS)
            await worker.source.hold()  # a worker without errors asks for no metadata
            await asyncio.gather(*(asyncio.to_thread(three.brokers[node].start) for node in others))
            await in_sync(three.servers, 3)
            assert worker.source.known_brokers == {only}
            three.brokers[only].kill()
            worker.source.gate.set()
            await at_least(ledger, ledger.records() + 10 * SLOW["batch_rows_max"])
            assert worker.source.known_brokers == set(others)
        three.brokers[only].start()
        await in_sync(three.servers, 3)
    await asyncio.to_thread(made.run_to_the_end, "last", *FAST)
    made.assert_expected(ground_truth)


async def at_least(ledger: LedgerReader, records: int) -> None:
    while ledger.records() < records:  # noqa: ASYNC110 - a table
        await asyncio.sleep(LOOK_SECONDS)
