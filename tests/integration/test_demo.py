"""The demo, as a newcomer runs it: everything equals the truth, and what was altered afterwards is found."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from loadtest.demo import CLICKHOUSE, fresh_folder
from pipeline.errors import UsageError

EVENTS = 60_000
CLASSES = {"billable", "duplicate", "givt", "sivt", "expired", "malformed", "lost"}


def adledger(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *arguments],
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


def test_the_demo_equals_its_truth(demo):
    """It exits with 0, and its one JSON object says that everything adds up, to the nano."""
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


def test_the_folder_can_be_looked_into(demo):
    """What was kept answers a query, and the ledger check finds nothing."""
    where = f"embedded:{demo[0] / CLICKHOUSE}"
    counted = adledger("query", "SELECT sum(records_received) FROM ledger", "--clickhouse", where)
    assert counted.stdout.strip() == str(EVENTS + 20_046)
    assert adledger("ledger", "check", "--clickhouse", where).returncode == 0


def test_a_folder_that_holds_something_is_refused(demo):
    """Nothing is overwritten: exit code 2, with what to do."""
    refused = adledger("demo", "--events", "10", "--data-dir", str(demo[0]))
    assert refused.returncode == 2
    assert "remedy" in refused.stderr


def test_a_fresh_folder_is_found(tmp_path, monkeypatch):
    """Without a wish, data/demo, then data/demo-2; with one, that one if it is empty."""
    monkeypatch.chdir(tmp_path)
    assert fresh_folder(None) == Path("data/demo")
    Path("data/demo").mkdir(parents=True)
    assert fresh_folder(None) == Path("data/demo-2")
    assert fresh_folder(Path("data/demo")) == Path("data/demo")
    Path("data/demo/file").touch()
    with pytest.raises(UsageError, match="data/demo"):
        fresh_folder(Path("data/demo"))
