"""What a lost or restarted broker costs a running deployment: pauses are printed, exactness is asserted.

Three brokers with Kafka's own session for brokers (9 s), two workers with the default times of their group.
"""

import asyncio
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.integration.test_kafka_cluster import coordinator, in_sync
from tests.support.kafka_cluster import LocalCluster, cluster
from tests.support.kafka_deployment import Deployment, LedgerReader, owned_lanes
from tests.support.kafka_traffic import write_traffic_to_kafka
from tests.support.pauses import longest_gaps, pauses

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LANES = 8
MODEL = TrafficModel(seed=21, events=110_000, partitions=LANES, duration_hours=30, duplicate_share=0.05)
PACED = {"batch_rows_max": 64, "inserts_per_second_max": 32}
"""Two batches a second in each lane, so that a pause shows, and traffic for as long as the measurement takes."""
DEFAULT_TIMES = {
    "write_deadline_seconds": 10,
    "revoke_ms_max": 5_000,
    "retry_backoff_ms_max": 5_000,
    "kafka": {},
}
BROKER_SESSION = {"broker_session_timeout_ms": "9000", "broker_heartbeat_interval_ms": "2000"}
FAST = ("--set", "batch_rows_max=65536", "--set", "inserts_per_second_max=1000")
STEADY_SECONDS, AFTER_SECONDS = 8.0, 15.0
FAULTS = {
    "coordinator rolled": (signal.SIGTERM, True),
    "coordinator killed": (signal.SIGKILL, True),
    "another broker killed": (signal.SIGKILL, False),
}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three brokers, each with a copy of everything."""
    with cluster(tmp_path_factory.mktemp("three"), **BROKER_SESSION) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One ClickHouse for all tests here: each has a database of its own."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.mark.parametrize("fault", FAULTS)
def test_every_table_is_exact_after(
    fault: str,
    three: LocalCluster,
    server: EmbeddedServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lanes pause while the brokers elect leaders and a coordinator; nothing is lost or doubled. The pause is printed."""
    end, of_coordinator = FAULTS[fault]
    made = Deployment.without_topics(three.servers, server, tmp_path, **PACED, **DEFAULT_TIMES)
    asyncio.run(create_topics(made.settings, partitions=LANES, replication_factor=3))
    ground_truth = write_traffic_to_kafka(MODEL, made.settings)
    with ExitStack() as stack:
        ledger = LedgerReader(stack.enter_context(made.client()), made.settings.database)
        workers = [stack.enter_context(made.worker(name)) for name in ("first", "second")]
        workers[0].until(lambda: all(owned_lanes(worker) for worker in workers))
        workers[0].until(lambda: len(ledger.newest()) == LANES and min(ledger.newest().values()) > 1)
        steady = longest_gaps(ledger, lambda passed: passed >= STEADY_SECONDS)
        node = asyncio.run(coordinator(three.servers, made.settings.group))
        lost = node if of_coordinator else next(other for other in three.brokers if other != node)
        others = [broker.servers for n, broker in three.brokers.items() if n != lost]
        found = pauses(
            ledger, others, made.settings.group, lost, lambda: os.kill(three.brokers[lost].pid, end), AFTER_SECONDS
        )  # fmt: skip
        with capsys.disabled():
            sys.stdout.write(
                f"\n{fault}: {found}; before it {max(steady.values()):.1f} s between two batches\n"
            )
        assert ledger.records() < ground_truth.records_received, "there was traffic to the end"
        three.brokers[lost].kill()
        three.brokers[lost].start()
        asyncio.run(in_sync(three.servers, len(three.brokers)))
        for worker in workers:
            worker.process.send_signal(signal.SIGTERM)
        for worker in workers:
            assert worker.wait() == 0, worker.err
            assert "Traceback" not in worker.err
    made.run_to_the_end("last", *FAST)
    made.assert_expected(ground_truth)
