"""Several brokers, hurt one at a time: workers go on, find the cluster again, and every table stays true."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from aiokafka.client import AIOKafkaClient, CoordinationType

from adledger.loadtest.lab.kafka_jars import KafkaMissing, kafka_jars
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.contracts.source_suite import PARTITIONS, Listener, joined
from tests.support.kafka_cluster import LocalCluster, cluster
from tests.support.kafka_deployment import Deployment, LedgerLook
from tests.support.kafka_log import KafkaLog
from tests.support.kafka_traffic import write_traffic_to_kafka
from tests.support.services import missing

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODEL = TrafficModel(seed=21, events=40_000, partitions=4, duration_hours=30, duplicate_share=0.05)
SLOW = {"batch_rows_max": 128, "inserts_per_second_max": 16}
FAST = ("--set", "batch_rows_max=65536", "--set", "inserts_per_second_max=1000")
BATCHES_BETWEEN = 8
PATIENCE_SECONDS = 90
SESSION = {"heartbeat_interval_ms": "500", "session_timeout_ms": "300000"}
"""Far beyond PATIENCE_SECONDS: who waits for the session of a member that is gone, waits too long."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three brokers, each with a copy of everything."""
    needs_kafka()
    with cluster(tmp_path_factory.mktemp("three")) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


def needs_kafka() -> None:
    try:
        kafka_jars()
    except KafkaMissing as error:
        missing("Kafka", error)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - many things may make it true
            await asyncio.sleep(0.05)


async def coordinator(servers: str, group: str) -> int:
    client = AIOKafkaClient(bootstrap_servers=servers)
    await client.bootstrap()
    try:
        return await client.coordinator_lookup(CoordinationType.GROUP, group)
    finally:
        await client.close()


async def in_sync(servers: str, brokers: int) -> None:
    """Return when every partition of every topic has as many copies in sync."""
    client = AIOKafkaClient(bootstrap_servers=servers)
    await client.bootstrap()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                found = await client.fetch_all_metadata()
                partitions = [p for topic in found._partitions.values() for p in topic.values()]
                if partitions and all(len(p.isr) >= brokers for p in partitions):
                    return
                await asyncio.sleep(0.2)
    finally:
        await client.close()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["rolled", "killed"])
async def test_a_rejoin_does_not_wait_for_the_session_of_the_old_member(
    three: LocalCluster, end: int
) -> None:
    """The coordinator goes; members that join anew are given all lanes, though the old ones' sessions last for minutes."""
    log = await KafkaLog(three, replicas=3).make()
    members = [log.member(**SESSION), log.member(**SESSION)]
    listeners = [await joined(members[0]), Listener()]
    await members[1].join(listeners[1])
    await until(lambda: shared(listeners))
    node = await coordinator(three.servers, f"{log.name}-group")
    before = {a.member_id for listener in listeners for a in listener.assigned.values()}
    os.kill(three.brokers[node].pid, end)
    try:
        await asyncio.gather(*(member.rejoin() for member in members))
        await until(lambda: shared(listeners) and not before & ids(listeners))
        for member in members:
            await member.leave()
    finally:
        three.brokers[node].kill()
        three.brokers[node].start()
        await in_sync(three.servers, 3)


def ids(listeners: list[Listener]) -> set[str]:
    return {a.member_id for listener in listeners for a in listener.assigned.values()}


def shared(listeners: list[Listener]) -> bool:
    lanes = sorted(lane for listener in listeners for lane in listener.assigned)
    return lanes == list(range(PARTITIONS)) and all(listener.assigned for listener in listeners)


def test_brokers_are_lost_under_load(three: LocalCluster, server: EmbeddedServer, tmp_path: Path) -> None:
    """kill -9 of the coordinator, then a graceful stop of another broker, while two workers work: all is true."""
    deployment = Deployment.without_topics(three.servers, server, tmp_path, **SLOW)
    asyncio.run(create_topics(deployment.settings, partitions=MODEL.partitions, replication_factor=3))
    truth = write_traffic_to_kafka(MODEL, deployment.settings)
    with ExitStack() as stack:
        look = LedgerLook(stack.enter_context(deployment.client()), deployment.settings.database)
        workers = [stack.enter_context(deployment.worker(name)) for name in ("first", "second")]
        look.wait_for_batches(workers[0], BATCHES_BETWEEN)
        for stop in ("kill", "stop"):
            node = asyncio.run(coordinator(three.servers, deployment.settings.group))
            getattr(three.brokers[node], stop)()
            look.wait_for_batches(workers[0], BATCHES_BETWEEN)
            three.brokers[node].start()
            asyncio.run(in_sync(three.servers, 3))
        for worker in workers:
            worker.process.send_signal(signal.SIGTERM)
            assert worker.wait() == 0, worker.err
            assert "Traceback" not in worker.err
    deployment.run_to_the_end("last", *FAST)
    deployment.assert_true(truth)


def test_a_worker_finds_the_cluster_again_when_the_one_broker_it_knows_is_gone(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    """Of two brokers one is away until the worker knows only the other; that one goes when the first is back.

    A worker that is stopped while no broker is there ends in order, and its log has no traceback.
    """
    needs_kafka()
    with cluster(tmp_path / "kafka", brokers=2) as two, ExitStack() as stack:
        deployment = Deployment.without_topics(two.servers, server, tmp_path / "workers", **SLOW)
        asyncio.run(create_topics(deployment.settings, partitions=MODEL.partitions, replication_factor=2))
        write_traffic_to_kafka(MODEL, deployment.settings)
        look = LedgerLook(stack.enter_context(deployment.client()), deployment.settings.database)
        worker = stack.enter_context(deployment.worker("worker"))
        look.wait_for_batches(worker, BATCHES_BETWEEN)
        two.brokers[1].stop()
        look.wait_for_batches(worker, BATCHES_BETWEEN)
        two.brokers[1].start()
        asyncio.run(in_sync(two.servers, 2))
        two.brokers[2].kill()
        look.wait_for_batches(worker, BATCHES_BETWEEN)
        two.brokers[1].kill()
        worker.until(lambda: "Unable" in worker.err)
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 0, worker.err
        assert "Traceback" not in worker.err
