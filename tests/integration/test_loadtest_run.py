"""`adledger loadtest` on real servers: load, faults, drain, verification, and nothing left of it after `clean`."""

import asyncio
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.results.run_folder import RunFolder, RunVerdict
from adledger.loadtest.runner.freshness import read_log
from adledger.pipeline.addresses import ServerAddress
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.commands import adledger, started

PROFILE = """
[load]
rate = 3_000
duration = "6s"
warm_up = "1s"
partitions = 3

[traffic]
publishers = 500
duplicate_share = 0.1
malformed_share = 0.01
click_delay_ms_median = 1_000
retry_restart_weight = 0.5
retry_restart_seconds_max = 5

[thresholds]
freshness_ms = ["max<90000"]
dropped_events = ["count<=0"]

[settings]
write_deadline_seconds = 3

[settings.kafka]
"session.timeout.ms" = "3000"
"heartbeat.interval.ms" = "300"

[[faults]]
kind = "kill-worker"
at = "2s"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


def run_arguments(folder: Path, text: str, target: str, clickhouse: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    (folder / "mine.toml").write_text(text)
    return [
        "loadtest", "run", str(folder / "mine.toml"), "--target", target, "--clickhouse", clickhouse,
        "--runs", str(folder / "runs"),
    ]  # fmt: skip


def test_a_run_with_a_killed_worker(kafka: LocalBroker, server: EmbeddedServer, tmp_path: Path) -> None:
    """The run holds, counted exactly; a later alteration is found and explained; `clean` leaves nothing of it."""
    address = f"clickhouse://{server.host}:{server.port}/?http_port={server.http_port}"
    arguments = run_arguments(tmp_path, PROFILE, f"kafka://{kafka.servers}", address)
    ended = adledger(tmp_path / "run", *arguments, "--run-id", "mine", "--json")
    assert ended.process.returncode == 0, ended.err
    assert json.loads(ended.out)["verdict"] == "held"

    folder = RunFolder.find(tmp_path / "runs", "last")
    run = folder.run()
    check_held(folder)

    again = adledger(tmp_path / "foreign", *[*arguments[:-1], str(tmp_path / "others"), "--run-id", "mine"])
    assert again.process.returncode == 2, "foreign rows are refused"
    assert "exist" in again.err

    client = connect(ServerAddress(server.host, server.port, server.http_port))
    publisher = client.execute(f"SELECT publisher_id FROM {run.names.database}.rollup_minute LIMIT 1")[0][0]
    client.execute(
        f"ALTER TABLE {run.names.database}.events DELETE WHERE publisher_id = {publisher} SETTINGS mutations_sync = 2"
    )
    verify = adledger(tmp_path / "verify", "loadtest", "verify", "mine", "--runs", str(tmp_path / "runs"))
    assert verify.process.returncode == 1, verify.err
    assert f"publisher {publisher}" in verify.out
    assert "but it is in no table" in verify.out
    assert folder.summary().verdict is RunVerdict.CROSSED

    client.execute(
        "CREATE DATABASE adledger_lt_mine_too"
    )  # a neighbour's: clean takes no more than it should
    asyncio.run(_make_topic(kafka, "adledger_lt_mine_too.impressions"))
    clean = adledger(
        tmp_path / "clean", "loadtest", "clean", "mine", "--all", "--runs", str(tmp_path / "runs")
    )
    assert clean.process.returncode == 0, clean.err
    left = client.execute("SELECT name FROM system.databases WHERE name LIKE 'adledger_lt_%'")
    client.disconnect()
    topics, groups = asyncio.run(_topics_and_groups(kafka))
    assert left == [("adledger_lt_mine_too",)]
    assert [name for name in (*topics, *groups) if "_lt_mine" in name] == ["adledger_lt_mine_too.impressions"]
    assert not folder.path.exists()

    refused = adledger(tmp_path / "taken", *arguments, "--run-id", "mine_too")
    assert refused.process.returncode == 2
    client = connect(ServerAddress(server.host, server.port, server.http_port))
    client.execute("DROP DATABASE adledger_lt_mine_too SYNC")
    client.disconnect()
    refused = adledger(tmp_path / "taken", *arguments, "--run-id", "mine_too")
    assert refused.process.returncode == 2, "foreign records are refused"
    assert "adledger_lt_mine_too.impressions exist" in refused.err


def check_held(folder: RunFolder) -> None:
    """The run held, its fault took effect, and every count of events is the same."""
    summary, seconds = folder.summary(), folder.seconds()
    assert summary.verdict is RunVerdict.HELD
    assert summary.verification.equal
    [fault] = summary.faults
    assert fault.took_effect, fault.seen
    sent = summary.metrics["events_sent"]
    assert summary.verification.records_expected == summary.verification.records_found == sent
    assert sum(second["acknowledged"] or 0 for second in seconds) == sent
    assert sum(second["consumed"] or 0 for second in seconds) == sent
    assert read_log(folder.path / "freshness.hlog")["due"].get_total_count() == sent


def test_an_interrupted_run_keeps_what_it_measured(tmp_path: Path) -> None:
    """Ctrl-C ends a run on a files: log cleanly, with exit code 130, a summary and the seconds until then; the count is
    exact.
    """
    text = PROFILE.partition("[settings.kafka]")[0].replace('"6s"', '"50s"')
    arguments = run_arguments(
        tmp_path, text, f"files:{tmp_path / 'log'}", f"embedded:{tmp_path / 'clickhouse'}"
    )
    with started(tmp_path / "run", *arguments) as command:
        command.until(lambda: "\nload " in command.err)
        command.process.send_signal(signal.SIGINT)
        assert command.wait() == 130, command.err
    folder = RunFolder.find(tmp_path / "runs", "last")
    summary = folder.summary()
    assert summary.verdict is RunVerdict.INTERRUPTED
    assert folder.seconds()
    assert 0 < (summary.metrics["events_sent"] or 0) < 50 * 3_000
    assert summary.verification.equal
    clean = adledger(tmp_path / "clean", "loadtest", "clean", "last", "--runs", str(tmp_path / "runs"))
    assert clean.process.returncode == 0, clean.err
    assert not (tmp_path / "log").exists()


def test_crossed_thresholds_end_a_run(tmp_path: Path) -> None:
    """abort_on_fail ends the load early with k6's exit code 99, and what was sent is still counted exactly."""
    text = PROFILE.partition("[settings.kafka]")[0].replace('"6s"', '"50s"').replace(
        'freshness_ms = ["max<90000"]', 'freshness_ms = [{ threshold = "max<1", abort_on_fail = true }]'
    )  # fmt: skip
    arguments = run_arguments(
        tmp_path, text, f"files:{tmp_path / 'log'}", f"embedded:{tmp_path / 'clickhouse'}"
    )
    ended = adledger(tmp_path / "run", *arguments)
    assert ended.process.returncode == 99, ended.err
    assert "✗ freshness_ms: max<1" in ended.out
    assert "counted exactly" in ended.out


RAMP = """
[load]
executor = "ramping-arrival-rate"
rate = 2_000
start_rate = 200
warm_up = "0s"
partitions = 2
stages = [ { target = 2_000, duration = "4s" }, { target = 200, duration = "1s" } ]
"""
DAY = """
[load]
executor = "replay"
rate = 1_000
duration = "5s"
warm_up = "0s"
partitions = 2
"""
TRAFFIC = """
[traffic]
publishers = 300
duplicate_share = 0.1

[thresholds]
dropped_events = ["count<=0"]
"""


@pytest.mark.parametrize("load", [RAMP, DAY], ids=["ramping", "replay"])
def test_other_executors(tmp_path: Path, load: str) -> None:
    """A ramp's load rises as its stages say; a replay's hours pass in seconds; both are counted exactly."""
    day = "replay_hours = 26.0\n" if load is DAY else ""
    text = load + TRAFFIC.replace("[traffic]\n", f"[traffic]\n{day}")
    arguments = run_arguments(
        tmp_path, text, f"files:{tmp_path / 'log'}", f"embedded:{tmp_path / 'clickhouse'}"
    )
    ended = adledger(tmp_path / "run", *arguments)
    assert ended.process.returncode == 0, ended.err
    folder = RunFolder.find(tmp_path / "runs", "last")
    due = [second["target_per_second"] or 0 for second in folder.seconds() if (second["second"] or 0) > 0][:5]
    assert due[0] < due[1] < due[2] < due[3] or load is DAY
    times = folder.run().model["start_ms"], max(folder.run().sent_until_ms)
    assert (times[1] - times[0] > 24 * 3_600_000) == (load is DAY)
    verification = folder.summary().verification
    assert verification.equal
    assert verification.records_found > 3_000


def test_misuse_has_its_own_exit_code(tmp_path: Path) -> None:
    """An invalid profile, rate or target has exit code 2, before anything is created."""
    for arguments in (
        ["no-such-profile", "--target", "local"],
        ["steady-day", "--target", "kafka://localhost:1"],
        ["steady-day", "--target", "local", "--rate", "fast"],
        ["steady-day", "--target", "local", "--fault", "kill-worker"],
    ):
        ended = adledger(tmp_path / "run", "loadtest", "run", *arguments, "--runs", str(tmp_path / "runs"))
        assert ended.process.returncode == 2, ended.err
        assert "remedy" in ended.err


async def _make_topic(kafka: LocalBroker, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()


async def _topics_and_groups(kafka: LocalBroker) -> tuple[list[str], list[str]]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers)
    await admin.start()
    try:
        return await admin.list_topics(), [group[0] for group in await admin.list_consumer_groups()]
    finally:
        await admin.close()
