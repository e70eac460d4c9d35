"""Partitions added to topics while workers run: refused, reported everywhere, and then the documented procedure.

The commands are those of docs/partitions.md, unchanged but for this deployment's names.
"""

import json
import re
import shlex
import signal
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.cli.app import app
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.ledger.audit import AuditReport, Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.stages.plain_hashes import partition_of
from adledger.schemas.classes import Class
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.commands import Command, started
from tests.support.files_log import read_log
from tests.support.kafka_deployment import HEARTBEAT_MS, SESSION_MS, Deployment
from tests.support.kafka_traffic import send_records
from tests.support.records import Stored

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "partitions.md"
BEFORE, AFTER = 2, 4
MODEL = TrafficModel(seed=37, events=2_000, partitions=BEFORE, duration_hours=5, duplicate_share=0.1)
KAFKA = {
    "session.timeout.ms": str(SESSION_MS), "heartbeat.interval.ms": str(HEARTBEAT_MS), "metadata.max.age.ms": "500",
}  # fmt: skip
HTTP_SECONDS = 10

Records = Sequence[tuple[int, Stored]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


def test_partitions_added_under_running_workers(
    kafka: LocalBroker, server: EmbeddedServer, tmp_path: Path
) -> None:
    """New lanes are not read halfway: /readyz, logs and `lane status` show them as halted, while the old ones go on.

    Then the procedure is followed as written: no record is lost, and what was sent before the barrier is a duplicate after
    it.
    """
    made = Deployment.make(
        kafka.servers, server, tmp_path, partitions=BEFORE, write_deadline_seconds=1,
        kafka=KAFKA, web_host="127.0.0.1", web_port=0,
    )  # fmt: skip
    sent = traffic(tmp_path / "log")
    topics_alter, (order_dry, order), (status, check) = guide(kafka, made)
    send_records(made.settings, sent, BEFORE)
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(made, name)) for name in ("first", "second")]
        for one in workers:
            one.until(lambda one=one: readyz(one)["ready"])  # type: ignore[misc]
        workers[0].until(lambda: received(made) == len(sent))

        for alter in topics_alter:
            alter()
        workers[0].until(lambda: {lane for one in workers for lane in halted_lanes(one)} == {2, 3})
        for one in workers:
            check_halted_lanes(one)

        again, deferred = repeated(sent, 5, 0), repeated(sent, 5, 1)
        send_records(made.settings, again, AFTER)
        to_old = sum(partition_of(r[2], AFTER) < BEFORE if r[2] else 1 for _, r in again)
        workers[0].until(lambda: received(made) == len(sent) + to_old)
        check_lane_status(made, workers)
        for one in workers:
            one.process.send_signal(signal.SIGTERM)
        for one in workers:
            one.wait()
            assert "Traceback" not in one.err

    before = checked(made)
    dry = order_dry()
    assert [row["lane"] for row in dry["overrides"]] == [0, 1, 2, 3]
    assert order()["overrides"] == dry["overrides"]
    send_records(made.settings, deferred, AFTER)
    made.run_to_the_end("behind-the-barrier")
    after = checked(made)
    assert after.totals.records_received == len(sent) + len(again) + len(deferred)
    repeats_after = after.totals.records_received - before.totals.records_received
    assert grew(before, after, Class.DUPLICATE) + grew(before, after, Class.MALFORMED) == repeats_after
    assert all(not status["trouble"] for status in status()["lanes"])
    assert check()["problems"] == []


def check_halted_lanes(one: Any) -> None:
    """/readyz and the worker's log show its new lanes as halted."""
    for number, reason in halted_lanes(one).items():
        assert not readyz(one)["ready"]
        assert f"lane {number}: partitions were added: there were {BEFORE}" in reason
        assert f"lane {number} halted: {reason.removeprefix(f'lane {number}: ')}" in one.err


def check_lane_status(made: Deployment, workers: Sequence[Any]) -> None:
    """`lane status` shows the old lanes at work and the new ones halted, with nothing written."""
    result = command(made, "lane", "status")
    assert result.exit_code == 1, "lanes are halted"
    statuses = json.loads(result.stdout)["lanes"]
    assert all("partitions were added" in status["trouble"] for status in statuses)
    works = [status["owner"]["phase"] in {"running", "idle"} for status in statuses]
    assert works == [True, True, False, False]
    pids = {status["owner"]["worker"].rpartition(":")[2] for status in statuses}
    assert pids == {str(one.process.pid) for one in workers}
    assert [status["batch_no"] for status in statuses[BEFORE:]] == [None, None]


def worker(made: Deployment, name: str) -> Any:
    """Start a worker with its pages."""
    return started(made.folder / name, "run", "--config", str(made.folder / "adledger.toml"))


def readyz(of: Command) -> dict[str, Any]:
    """Return a worker's /readyz response; {"ready": False} before it has one."""
    found = re.search(r"pages at (http://\S+/)", of.err)
    if found is None:
        return {"ready": False}
    try:
        with urllib.request.urlopen(found[1] + "readyz", timeout=HTTP_SECONDS) as answer:
            return json.loads(answer.read())  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        with error:
            return json.loads(error.read())  # type: ignore[no-any-return]
    except OSError:
        return {"ready": False}


def halted_lanes(of: Command) -> dict[int, str]:
    """Return the lanes that a worker reports as halted, and why."""
    lanes = readyz(of).get("stalled", ())
    return {lane["lane"]: lane["detail"] for lane in lanes if lane["phase"] == "halted"}


def command(made: Deployment, *arguments: str) -> Result:
    """Run one of our commands, in this process."""
    return CliRunner().invoke(app, [*arguments, "--json", "--config", str(made.folder / "adledger.toml")])


def guide(kafka: LocalBroker, made: Deployment) -> list[list[Callable[[], Any]]]:
    """Return the guide's commands, block by block, in this deployment's names."""
    text = GUIDE.read_text("utf-8")
    names = {
        "k1:9092": kafka.servers, "ad.impressions": made.settings.topics[0], "ad.clicks": made.settings.topics[1],
        "--partitions 32": f"--partitions {AFTER}",
    }  # fmt: skip
    for name, ours in names.items():
        text = text.replace(name, ours)
    blocks = re.findall(r"(?:^ {7}(?:kafka-topics\.sh|adledger) .*\n)+", text, re.MULTILINE)
    assert [block.count("\n") for block in blocks] == [2, 2, 2]
    return [[output_of(kafka, made, line.strip()) for line in block.splitlines()] for block in blocks]


def output_of(kafka: LocalBroker, made: Deployment, line: str) -> Callable[[], Any]:
    """Return what a command prints; it must succeed."""
    program, *arguments = shlex.split(line)

    def tool() -> None:
        ended = kafka.tool("org.apache.kafka.tools.TopicCommand", *arguments)
        assert ended.returncode == 0, ended.stderr

    def ours() -> Any:
        ended = command(made, *arguments)
        assert ended.exit_code == 0, ended.exception
        return json.loads(ended.stdout)

    return tool if program == "kafka-topics.sh" else ours


def traffic(folder: Path) -> list[tuple[int, Stored]]:
    """Return the model's records, each with its topic's index."""
    with open_log(folder, BEFORE) as writer:
        write_traffic(MODEL, writer, lambda _: None)
    return [(topic, record) for (topic, _), records in read_log(folder).items() for record in records]


def repeated(sent: Records, every: int, place: int) -> list[tuple[int, Stored]]:
    """Return some records again, as they would come after the last."""
    last = max(time for _, (_, time, _, _) in sent)
    return [
        (topic, (o, last + i, k, v)) for i, (topic, (o, _, k, v)) in enumerate(sent) if i % every == place
    ]


def received(made: Deployment) -> int:
    """Return how many records are in the ledger."""
    with made.client() as client:
        return int(client.execute(f"SELECT sum(records_received) FROM {made.settings.database}.ledger")[0][0])


def checked(made: Deployment) -> AuditReport:
    """Return the audit, which must have no problems."""
    with made.client() as client:
        report = audit(client, TableNames(made.settings.database), Scope(), recount=True)
    assert not report.problems, report.problems
    return report


def grew(before: AuditReport, after: AuditReport, of: Class) -> int:
    return after.totals.records[of] - before.totals.records[of]
