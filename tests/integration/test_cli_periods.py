"""`adledger periods` on the engine: what it shows, its exit codes, and overrides by an operator."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import AdledgerError, UsageError
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.closings import HOUR_MS, MODEL, advance, copy, fill

LANES = range(MODEL.partitions)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    folder = tmp_path_factory.mktemp("periods")
    with EmbeddedServer.start(folder / "clickhouse") as running:
        server = ServerAddress(running.host, running.port, running.http_port)
        fill(folder, server, "filled")
        yield server


@pytest.fixture(scope="module")
def client(address: ServerAddress) -> Iterator[Client]:
    with connect(address) as connection:
        yield connection


def run(address: ServerAddress, database: str, *arguments: str) -> Any:
    server = f"clickhouse://{address.host}:{address.port}/?http_port={address.http_port}"
    return CliRunner().invoke(app, ["periods", *arguments, "--clickhouse", server, "--database", database])


def test_a_lane_behind_is_shown_and_left_out(client: Client, address: ServerAddress) -> None:
    """status names the lane and the money that waits, with 1; close stops there; with an override it closes, and explain shows it."""
    database = copy(client, "filled", "behind")
    asyncio.run(advance(address, database, [0, 2], 4 * HOUR_MS))
    shown = run(address, database, "close", "--json")
    assert shown.exit_code == 1, shown.output
    found = json.loads(shown.stdout)
    assert found["closed"]
    assert [h["lane"] for h in found["held_by"]] == [1]
    status = run(address, database, "status", "--json")
    assert status.exit_code == 1
    waiting = json.loads(status.stdout)
    assert [h["lane"] for h in waiting["held_by"]] == [1]
    assert waiting["periods_waiting"] > 1
    assert all(float(amount) > 0 for amount in waiting["money_waiting"].values())
    held = waiting["next_period"]["charge_period_start"].removesuffix(":00Z")
    assert "held open by 1 of 3 lanes" in run(address, database, "status").stdout
    reason = ("--reason", "a test", "--author", "mia")
    left_out = run(address, database, "leave-out", "all", "--through", held, *reason)
    assert left_out.exit_code == 0, left_out.output
    assert f"lane 1 is left out from {held}Z to {held}Z, after its batch" in left_out.stderr
    assert run(address, database, "close", "--through", held).exit_code == 0
    explained = run(address, database, "explain", held, "--json")
    assert explained.exit_code == 0, explained.output
    lanes = json.loads(explained.stdout)["lanes"]
    assert [lane["lane"] for lane in lanes if lane["left_out_by"]] == [1]
    assert "final, closed" in run(address, database, "explain", held).stdout


def test_what_can_not_be_is_refused_with_a_remedy(client: Client, address: ServerAddress) -> None:
    """A period that is open, a time between periods, an override without reason or end, a lane that holds nothing."""
    database = copy(client, "filled", "refused")
    for arguments, error, said in (
        (("explain", "2031-01-01T00:00"), AdledgerError, "is not closed"),
        (("explain", "2026-01-01T00:07"), UsageError, "no period begins at"),
        (("leave-out", "1", "--through", "2025-01-01T23:45", "--reason", " "), UsageError, "--reason is empty"),
        (("leave-out", "x", "--through", "2025-01-01T23:45", "--reason", "x"), UsageError, "x is not a lane"),
        (("leave-out", "7", "--through", "2025-01-01T23:45", "--reason", "x"), AdledgerError, "the log has no lane 7"),
        (("leave-out", "1", "--through", "2090-01-01T00:00", "--reason", "x"), AdledgerError, "has not reached its close"),
    ):  # fmt: skip
        ended = run(address, database, *arguments)
        assert isinstance(ended.exception, error), (arguments, ended.output)
        assert said in ended.exception.message
        assert ended.exception.remedy


def test_an_altered_final_is_found(client: Client, address: ServerAddress) -> None:
    """explain compares the stored rows with what the closing wrote: a nano more is found, with 1."""
    database = copy(client, "filled", "altered")
    asyncio.run(advance(address, database, LANES, HOUR_MS))
    closed = json.loads(run(address, database, "close", "--json").stdout)["closed"]
    period = next(c["charge_period_start"] for c in closed if c["rows"]).removesuffix(":00Z")
    assert run(address, database, "explain", period).exit_code == 0
    client.execute(
        f"ALTER TABLE {database}.publisher_periods UPDATE money_nanos = money_nanos + 1 WHERE class_code = 1",
        settings={"mutations_sync": 2},
    )
    ended = run(address, database, "explain", period)
    assert ended.exit_code == 1
    assert "don't hold the rows that the closing wrote" in ended.stderr
    assert run(address, database, "status").exit_code == 0
