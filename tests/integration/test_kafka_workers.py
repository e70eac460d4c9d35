"""Worker processes on a real broker: however they come, go and die, every table equals the ground truth, to the nano."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import resources
from pathlib import Path

import pytest

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.lab.clickhouse_server import ClickHouseServer
from adledger.loadtest.real_logs.expected import expected_of_files
from adledger.loadtest.traffic.ground_truth import GroundTruth
from adledger.loadtest.traffic.model import TrafficModel
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.brokers import running_broker
from tests.support.clickhouse_servers import EMBEDDED, OWN, SERVERS, AnyServer, running_server
from tests.support.commands import Command, adledger
from tests.support.kafka_deployment import Deployment, LedgerReader, owned_lanes
from tests.support.kafka_traffic import write_traffic_to_kafka

MODEL = TrafficModel(seed=21, events=40_000, partitions=4, duration_hours=30, duplicate_share=0.05)
LANES = set(range(MODEL.partitions))

SLOW = {"batch_rows_max": 128, "inserts_per_second_max": 16}
"""Four batches a second a worker: there is traffic for as long as a slow machine takes for what happens to them."""
FAST = ("--set", "batch_rows_max=65536", "--set", "inserts_per_second_max=1000")
"""For the last one, which ends what is left."""
BATCHES_BETWEEN = 3

DATA = Path(str(resources.files("adledger.loadtest"))) / "real_logs"
REAL = (("access-log", DATA / "apache_access.log.gz"), ("open-bandit", DATA / "open_bandit_women.csv.gz"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One ClickHouse for tests that kill no worker, with a database of their own each."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture(params=SERVERS)
def own_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyServer]:
    """Return a server for one test alone: ClickHouse's own may end with a killed client's connection, and start again."""
    with running_server(request.param, tmp_path / "clickhouse") as server:
        yield server


def test_real_logs_and_generated_events(
    kafka: LocalBroker, clickhouse_server: ClickHouseServer, tmp_path: Path
) -> None:
    """With both real logs imported by the command, and generated events after them, one worker produces the ground truth."""
    deployment = Deployment.make(kafka.servers, clickhouse_server, tmp_path, partitions=MODEL.partitions)
    for format_name, path in REAL:
        imported = adledger(
            tmp_path / format_name, "import", str(path), "--format", format_name,
            "--to", str(deployment.settings.source), "--config", str(tmp_path / "adledger.toml"),
        )  # fmt: skip
        assert imported.process.returncode == 0, imported.err
    real = expected_of_files(REAL, MODEL.partitions, MODEL.currency)
    ground_truth = GroundTruth.of(real, MODEL.partitions).merge(
        write_traffic_to_kafka(MODEL, deployment.settings)
    )
    ended = deployment.run_to_the_end("worker", "--json")
    summary = json.loads(ended.out)
    assert (summary["records_received"], summary["conserved"], summary["continuous"]) == (
        MODEL.events + len(real), True, True
    )  # fmt: skip
    assert "in doubt" not in ended.err
    deployment.assert_expected(ground_truth)


def test_workers_come_and_go_and_die(kafka: LocalBroker, own_server: AnyServer, tmp_path: Path) -> None:
    """Two join in mid-run, one leaves by SIGTERM, one is killed in mid-batch: no lane has two owners, and every table is
    right.
    """
    deployment = Deployment.make(kafka.servers, own_server, tmp_path, partitions=MODEL.partitions, **SLOW)
    server_pid = own_server.pid
    ground_truth = write_traffic_to_kafka(MODEL, deployment.settings)
    with ExitStack() as stack:
        ledger = LedgerReader(stack.enter_context(deployment.client()), deployment.settings.database)
        first = stack.enter_context(deployment.worker("first"))
        second = stack.enter_context(deployment.worker("second"))
        ledger.wait_for_batches(first, BATCHES_BETWEEN)
        third = stack.enter_context(deployment.worker("third"))
        third.until(lambda: shared(first, second, third))
        ledger.wait_for_batches(third, BATCHES_BETWEEN)

        second.process.send_signal(signal.SIGTERM)
        assert second.wait() == 0, second.err
        third.until(lambda: shared(first, third))
        ledger.wait_for_batches(third, BATCHES_BETWEEN)

        [(lane, batch_no), *_] = ledger.kill_in_mid_batch(third, owned_lanes(third))
        intent = asyncio.run(deployment.intents())[lane]
        assert (intent["lane"], intent["batch"]) == (lane, batch_no), "intended, and not in the ledger"
        first.until(lambda: shared(first))
        first.until(lambda: f"lane {lane}, batch {batch_no}: settled" in first.err)
        assert f"lane {lane}, batch {batch_no}: in doubt. An earlier owner intended it" in first.err
        ledger.wait_for_batches(first, BATCHES_BETWEEN)

        assert ledger.records() < ground_truth.records_received, "there was traffic to the end"
        first.process.send_signal(signal.SIGTERM)
        assert first.wait() == 0, first.err
    last = deployment.run_to_the_end("last", *FAST)
    if own_server.pid == server_pid:  # else the first may have left while it was away
        assert "in doubt" not in last.err + second.err, "who leaves in order leaves no doubt"
    assert not any("Traceback" in worker.err for worker in (first, second, third, last))
    deployment.assert_expected(ground_truth)


@pytest.mark.parametrize("own_server", [OWN, pytest.param(EMBEDDED, marks=pytest.mark.slow)], indirect=True)
def test_a_worker_that_is_paused_past_its_session(
    kafka: LocalBroker, own_server: AnyServer, tmp_path: Path
) -> None:
    """After SIGSTOP in mid-batch until another has completed the batch and gone on, the worker gives its lanes back and
    harms nothing.

    No intent reverts to one of its own, and no table has a row of its twice.
    """
    deployment = Deployment.make(kafka.servers, own_server, tmp_path, partitions=MODEL.partitions, **SLOW)
    ground_truth = write_traffic_to_kafka(MODEL, deployment.settings)
    with ExitStack() as stack:
        ledger = LedgerReader(stack.enter_context(deployment.client()), deployment.settings.database)
        zombie, successor = (stack.enter_context(deployment.worker(name)) for name in ("zombie", "successor"))
        zombie.until(lambda: shared(zombie, successor))
        ledger.wait_for_batches(zombie, BATCHES_BETWEEN)
        mine = owned_lanes(zombie)
        [(lane, batch_no), *_] = ledger.stop_in_mid_batch(zombie, mine)
        successor.until(lambda: shared(successor))
        successor.until(lambda: f"lane {lane}, batch {batch_no}: settled" in successor.err)
        ledger.wait_for_batches(successor, BATCHES_BETWEEN)
        intended = {n: asyncio.run(deployment.intents())[n]["batch"] for n in mine}
        assert intended[lane] >= batch_no
        given_back = zombie.err.count("lanes given back")
        os.kill(zombie.process.pid, signal.SIGCONT)
        zombie.until(lambda: zombie.err.count("lanes given back") > given_back)
        successor.until(lambda: shared(zombie, successor))
        intents = asyncio.run(deployment.intents())
        assert all(intents[n]["batch"] >= batch for n, batch in intended.items()), (
            "no older intent overwrote a newer one"
        )
        ledger.wait_for_batches(successor, BATCHES_BETWEEN)
        assert ledger.records() < ground_truth.records_received, "there was traffic to the end"
        for worker in (zombie, successor):
            worker.process.send_signal(signal.SIGTERM)
        for worker in (zombie, successor):
            assert worker.wait() == 0, worker.err
            assert "Traceback" not in worker.err
    deployment.run_to_the_end("last", *FAST)
    deployment.assert_expected(ground_truth)


def test_a_broker_that_is_killed_under_its_workers(server: EmbeddedServer, tmp_path: Path) -> None:
    """After kill -9 of the broker, and a restart on the same data, two workers log their retries and go on."""
    with running_broker(tmp_path / "broker") as broker, ExitStack() as stack:
        deployment = Deployment.make(broker.servers, server, tmp_path, partitions=MODEL.partitions, **SLOW)
        ground_truth = write_traffic_to_kafka(MODEL, deployment.settings)
        ledger = LedgerReader(stack.enter_context(deployment.client()), deployment.settings.database)
        workers = [stack.enter_context(deployment.worker(name)) for name in ("first", "second")]
        workers[0].until(lambda: shared(*workers))
        ledger.wait_for_batches(workers[0], BATCHES_BETWEEN)
        broker.kill()
        for worker in workers:
            worker.until(lambda worker=worker: "Connection refused" in worker.err)  # type: ignore[misc]
        broker.start()
        workers[0].until(lambda: shared(*workers))
        ledger.wait_for_batches(workers[0], BATCHES_BETWEEN)
        assert ledger.records() < ground_truth.records_received, "there was traffic to the end"
        for worker in workers:
            worker.process.send_signal(signal.SIGTERM)
        for worker in workers:
            assert worker.wait() == 0, worker.err
            assert "Traceback" not in worker.err
        deployment.run_to_the_end("last", *FAST)
        deployment.assert_expected(ground_truth)


@pytest.mark.parametrize("partitions", [8, pytest.param(64, marks=pytest.mark.slow)])
def test_two_workers_end_together(
    kafka: LocalBroker, server: EmbeddedServer, tmp_path: Path, partitions: int
) -> None:
    """Two workers started together until caught up both end with 0 and the whole ledger's totals."""
    model = TrafficModel(seed=22, events=20_000, partitions=partitions)
    deployment = Deployment.make(kafka.servers, server, tmp_path, partitions=model.partitions)
    ground_truth = write_traffic_to_kafka(model, deployment.settings)
    with ExitStack() as stack:
        workers = [
            stack.enter_context(deployment.worker(name, "--until-caught-up", "--json")) for name in ("a", "b")
        ]
        for worker in workers:
            assert worker.wait() == 0, worker.err
            assert json.loads(worker.out)["records_received"] == model.events
            assert "Traceback" not in worker.err
    deployment.assert_expected(ground_truth)


def shared(*workers: Command) -> bool:
    """Whether each lane has one owner among the workers, and their numbers of lanes differ by one at most."""
    owned = [owned_lanes(worker) for worker in workers]
    each_once = sorted(lane for lanes in owned for lane in lanes) == sorted(LANES)
    return each_once and max(map(len, owned)) - min(map(len, owned)) <= 1
