"""Whatever is killed and whenever, every table ends equal to the ground truth, and the ledger conserved and continuous."""

import json
import os
import signal
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path

import pytest
from clickhouse_driver.errors import Error as DriverError

from adledger.loadtest.traffic.ground_truth import GroundTruth
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.loadtest.verification.verify import verify
from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import SinkUnavailable
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.ledger.audit import Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.sinks.connection import NETWORK_ERRORS, Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer, find
from tests.support.clickhouse_servers import SERVERS, AnyServer, address_of, running_server
from tests.support.commands import QUERY_POLL_SECONDS, Command, adledger, started

MODEL = TrafficModel(seed=5, events=150_000, partitions=4, duration_hours=30, duplicate_share=0.05)
DATABASE = "adledger"
QUICK = ("--set", "batch_rows_max=4096", "--set", "rules=none")
SHORT_DEADLINE = ("--set", "write_deadline_seconds=1")
WORKER_KILLS, SERVER_KILLS = 3, 2
BATCHES_BETWEEN = 3


def filled(log: Path, model: TrafficModel) -> GroundTruth:
    with open_log(log, model.partitions) as writer:
        return write_traffic(model, writer, lambda _: None).ground_truth


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AnyServer]:
    with running_server(request.param, tmp_path / "clickhouse") as server:
        yield server


def run_arguments(
    log: Path, server: AnyServer, *more: str, deadline: Sequence[str] = SHORT_DEADLINE
) -> tuple[str, ...]:
    clickhouse = f"clickhouse://{server.host}:{server.port}/?http_port={server.http_port}"
    return ("run", "--source", f"files:{log}", "--clickhouse", clickhouse, *QUICK, *deadline, *more)


def ledger(client: Client) -> tuple[int, int]:
    """Return (batches, records) of the ledger; zeros where there is none yet or no server."""
    try:
        return client.execute(f"SELECT count(), sum(records_received) FROM {DATABASE}.ledger")[0]
    except (SinkUnavailable, DriverError, *NETWORK_ERRORS):
        client.disconnect()
        return 0, 0


def assert_expected(ground_truth: GroundTruth, client: Client) -> None:
    """Check that every table equals the ground truth, and that ledger and tables agree, batch by batch, counted again."""
    report = verify(ground_truth, client, DATABASE)
    assert report.equal, report
    audited = audit(client, TableNames(DATABASE), Scope(), recount=True)
    assert audited.conserved
    assert audited.continuous
    assert not audited.problems
    assert audited.totals.records_received == ground_truth.records_received


def wait_for_batches(command: Command, client: Client, more: int) -> None:
    before = ledger(client)[0]
    command.until(lambda: ledger(client)[0] >= before + more, poll_seconds=QUERY_POLL_SECONDS)


def unfinished(client: Client) -> int:
    """Return how many batches have rows in `events` and no ledger row."""
    return client.execute(
        f"SELECT uniqExact(lane, batch_no) FROM {DATABASE}.events "
        f"WHERE (lane, batch_no) NOT IN (SELECT lane, batch_no FROM {DATABASE}.ledger)"
    )[0][0]


def stop_in_mid_batch(worker: Command, client: Client) -> None:
    """SIGSTOP the worker between a batch's first insert and its last: verified once stopped, else resumed."""

    def stopped_there() -> bool:
        if not unfinished(client):
            return False
        os.kill(worker.process.pid, signal.SIGSTOP)
        if unfinished(client):
            return True
        os.kill(worker.process.pid, signal.SIGCONT)
        return False

    worker.until(stopped_there)


def test_a_worker_that_is_killed_repeatedly(tmp_path: Path, server: AnyServer) -> None:
    """After several kill -9 in mid-run the next worker completes what was in doubt, and nothing is lost or doubled."""
    log, output = tmp_path / "log", ""
    ground_truth = filled(log, MODEL)
    arguments = run_arguments(log, server, "--until-caught-up")
    with connect(address_of(server)) as client:
        for kill in range(WORKER_KILLS):
            with started(tmp_path / str(kill), *arguments) as worker:
                wait_for_batches(worker, client, BATCHES_BETWEEN)
                stop_in_mid_batch(worker, client)
                os.kill(worker.process.pid, signal.SIGKILL)
                assert worker.wait() == -signal.SIGKILL
                output += worker.err
            assert ledger(client)[1] < ground_truth.records_received
        last = adledger(tmp_path / "last", *arguments)
        assert last.process.returncode == 0, last.err
        assert "in doubt. An earlier owner intended it" in output + last.err
        assert_expected(ground_truth, client)


def test_a_server_that_is_killed_under_its_worker(tmp_path: Path) -> None:
    """After two kill -9 of the worker's own embedded server it is started again, and the worker ends normally."""
    log, data = tmp_path / "log", tmp_path / "clickhouse"
    ground_truth = filled(log, MODEL)
    arguments = (
        "run",
        "--source",
        f"files:{log}",
        "--clickhouse",
        f"embedded:{data}",
        *QUICK,
        *SHORT_DEADLINE,
    )
    with started(tmp_path / "worker", *arguments, "--until-caught-up") as worker:
        killed: set[int] = set()
        for _ in range(SERVER_KILLS):
            worker.until(lambda: (found := find(data)) is not None and found.pid not in killed)
            listening = find(data)
            assert listening is not None
            with connect(ServerAddress(listening.host, listening.port, listening.http_port)) as client:
                wait_for_batches(worker, client, BATCHES_BETWEEN)
                stop_in_mid_batch(worker, client)
                assert ledger(client)[1] < ground_truth.records_received
            os.kill(listening.pid, signal.SIGKILL)
            os.kill(worker.process.pid, signal.SIGCONT)
            killed.add(listening.pid)
        assert worker.wait() == 0, worker.err
    for pid in killed:
        assert f"the embedded ClickHouse (process {pid}) died: starting it again" in worker.err
    assert "in doubt" in worker.err
    assert find(data) is None
    with EmbeddedServer.start(data) as server, connect(address_of(server)) as client:
        assert_expected(ground_truth, client)


def test_a_worker_that_is_told_to_stop(tmp_path: Path, server: AnyServer) -> None:
    """SIGTERM ends a run with 0, its batches done, and the next run goes on without doubt."""
    log = tmp_path / "log"
    ground_truth = filled(log, MODEL)
    with connect(address_of(server)) as client:
        patient = run_arguments(log, server, deadline=("--set", "write_deadline_seconds=60"))
        with started(tmp_path / "stopped", *patient) as worker:
            wait_for_batches(worker, client, BATCHES_BETWEEN)
            os.kill(worker.process.pid, signal.SIGTERM)
            assert worker.wait() == 0, worker.err
        assert ledger(client)[1] < ground_truth.records_received
        next_one = adledger(tmp_path / "next", *patient, "--until-caught-up")
        assert next_one.process.returncode == 0, next_one.err
        assert "in doubt" not in worker.err + next_one.err
        assert_expected(ground_truth, client)


def test_a_file_that_is_imported_twice(tmp_path: Path, server: AnyServer) -> None:
    """The second time nothing is billed: billable events are duplicates, malformed ones are malformed again."""
    log = tmp_path / "log"
    with resources.as_file(resources.files("adledger.loadtest.real_logs") / "apache_access.log.gz") as file:
        arguments = ("import", str(file), "--format", "access-log", "--to", f"files:{log}")
        classes = []
        for time in ("first", "second"):
            imported = adledger(tmp_path / f"import-{time}", *arguments)
            assert imported.process.returncode == 0, imported.err
            run = adledger(tmp_path / time, *run_arguments(log, server, "--until-caught-up", "--json"))
            assert run.process.returncode == 0, run.err
            classes.append(json.loads(run.out)["classes"])
    once, twice = classes
    assert twice["billable"] == once["billable"]
    assert once["billable"]["records"] > 0
    again = twice["duplicate"]["records"] + twice["expired"]["records"]
    assert (
        again == once["billable"]["records"] + 2 * once["duplicate"]["records"] + once["expired"]["records"]
    )
    assert twice["malformed"]["records"] == 2 * once["malformed"]["records"]
