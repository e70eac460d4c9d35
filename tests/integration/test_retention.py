"""Retention on a real engine: partitions are dropped whole, the ledger check tells that from a loss, and nothing else is
missing.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.cli.app import app
from adledger.pipeline.importing.run import open_log
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer

MODEL = TrafficModel(
    seed=5, events=4_000, partitions=2, duration_hours=120, duplicate_share=0.05, malformed_share=0.02
)
TABLES = ("events", "dead_letters", "rollup_minute", "ledger")


class Ran:
    """A log of five days of 2025 that was read to its end, and its ClickHouse."""

    def __init__(self, folder: Path, server: EmbeddedServer) -> None:
        self.server = server
        with open_log(folder / "log", MODEL.partitions) as writer:
            write_traffic(MODEL, writer, lambda _: None)
        self.at = (
            "--source", f"files:{folder / 'log'}",
            "--clickhouse", f"clickhouse://{server.host}:{server.port}/?http_port={server.http_port}",
        )  # fmt: skip
        assert self.command("run", "--until-caught-up")["records_received"] == MODEL.events

    def command(self, *arguments: str, code: int = 0) -> dict[str, object]:
        at = self.at[2:] if arguments[0] == "ledger" else self.at
        ran = CliRunner().invoke(app, [*arguments, *at, "--json"])
        assert ran.exit_code == code, (ran.output, ran.exception)
        return dict(json.loads(ran.stdout))

    def days(self) -> dict[str, list[str]]:
        client = connect_to(self.server)
        try:
            rows = client.execute(
                "SELECT table, groupUniqArray(partition_id) FROM system.parts WHERE active AND database = 'adledger' "
                "AND table IN %(tables)s GROUP BY table",
                {"tables": TABLES},
            )
        finally:
            client.disconnect()
        return {table: sorted(days) for table, days in rows}


def connect_to(server: EmbeddedServer):
    from adledger.pipeline.addresses import ServerAddress

    return connect(ServerAddress(server.host, server.port, server.http_port))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ran]:
    folder = tmp_path_factory.mktemp("retention")
    with EmbeddedServer.start(folder / "clickhouse") as server:
        yield Ran(folder, server)


def test_exactly_the_old_days_are_dropped(ran: Ran):
    """The log is of 2025 and stays by the lanes' watermarks; with two days' retention exactly the earlier days are dropped.

    The check then finds no problem, except a row that is lost from a day that is kept.
    """
    assert ran.command("retention", "plan")["partitions"] == []
    before = ran.days()
    dry_run = ran.command("retention", "run", "--days", "2")
    assert not dry_run["executed"]
    assert ran.days() == before
    done = ran.command("retention", "run", "--days", "2", "--execute")
    assert done["partitions"] == dry_run["partitions"] != []
    gone = {(p["table"], p["day"].replace("-", "")) for p in done["partitions"]}  # type: ignore[attr-defined]
    assert {table for table, _ in gone} == {"events", "dead_letters"}
    after = ran.days()
    assert {(t, d) for t in TABLES for d in set(before[t]) - set(after[t])} == gone
    checked = ran.command("ledger", "check")
    assert (checked["conserved"], checked["continuous"], checked["problems"]) == (True, True, [])
    assert checked["records_received"] == MODEL.events
    assert ran.command("retention", "run", "--days", "2", "--execute")["partitions"] == []

    client = connect_to(ran.server)
    try:
        client.execute(
            "ALTER TABLE adledger.events DELETE WHERE (lane, batch_no, topic, offset) IN "
            "(SELECT lane, batch_no, topic, offset FROM adledger.events LIMIT 1) SETTINGS mutations_sync = 2"
        )
    finally:
        client.disconnect()
    assert ran.command("ledger", "check", code=1)["problems"]
