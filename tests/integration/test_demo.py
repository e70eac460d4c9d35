"""The demo, as a newcomer runs it: everything equals the ground truth, and a later alteration is found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from adledger.loadtest.demo.procedure import CLICKHOUSE, EVENTS_PER_ACTOR, demo_model, fresh_folder
from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.script import SLOTS_OF_SCENARIO
from adledger.loadtest.verification.verdicts import check_verdicts
from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import UsageError
from adledger.pipeline.ledger.queries import TableNames, totals
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.rules.loader import today
from adledger.pipeline.settings import Settings
from adledger.schemas.classes import Class, Reason
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer

EVENTS = 60_000
CLASSES = {"billable", "duplicate", "givt", "sivt", "expired", "malformed", "lost"}


def adledger(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "adledger", *arguments],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> tuple[Path, subprocess.CompletedProcess]:
    folder = tmp_path_factory.mktemp("demo") / "data"
    return folder, adledger(
        "demo", "--events", str(EVENTS), "--seed", "3", "--data-dir", str(folder), "--json"
    )


def test_the_demo_equals_its_ground_truth(demo):
    """It exits with 0, and its one JSON object reports that everything adds up, to the nano."""
    _, done = demo
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["truth_equal"] is found["conserved"] is found["continuous"] is True
    assert found["wrong"] == []
    assert (
        found["records_received"] == EVENTS + 20_046 == sum(c["records"] for c in found["classes"].values())
    )
    assert set(found["classes"]) == CLASSES
    assert found["classes"]["billable"]["money_nanos"] > 0
    assert found["classes"]["duplicate"]["records"] > 0
    assert found["classes"]["malformed"] | {"money_nanos": None} == found["classes"]["malformed"]
    assert found["events_per_second"] > 0
    assert found["cpu_seconds"] > 0


def test_the_demo_shows_what_the_rules_find(demo):
    """The access log's bots and the scripted attacks are filtered by default, and evaluating them again agrees."""
    found = json.loads(demo[1].stdout)
    assert found["classes"]["givt"]["records"] > 2_700
    assert found["classes"]["sivt"]["records"] > 50
    assert found["verdicts_evaluated_again"] > 20
    reasons = adledger(
        "query", "SELECT DISTINCT reason FROM v_reasons WHERE step IN ('givt', 'sivt')",
        "--clickhouse", f"embedded:{demo[0] / CLICKHOUSE}",
    )  # fmt: skip
    assert {"UA_KNOWN_BOT", "IP_DATACENTER", "DOUBLE_CLICK", "USER_VELOCITY"} <= set(reasons.stdout.split())


@pytest.mark.parametrize("events", [1, EVENTS_PER_ACTOR, 3 * EVENTS_PER_ACTOR])
def test_the_traffic_has_the_requested_number_of_records(events):
    """The attacks' records are part of the number, and all of them come before the log ends."""
    model = demo_model(events, 1, Settings())
    rows = [chunk.rows["slot"] >= SLOTS_OF_SCENARIO for chunk in Generator(model).rows()]
    scripted = sum(int(part.sum()) for part in rows)
    assert sum(map(len, rows)) == events
    assert scripted == events - model.events
    assert (scripted > 0) == (events >= EVENTS_PER_ACTOR)


def test_the_folder_can_be_queried(demo):
    """The kept folder answers a query, and the ledger check finds nothing."""
    where = f"embedded:{demo[0] / CLICKHOUSE}"
    counted = adledger("query", "SELECT sum(records_received) FROM ledger", "--clickhouse", where)
    assert counted.stdout.strip() == str(EVENTS + 20_046)
    assert adledger("ledger", "check", "--clickhouse", where).returncode == 0


def test_a_folder_that_is_not_empty_is_refused(demo):
    """Nothing is overwritten: the exit code is 2, with a remedy."""
    refused = adledger("demo", "--events", "10", "--data-dir", str(demo[0]))
    assert refused.returncode == 2
    assert "remedy" in refused.stderr


def test_a_fresh_folder_is_found(tmp_path, monkeypatch):
    """Without an option it is data/demo, then data/demo-2; with one it is that folder, if empty."""
    monkeypatch.chdir(tmp_path)
    assert fresh_folder(None) == Path("data/demo")
    Path("data/demo").mkdir(parents=True)
    assert fresh_folder(None) == Path("data/demo-2")
    assert fresh_folder(Path("data/demo")) == Path("data/demo")
    Path("data/demo/file").touch()
    with pytest.raises(UsageError, match="data/demo"):
        fresh_folder(Path("data/demo"))


def test_a_verdict_that_is_altered_is_found(demo):
    """It disagrees with its own reasons or with the ledger's sums; a reason that no rule gives is found by evaluating
    again.
    """
    with EmbeddedServer.start(demo[0] / CLICKHOUSE) as server:
        client = connect(ServerAddress(server.host, server.port, server.http_port))
        ledger, lists = totals(client, TableNames("adledger")), load_lists(today(), age_days_max=3_650)
        assert check_verdicts(client, "adledger", ledger, lists).wrong == ()
        every = " UPDATE {} WHERE class_code = {:d} SETTINGS mutations_sync = 2"
        client.execute("ALTER TABLE adledger.events" + every.format("class_code = 1", Class.SIVT))
        wrong = check_verdicts(client, "adledger", ledger, lists).wrong
        assert any("make them sivt" in line for line in wrong)
        assert any(line.startswith("events: sivt None") for line in wrong)
        forged = f"reasons = bitOr(reasons, {1 << Reason.PERIODIC:d})"
        client.execute("ALTER TABLE adledger.events" + every.format(forged, Class.BILLABLE))
        wrong = check_verdicts(client, "adledger", ledger, lists).wrong
        assert any("the plain rules differ in PERIODIC" in line for line in wrong)
        client.disconnect()


def test_a_first_import_of_publishers_says_whom_it_leaves_unknown(demo, tmp_path):
    """Publishers with traffic that are in no import become unknown: their number is printed, with a remedy."""
    (tmp_path / "p.csv").write_text("publisher_id,status,name,since\n1000,active,News,2026-01-01\n")
    where = ("--clickhouse", f"embedded:{demo[0] / CLICKHOUSE}", "--reason", "a test")
    done = adledger("publishers", "import", str(tmp_path / "p.csv"), "--json", *where)
    assert json.loads(done.stdout)["unknown_with_traffic"] > 100
    assert "UNKNOWN_PUBLISHER hits their events" in done.stderr
