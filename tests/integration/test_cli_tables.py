"""The commands that read ClickHouse, on the real engine: consistent tables pass, tampering is found and named."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from typer.testing import CliRunner

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import AdledgerError, SinkError
from adledger.pipeline.stages.digest import digest
from adledger.schemas.classes import Class
from adledger.schemas.digests import CURRENT
from adledger.schemas.event_columns import EVENT_DTYPES
from adledger.schemas.tables import EVENTS_EXTRA
from adledger.schemas.wire import EventType, Malformed, currency_code
from adledger.sinks.clickhouse import ClickHouseSink
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.sink import LedgerEntry, Money, OffsetRange, Stamp

SEND_BY = 4_000_000_000
USD = currency_code("USD")
DAY_MS = 1_700_000_000_000
BATCHES = 4
BYTES = b"{\x00\xff"
PUBLISHERS, PER_PUBLISHER, MALFORMED = 5, 4, 2
EVENTS = PUBLISHERS * PER_PUBLISHER
RECORDS = EVENTS + MALFORMED


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as running:
        server = ServerAddress(running.host, running.port, running.http_port)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(
                "ADLEDGER_CLICKHOUSE",
                f"clickhouse://{server.host}:{server.port}/?http_port={server.http_port}",
            )
            assert run("migrate").exit_code == 0
            yield server


@pytest.fixture(scope="module")
def client(address: ServerAddress) -> Iterator[Client]:
    with connect(address) as connection:
        yield connection


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def fill(sink: ClickHouseSink, lane: int, definition: int = CURRENT, first: int = 1) -> None:
    """Write BATCHES batches of a lane, from `first`, into every table, as a worker leaves them when they are done."""
    asyncio.run(_fill(sink, lane, definition, first))


async def _fill(sink: ClickHouseSink, lane: int, definition: int, first: int) -> None:
    for batch_no in range(first, first + BATCHES):
        stamp = Stamp(lane, batch_no, SEND_BY)
        start, clock = (batch_no - 1) * RECORDS, DAY_MS + batch_no * 1_000
        at = np.arange(RECORDS)
        events = events_of(at[:EVENTS], start, clock)
        dead_letters = dead_letters_of(at[EVENTS:], start, clock)
        await sink.insert("events", events, stamp)
        await sink.insert("dead_letters", dead_letters, stamp)
        await sink.insert("rollup_minute", rollups_of(clock), stamp)
        after = clock + RECORDS - 1
        entry = LedgerEntry(
            lane, batch_no, "epoch", (OffsetRange(0, start, start + RECORDS),), after, 0, start + RECORDS - 1,
            after - 1_000, after, RECORDS, {Class.BILLABLE: EVENTS, Class.MALFORMED: MALFORMED},
            (Money(Class.BILLABLE, USD, EVENTS, EVENTS * 1_000),), 1, PUBLISHERS,
            digest("events", events, definition), digest("dead_letters", dead_letters, definition),
            digest_definition=definition,
        )  # fmt: skip
        await sink.insert("ledger", ledger_columns(entry), stamp)
    await sink.close()


def events_of(at: npt.NDArray[np.int64], start: int, clock: int) -> dict[str, Any]:
    columns: dict[str, Any] = {n: np.zeros(len(at), d) for n, d in {**EVENT_DTYPES, **EVENTS_EXTRA}.items()}
    columns |= {
        "offset": start + at,
        "log_time": clock + at,
        "lane_clock": clock + at,
        "event_time": clock + at,
    }
    columns |= {"publisher_id": at % PUBLISHERS, "user_hash": at * 2**40 + 2**62, "ip_lo": at}
    for name, value in {
        "event_type_code": EventType.IMPRESSION, "class_code": Class.BILLABLE, "currency_code": USD,
        "price_micros": 1_000, "money_nanos": 1_000, "judge_version": 1,
    }.items():  # fmt: skip
        columns[name] += int(value)
    return {
        name: np.asarray(values, {**EVENT_DTYPES, **EVENTS_EXTRA}[name]) for name, values in columns.items()
    }


def dead_letters_of(at: npt.NDArray[np.int64], start: int, clock: int) -> dict[str, Any]:
    return {
        "topic": np.zeros(len(at), "u1"), "offset": start + at, "log_time": clock + at, "lane_clock": clock + at,
        "reason_code": np.full(len(at), Malformed.NOT_JSON, "u1"), "key": [b"key", None], "value": [BYTES] * len(at),
        "records": np.ones(len(at), "u4"),
    }  # fmt: skip


def rollups_of(clock: int) -> dict[str, Any]:
    def same(value: int) -> npt.NDArray[np.int64]:
        return np.full(PUBLISHERS, value)

    return {
        "publisher_id": np.arange(PUBLISHERS), "minute": same(clock // 60_000 * 60), "event_type_code": same(1),
        "class_code": same(1), "currency_code": same(USD), "after_close": same(0), "records": same(PER_PUBLISHER),
        "money_nanos": same(PER_PUBLISHER * 1_000), "clock_day": same(clock // 86_400_000 * 86_400),
    }  # fmt: skip


def check(lane: int, *arguments: str) -> tuple[int, dict[str, Any]]:
    result = run("ledger", "check", "--lane", str(lane), "--json", *arguments)
    return result.exit_code, json.loads(result.stdout)


def test_an_untouched_lane_passes(address, client):
    """The exit code is 0, with the sums of the ledger and no problem."""
    fill(ClickHouseSink(address), 1)
    code, found = check(1)
    assert (code, found["problems"]) == (0, [])
    assert (found["conserved"], found["continuous"], found["batches"]) == (True, True, BATCHES)
    assert found["records_received"] == BATCHES * RECORDS
    assert found["classes"]["billable"]["records"] == BATCHES * EVENTS
    assert found["classes"]["billable"]["money_nanos"] == BATCHES * EVENTS * 1000
    assert found["classes"]["malformed"] == {
        "records": BATCHES * MALFORMED, "money_nanos": None, "money_by_currency": {},
    }  # fmt: skip
    assert found["events_per_second"] is None
    assert found["cpu_seconds"] is None


TAMPERED = {
    "event deleted": ("events", "ALTER TABLE {db}.events DELETE WHERE {batch} AND offset % 22 = 5"),
    "event twice": ("events", "INSERT INTO {db}.events SELECT * FROM {db}.events WHERE {batch} AND offset % 22 = 5"),
    "event's money": ("events", "ALTER TABLE {db}.events UPDATE money_nanos = 7 WHERE {batch} AND offset % 22 = 5"),
    "event's price": ("events", "ALTER TABLE {db}.events UPDATE price_micros = 7 WHERE {batch} AND offset % 22 = 5"),
    "event's class": ("events", "ALTER TABLE {db}.events UPDATE class_code = 2 WHERE {batch} AND offset % 22 = 5"),
    "event's currency": ("events", "ALTER TABLE {db}.events UPDATE currency_code = 9 WHERE {batch} AND offset % 22 = 5"),
    "event's type": ("events", "ALTER TABLE {db}.events UPDATE event_type_code = 2 WHERE {batch} AND offset % 22 = 5"),
    "event's offset": (
        "events",
        """INSERT INTO {db}.events SELECT * REPLACE (999999 AS offset) FROM {db}.events WHERE {batch} AND offset % 22 = 5;
        ALTER TABLE {db}.events DELETE WHERE {batch} AND offset % 22 = 5""",
    ),
    "event's user": ("events", "ALTER TABLE {db}.events UPDATE user_hash = 1 WHERE {batch} AND offset % 22 = 5"),
    "event's address": ("events", "ALTER TABLE {db}.events UPDATE ip_lo = 1 + ip_lo WHERE {batch} AND offset % 22 = 5"),
    "events all deleted": ("events", "ALTER TABLE {db}.events DELETE WHERE {batch}"),
    "event moved to another book": (
        "events",
        "ALTER TABLE {db}.events UPDATE flags = bitOr(flags, 256) WHERE {batch} AND offset % 2 = 0",
    ),
    "rollup moved to another book": (
        "rollup_minute",
        "ALTER TABLE {db}.rollup_minute UPDATE after_close = 1 WHERE {batch} AND publisher_id = 2",
    ),
    "rollup deleted": ("rollup_minute", "ALTER TABLE {db}.rollup_minute DELETE WHERE {batch} AND publisher_id = 2"),
    "rollup twice": (
        "rollup_minute",
        "INSERT INTO {db}.rollup_minute SELECT * FROM {db}.rollup_minute WHERE {batch} AND publisher_id = 2",
    ),
    "rollup's records": (
        "rollup_minute",
        "ALTER TABLE {db}.rollup_minute UPDATE records = 5 WHERE {batch} AND publisher_id = 2",
    ),
    "rollup moved money": (
        "rollup_minute",
        "ALTER TABLE {db}.rollup_minute UPDATE money_nanos = 3995 + 10 * (publisher_id = 2) WHERE {batch} AND publisher_id IN (2, 3)",
    ),
    "dead letter deleted": ("dead_letters", "ALTER TABLE {db}.dead_letters DELETE WHERE {batch} AND offset % 22 = 20"),
    "dead letter twice": (
        "dead_letters",
        "INSERT INTO {db}.dead_letters SELECT * FROM {db}.dead_letters WHERE {batch} AND offset % 22 = 20",
    ),
    "dead letter's bytes": ("dead_letters", "ALTER TABLE {db}.dead_letters UPDATE value = 'v' WHERE {batch}"),
    "dead letter's reason": ("dead_letters", "ALTER TABLE {db}.dead_letters UPDATE reason_code = 5 WHERE {batch}"),
    "ledger's judge": ("ledger", "ALTER TABLE {db}.ledger UPDATE judge_version = 2 WHERE {batch}"),
    "ledger row deleted": ("", "ALTER TABLE {db}.ledger DELETE WHERE {batch}"),
    "ledger row twice": ("ledger", "INSERT INTO {db}.ledger SELECT * FROM {db}.ledger WHERE {batch}"),
    "ledger's count": ("ledger", "ALTER TABLE {db}.ledger UPDATE billable = billable + 1 WHERE {batch}"),
    "ledger's money": ("ledger", "ALTER TABLE {db}.ledger UPDATE `money.money_nanos` = [7] WHERE {batch}"),
    "ledger's range": ("ledger", "ALTER TABLE {db}.ledger UPDATE range_end = [30] WHERE {batch}"),
    "ledger's clock": (
        "ledger",
        "ALTER TABLE {db}.ledger UPDATE clock_before = clock_before - toIntervalSecond(1) WHERE {batch}",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lane", range(100, 100 + len(TAMPERED)), ids=list(TAMPERED))
def test_tampering_is_found(address, client, lane):
    """For a row deleted, added twice or altered by hand the exit code is 1, and the problem names table and batch.

    A merge of all parts, which puts a doubled row beside its original, hides nothing.
    """
    table, statements = list(TAMPERED.values())[lane - 100]
    fill(ClickHouseSink(address), lane)
    for statement in statements.format(db="adledger", batch=f"lane = {lane} AND batch_no = 2").split(";"):
        client.execute(statement, settings={"mutations_sync": 2})
    client.execute(f"OPTIMIZE TABLE adledger.{table or 'ledger'} FINAL")
    code, found = check(lane)
    assert code == 1
    assert {p["batch_no"] for p in found["problems"]} <= {2, 3}
    assert any(table in p["table"] and p["batch_no"] == 2 for p in found["problems"]), found["problems"]
    assert not (found["conserved"] and found["continuous"])


def test_rows_beyond_the_ledger_are_found(address, client):
    """Rows of a batch far beyond the lane's last are not work in progress."""
    fill(ClickHouseSink(address), 3)
    client.execute(f"INSERT INTO adledger.events (lane, batch_no, send_by) VALUES (3, 77, {SEND_BY})")
    code, found = check(3)
    assert (code, [(p["table"], p["batch_no"]) for p in found["problems"]]) == (1, [("events", 77)])


def test_a_span_is_checked_alone(address, client):
    """Only the requested batches are read, and problems elsewhere are not reported."""
    fill(ClickHouseSink(address), 4)
    client.execute(
        "ALTER TABLE adledger.events DELETE WHERE lane = 4 AND batch_no = 4", settings={"mutations_sync": 2}
    )
    assert check(4, "--to-batch", "3")[0] == 0
    code, found = check(4, "--from-batch", "3")
    assert (code, found["batches"], {p["batch_no"] for p in found["problems"]}) == (1, 2, {4})
    assert check(4, "--ledger-only")[0] == 0
    assert check(4, "--until", "2023-11-14")[1]["batches"] == 0
    assert check(4, "--since", "2023-11-14T22:13:23")[1]["batches"] == 2


def test_status_shows_lanes_and_sums(address, client):
    """It shows each lane's last batch, watermark and positions; the lag is unknown without a log."""
    fill(ClickHouseSink(address), 5)
    found = json.loads(run("status", "--json").stdout)
    (lane,) = [lane for lane in found["lanes"] if lane["lane"] == 5]
    assert lane == {
        "lane": 5,
        "batch_no": BATCHES,
        "clock": "2023-11-14T22:13:24.021+00:00",
        "positions": {"ad.impressions": BATCHES * RECORDS},
        "lag_records": None,
    }
    assert found["records_received"] >= BATCHES * RECORDS
    assert "2023-11-14T22:13:24.021+00:00" in run("status").stdout


def test_dead_letters_are_listed_and_shown(address, client):
    """Each has its reason, its position and its exact bytes, in a format for each use."""
    fill(ClickHouseSink(address), 6)
    answer = json.loads(run("dead-letters", "list", "--partition", "6", "--json").stdout)
    assert answer["counts"] == {"not_json": BATCHES * MALFORMED}
    first = answer["dead_letters"][0]
    assert (first["reason"], first["topic"], first["partition"], first["value_hex"]) == (
        "not_json", "ad.impressions", 6, "7b00ff",
    )  # fmt: skip
    offset = str(first["offset"])
    output = run("dead-letters", "show", "ad.impressions", "6", offset)
    assert "not_json: not JSON" in output.stdout
    assert "{\\x00\\xff" in output.stdout
    assert run("dead-letters", "show", "ad.impressions", "6", offset, "--raw").stdout_bytes == b"{\x00\xff"
    assert "7b 00 ff" in run("dead-letters", "show", "ad.impressions", "6", offset, "--hex").stdout
    assert (
        json.loads(run("dead-letters", "list", "--partition", "6", "--reason", "too_deep", "--json").stdout)[
            "dead_letters"
        ]
        == []
    )
    absent = run("dead-letters", "show", "ad.impressions", "6", "12345678")
    assert isinstance(absent.exception, AdledgerError)


def test_query_returns_the_servers_own_formats(address, client):
    """The server formats the result; an error is the server's, with a remedy."""
    assert run("query", "SELECT 1 AS a, 'b'").stdout == "1\tb\n"
    assert run("query", "SELECT 1 AS a", "--format", "CSVWithNames").stdout == '"a"\n1\n'
    assert json.loads(run("query", "SELECT 1 AS a", "--json").stdout)["data"] == [{"a": 1}]
    assert run("query", "SELECT 1 AS a FORMAT JSONEachRow").stdout == '{"a":1}\n'
    assert CliRunner().invoke(app, ["query", "-"], input="SELECT 2").stdout == "2\n"
    refused = run("query", "SELECT * FROM no_such_table").exception
    assert isinstance(refused, SinkError)
    assert "no_such_table" in refused.message


def test_migrating_again_changes_nothing(address):
    """Migrations are applied once; a dry run on a new database prints statements and creates nothing."""
    assert run("migrate").stdout == "database adledger is up to date\n"
    planned = run("migrate", "--database", "other", "--dry-run").stdout
    assert "CREATE TABLE IF NOT EXISTS other.events" in planned
    assert json.loads(run("migrate", "--database", "other", "--dry-run", "--json").stdout)["applied"]
    assert run("query", "EXISTS DATABASE other").stdout == "0\n"


def test_a_database_without_tables_gets_a_remedy(address):
    """Commands on a database that was never migrated name the command that fixes it."""
    for command in (("status",), ("ledger", "check"), ("dead-letters", "list")):
        error = run(*command, "--database", "nowhere").exception
        assert isinstance(error, SinkError), command
        assert "adledger migrate" in error.remedy


def test_an_embedded_directory_is_served_for_one_command(tmp_path: Path):
    """embedded:DIR starts a server where none runs and stops it afterwards; the data stay."""
    where = ("--clickhouse", f"embedded:{tmp_path / 'ch'}", "--database", "default")
    refused = run("query", "CREATE DATABASE d", *where).exception
    assert isinstance(refused, SinkError)
    assert "--write" in refused.remedy
    assert run("query", "EXISTS DATABASE d", *where).stdout == "0\n"
    assert run("query", "CREATE DATABASE d", "--write", *where).exit_code == 0
    assert run("query", "EXISTS DATABASE d", *where).stdout == "1\n"
