"""`loadtest verify` finds any alteration of a run's tables, and names the events, batches or records behind it."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from adledger.loadtest.results.run_folder import RunFolder, Verification
from adledger.loadtest.runner.check import Sent, checked
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.addresses import ServerAddress
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.commands import adledger

PROFILE = """
[load]
rate = 1_500
duration = "3s"
warm_up = "0s"
partitions = 2

[traffic]
publishers = 100
duplicate_share = 0.1
malformed_share = 0.02
click_delay_ms_median = 1_000

[settings]
rules = "none"
"""
TABLES = ("events", "rollup_minute", "dead_letters", "ledger", "judges")
EVENT = "lane = 1 AND topic = 0 AND offset = 100"
OF_ONE = "lane = 0 AND batch_no = 1 AND publisher_id = 1000"
NOW = "SETTINGS mutations_sync = 2"


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that counted exactly, and a server that holds its tables."""

    client: Client
    database: str
    sent: Sent


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    folder = tmp_path_factory.mktemp("verified")
    (folder / "small.toml").write_text(PROFILE)
    ran = adledger(
        folder / "run", "loadtest", "run", str(folder / "small.toml"), "--target", f"files:{folder / 'log'}",
        "--clickhouse", f"embedded:{folder / 'clickhouse'}", "--runs", str(folder / "runs"),
    )  # fmt: skip
    assert ran.process.returncode == 0, ran.err
    run = RunFolder.find(folder / "runs", "last").run()
    sent = Sent(TrafficModel.from_json(json.dumps(run.model)), run.sent_until_ms)
    with EmbeddedServer.start(folder / "clickhouse") as server:
        client = connect(ServerAddress(server.host, server.port, server.http_port))
        try:
            yield Ended(client, run.names.database, sent)
        finally:
            client.disconnect()


def verified_after(ended: Ended, *statements: str) -> Verification:
    """Copy the run's tables, alter the copy ({d}), and return what verification says of it."""
    copy = f"{ended.database}_copy"
    ended.client.execute(f"CREATE DATABASE {copy}")
    try:
        for table in TABLES:
            ended.client.execute(f"CREATE TABLE {copy}.{table} AS {ended.database}.{table}")
            ended.client.execute(
                f"ALTER TABLE {copy}.{table} DROP CONSTRAINT IF EXISTS in_time"
            )  # its time is over
            ended.client.execute(f"INSERT INTO {copy}.{table} SELECT * FROM {ended.database}.{table}")
        for statement in statements:
            ended.client.execute(statement.format(d=copy))
        return checked(ended.sent, ended.client, copy)
    finally:
        ended.client.execute(f"DROP DATABASE {copy} SYNC")


def test_an_unaltered_copy_is_equal(ended: Ended) -> None:
    """The copy itself changes nothing: it is counted exactly, to the record."""
    found = verified_after(ended)
    assert found.equal
    assert found.wrong == found.explanations == ()
    assert found.records_found == found.records_expected > 3_000


@pytest.mark.parametrize(
    ("statement", "wrong", "explanation"),
    [
        (
            f"ALTER TABLE {{d}}.events DELETE WHERE {EVENT} {NOW}",
            "records of lane 1",
            "topic 0, partition 1, offset 100: expected ",
        ),
        (
            f"ALTER TABLE {{d}}.events UPDATE money_nanos = money_nanos + 7 WHERE {EVENT} {NOW}",
            "events: publisher ",
            "topic 0, partition 1, offset 100: expected ",
        ),
        (
            f"ALTER TABLE {{d}}.events UPDATE class_code = 3 - class_code WHERE {EVENT} {NOW}",
            "duplicate records of lane 1",
            "topic 0, partition 1, offset 100: expected ",
        ),
        (
            "INSERT INTO {d}.events SELECT * FROM {d}.events WHERE lane = 1 AND batch_no = 1",
            "records of lane 1",
            "is 2 times in `events`",
        ),
        (
            "INSERT INTO {d}.rollup_minute SELECT * FROM {d}.rollup_minute WHERE lane = 1 AND batch_no = 1",
            "rollup_minute: publisher ",
            "lane 1, batch 1: ",
        ),
        (
            f"ALTER TABLE {{d}}.rollup_minute UPDATE money_nanos = money_nanos + 1 WHERE {OF_ONE} {NOW}",
            "rollup_minute: publisher 1000",
            "the rollup is wrong",
        ),
        (
            f"ALTER TABLE {{d}}.ledger DELETE WHERE lane = 1 AND batch_no = 1 {NOW}",
            "records received, not",
            "lane 1, batch 1: 0 ledger rows, not 1",
        ),
        (
            f"ALTER TABLE {{d}}.dead_letters DELETE WHERE lane = 0 {NOW}",
            "dead letters for ",
            "but not among the dead letters",
        ),
    ],
    ids=[
        "a row deleted", "money altered", "another class", "a batch twice", "a batch's rollups twice", "a nano in a rollup",
        "a ledger row deleted", "dead letters deleted",
    ],
)  # fmt: skip
def test_every_alteration_is_found_and_explained(
    ended: Ended, statement: str, wrong: str, explanation: str
) -> None:
    """The differences are listed, and the events or batches behind them named."""
    found = verified_after(ended, statement)
    assert not found.equal
    assert any(wrong in line for line in found.wrong), found.wrong
    assert any(explanation in line for line in found.explanations), found.explanations
