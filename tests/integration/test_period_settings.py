"""The close delay of periods is the database's: the first migration stores it, and another value is refused."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import SinkError
from adledger.pipeline.log.files import FilesLogWriter, Manifest
from adledger.pipeline.stages.periods import after_close_plain, misplaced_sql
from adledger.schemas.migrate import load, migrate
from adledger.schemas.periods import PERIOD_MS, CloseDelay, CloseDelays
from adledger.schemas.wire import Flag
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.periods import close_delays

MINUTE_MS = 60_000


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as running:
        yield ServerAddress(running.host, running.port, running.http_port)


@pytest.fixture(scope="module")
def client(address: ServerAddress) -> Iterator[Client]:
    with connect(address) as connection:
        yield connection


def run(address: ServerAddress, database: str, *arguments: str) -> Any:
    server = f"clickhouse://{address.host}:{address.port}/?http_port={address.http_port}"
    return CliRunner().invoke(app, [*arguments, "--clickhouse", server, "--database", database])


def rows(client: Client, database: str) -> list[tuple[Any, ...]]:
    return client.execute(
        "SELECT toUnixTimestamp(effective_from_period), period_close_delay_minutes, author "
        f"FROM {database}.period_settings"
    )


def test_migrating_stores_the_delay_once(client: Client) -> None:
    """The first migration's delay holds for all periods; a later one changes nothing."""
    migrate(client, database="once", release="1", close_delay_minutes=20)
    migrate(client, database="once", release="1", close_delay_minutes=30)
    assert rows(client, "once") == [(0, 20, "default")]
    assert close_delays(client, "once") == CloseDelays.same(20)


def test_a_migration_that_died_before_the_delay_is_completed(client: Client) -> None:
    """The tables alone are not enough: the next run writes the row that is missing."""
    migrate(client, database="died", release="1")
    client.execute("TRUNCATE TABLE died.period_settings")
    with pytest.raises(SinkError, match="no delay that holds for all periods") as missing:
        close_delays(client, "died")
    assert missing.value.remedy == "adledger migrate"
    assert run(client.address, "died", "migrate").exit_code == 0
    assert close_delays(client, "died") == CloseDelays.same(15)


def test_a_database_of_an_older_release_gets_the_delay(client: Client) -> None:
    """Migrating from before there were periods stores the delay too; until then there is no table for it."""
    migrate(client, database="older", release="0", migrations=load()[:16])
    migrate(client, database="older", release="1", close_delay_minutes=5)
    assert close_delays(client, "older") == CloseDelays.same(5)


def test_of_two_first_rows_the_earlier_holds(client: Client) -> None:
    """Two workers that migrate at once may both write a row: all readers take the same one."""
    migrate(client, database="twice", release="1", close_delay_minutes=20)
    client.execute(
        "INSERT INTO twice.period_settings (effective_from_period, period_close_delay_minutes) VALUES",
        [(datetime.fromtimestamp(0, UTC), 10)],
    )
    assert close_delays(client, "twice") == CloseDelays.same(20)


def test_a_later_step_is_read(client: Client) -> None:
    """The delay of periods from some period on: earlier ones keep theirs, and the setting must be the latest."""
    migrate(client, database="steps", release="1", close_delay_minutes=20)
    client.execute(
        "INSERT INTO steps.period_settings (effective_from_period, period_close_delay_minutes) VALUES",
        [(datetime(2026, 11, 30, 12, tzinfo=UTC), 45)],
    )
    begins = int(datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp() * 1000)
    found = close_delays(client, "steps")
    assert found == CloseDelays((CloseDelay(0, 20 * MINUTE_MS), CloseDelay(begins, 45 * MINUTE_MS)))
    assert found.latest_minutes == 45


def test_the_server_finds_what_the_rule_does_not_give(client: Client) -> None:
    """The check's condition is the plain rule, at every edge of a close, before and after a step of the delay."""
    step = 1_700_000_100_000 // PERIOD_MS * PERIOD_MS
    delays = CloseDelays((CloseDelay(0, 20 * MINUTE_MS), CloseDelay(step, 45 * MINUTE_MS)))
    rows = [
        (event_time, clock, flag)
        for event_time in (step - 1, step, step + PERIOD_MS - 1, step + PERIOD_MS)
        for clock in (delays.closes_at(event_time) + by for by in (-1, 0, 1))
        for flag in (0, 1 << Flag.AFTER_CLOSE)
    ]
    found = client.execute(
        f"SELECT {misplaced_sql(delays)} FROM (SELECT fromUnixTimestamp64Milli(row.1, 'UTC') AS event_time, "
        f"fromUnixTimestamp64Milli(row.2, 'UTC') AS lane_clock, toUInt16(row.3) AS flags "
        f"FROM (SELECT arrayJoin({[(int(a), int(b), c) for a, b, c in rows]}) AS row))"
    )
    expected = [after_close_plain(time, clock, delays) != bool(flag) for time, clock, flag in rows]
    assert [bool(wrong) for (wrong,) in found] == expected


@pytest.mark.parametrize("command", ["migrate", "run"])
def test_another_delay_is_refused_with_the_remedy(
    command: str, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command with another delay ends before it does anything, and the printed setting lets it start."""
    migrate(client, database=command, release="1", close_delay_minutes=20)
    FilesLogWriter.create(tmp_path / "log", Manifest.new(1)).close()
    source = [] if command == "migrate" else ["--source", f"files:{tmp_path / 'log'}", "--until-caught-up"]
    refused = run(client.address, command, command, *source)
    assert refused.exit_code != 0
    said = f"{refused.exception} {refused.output}"
    assert f"period_close_delay_minutes is 15, and database {command} closes periods after 20 minutes" in said
    assert client.execute(f"SELECT count() FROM {command}.ledger") == [(0,)]
    monkeypatch.setenv("ADLEDGER_PERIOD_CLOSE_DELAY_MINUTES", "20")
    accepted = run(client.address, command, command, *source)
    assert accepted.exit_code == 0, accepted.output
