"""Traffic into a deployment's own topics, counted by its workers: a profile's (`loadtest send`), or a log's (`import
--speed`).
"""

import json
import uuid
from pathlib import Path
from typing import Any

from tests.support.commands import adledger
from tests.unit.test_importing_ad_logs import line


def test_the_worker_counts_what_is_sent(kafka, tmp_path: Path):
    """The ledger has as many records as were reported as sent, and most of them bill."""
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


def test_a_replay_into_kafka_counts_as_it_happened(kafka, tmp_path):
    """iPinYou's two logs, merged and replayed as of now, are billed in full, as new events."""
    stamp = "201306060000{:02}000"
    impressions = [line(bid=f"b{i:03}", time=stamp.format(i // 2)) for i in range(40)]
    clicks = [line(bid=f"b{i:03}", time=stamp.format(25 + i // 10), type="2") for i in range(0, 40, 10)]
    files = [tmp_path / "imp.txt", tmp_path / "clk.txt"]
    for path, lines in zip(files, (impressions, clicks), strict=True):
        path.write_bytes(b"\n".join(lines) + b"\n")
    name, source = f"replay-{uuid.uuid4().hex[:8]}", f"kafka://{kafka.servers}"

    def command(*arguments: str) -> dict[str, Any]:
        topics = ("--set", f"topics={name}-i,{name}-c", "--set", f"rollups_topic={name}-r")
        ended = adledger(tmp_path / arguments[0], *arguments, *topics, "--json")
        assert ended.process.returncode == 0, ended.err
        return json.loads(ended.out)

    command("topics", "create", "--source", source, "--partitions", "2")
    replay = ("--speed", "20", "--as-of-now", "--to", source)
    sent = command("import", *map(str, files), "--format", "ipinyou", *replay)
    assert sent["topics"] == {f"{name}-i": 40, f"{name}-c": 4}
    counted = command(
        "run", "--source", source, "--group", name, "--clickhouse", f"embedded:{tmp_path / 'clickhouse'}",
        "--until-caught-up", "--set", "web_port=0", "--set", "rules=none",
    )  # fmt: skip
    assert counted["classes"]["billable"]["records"] == counted["records_received"] == 44
