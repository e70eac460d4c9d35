"""`adledger loadtest send` puts a profile's traffic into a deployment's own topics, where its workers count it."""

import json
import uuid
from pathlib import Path

from tests.support.commands import adledger


def test_what_is_sent_is_what_the_worker_counts(kafka, tmp_path: Path):
    """As many records as were told to be sent are in the ledger, and most of them bill."""
    name = f"send-{uuid.uuid4().hex[:8]}"
    topics = ("--set", f"topics={name}-i,{name}-c", "--set", f"rollups_topic={name}-r")
    where = ("--source", f"kafka://{kafka.servers}", *topics, "--json")
    assert adledger(tmp_path / "create", "topics", "create", *where, "--partitions", "4").wait() == 0
    sent = adledger(
        tmp_path / "send", "loadtest", "send", "steady-day", *where, "--rate", "500", "--duration", "3s"
    )
    assert sent.wait() == 0, sent.err
    run = adledger(
        tmp_path / "run", "run", *where, "--group", name, "--clickhouse", f"embedded:{tmp_path / 'clickhouse'}",
        "--until-caught-up", "--set", "web_port=0",
    )  # fmt: skip
    assert run.wait() == 0, run.err
    counted, records = json.loads(run.out), json.loads(sent.out)["records"]
    assert counted["records_received"] == records > 1_000
    assert counted["classes"]["billable"]["records"] > 0.9 * records
