"""Worker processes on a real broker: however they come, go and die, every table equals the truth, to the nano."""

import json
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import resources
from pathlib import Path

import pytest

from loadtest.broker import LocalBroker
from loadtest.model import TrafficModel
from loadtest.real_truth import expected_of_files
from loadtest.truth import Truth
from sinks.embedded.launch import EmbeddedServer
from tests.support.commands import adledger
from tests.support.kafka_deployment import Deployment, LedgerLook, held_lanes
from tests.support.kafka_traffic import write_traffic_to_kafka

MODEL = TrafficModel(seed=21, events=40_000, partitions=4, duration_hours=30, duplicate_share=0.05)
SLOW = {"batch_rows_max": 256, "inserts_per_second_max": 40}
"""Ten batches a second a worker: traffic lasts as long as members come and go."""

DATA = Path(str(resources.files("loadtest"))) / "data"
REAL = (("access-log", DATA / "apache_access.log.gz"), ("open-bandit", DATA / "open_bandit_women.csv.gz"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One ClickHouse for all tests here: each has a database of its own."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


def test_real_logs_and_generated_events(kafka: LocalBroker, server: EmbeddedServer, tmp_path: Path) -> None:
    """Both real logs imported by the command, generated events behind them: one worker makes of them the truth."""
    deployment = Deployment.make(kafka.servers, server, tmp_path, partitions=MODEL.partitions)
    for format_name, path in REAL:
        imported = adledger(
            tmp_path / format_name, "import", str(path), "--format", format_name,
            "--to", str(deployment.settings.source), "--config", str(tmp_path / "adledger.toml"),
        )  # fmt: skip
        assert imported.process.returncode == 0, imported.err
    real = expected_of_files(REAL, MODEL.partitions, MODEL.currency)
    truth = Truth.of(real, MODEL.partitions).merge(write_traffic_to_kafka(MODEL, deployment.settings))
    ended = deployment.run_to_the_end("worker", "--json")
    summary = json.loads(ended.out)
    assert (summary["records_received"], summary["conserved"], summary["continuous"]) == (
        MODEL.events + len(real), True, True
    )  # fmt: skip
    assert "in doubt" not in ended.err
    deployment.assert_true(truth)


def test_workers_come_and_go_and_die(kafka: LocalBroker, server: EmbeddedServer, tmp_path: Path) -> None:
    """A second and third join in mid-run, one leaves by SIGTERM, one is killed in mid-batch: the truth all the same."""
    deployment = Deployment.make(kafka.servers, server, tmp_path, partitions=MODEL.partitions, **SLOW)
    truth = write_traffic_to_kafka(MODEL, deployment.settings)
    everything = set(range(MODEL.partitions))
    with ExitStack() as stack:
        look = LedgerLook(stack.enter_context(deployment.client()), deployment.settings.database)
        first = stack.enter_context(deployment.worker("first"))
        look.wait_for_batches(first, 3)
        second = stack.enter_context(deployment.worker("second"))
        third = stack.enter_context(deployment.worker("third"))
        third.until(lambda: all(held_lanes(worker) for worker in (first, second, third)))
        assert_shared(everything, held_lanes(first), held_lanes(second), held_lanes(third))
        look.wait_for_batches(third, 3)
        second.process.send_signal(signal.SIGTERM)
        assert second.wait() == 0, second.err
        third.until(lambda: not held_lanes(second) and held_lanes(first) | held_lanes(third) == everything)
        look.wait_for_batches(third, 3)
        lost = held_lanes(third)
        in_doubt = look.kill_in_mid_batch(third, lost)
        assert look.records() < truth.records_received, "there is traffic to the end"
        first.until(lambda: held_lanes(first) == everything)
        first.until(
            lambda: all(f"lane {lane}, batch {batch}: settled" in first.err for lane, batch in in_doubt)
        )
        for lane, batch in in_doubt:
            assert f"lane {lane}: batch {batch} was intended and is not in the ledger: in doubt" in first.err
        last = deployment.run_to_the_end(
            "last", "--set", "inserts_per_second_max=1000", "--set", "batch_rows_max=65536"
        )
        first.process.send_signal(signal.SIGTERM)
        assert first.wait() == 0, first.err
    for worker in (first, second, third, last):
        assert "Traceback" not in worker.err
    deployment.assert_true(truth)


def assert_shared(everything: set[int], *held: set[int]) -> None:
    """Each lane has one owner, and nobody has more than one more than another."""
    assert sorted(lane for lanes in held for lane in lanes) == sorted(everything)
    assert max(map(len, held)) - min(map(len, held)) <= 1
