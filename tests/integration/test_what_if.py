"""What-if on the engine predicts exactly what a run with the candidate does; and the tables of rules."""

import asyncio
import dataclasses
import datetime as dt
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from adledger.loadtest.traffic.model import Scenario, TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.addresses import FilesAddress, ServerAddress
from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import AdledgerError, UsageError
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.start import run_worker
from adledger.pipeline.rules.loader import load_rules
from adledger.pipeline.rules.rule import Mode
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.pipeline.settings import Settings
from adledger.schemas.classes import Class, Reason
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.rules import AlertKind, AlertRow
from tests.support.rule_sets import HEAD

ATTACKS = ("double_click", "click_flood", "injected_click", "datacentre_bot", "impostor")
MODEL = TrafficModel(
    seed=5, events=4_000, partitions=2, duration_hours=5, users=300, user_head_users=10, click_share=0.2,
    scenarios=tuple(Scenario(kind=kind, actors=4, events_per_actor=40) for kind in ATTACKS),
)  # fmt: skip
ALWAYS = ("--from", "2000-01-01", "--to", "2100-01-01")


def candidate() -> RuleSet:
    """A set that is stricter here, milder there, with another horizon, a rule off and a rule flagged."""
    default = load_rules("default")
    rules = dict(default.rules)

    def change(reason: Reason, mode: Mode | None = None, **params: int) -> None:
        s = rules[reason]
        rules[reason] = dataclasses.replace(s, mode=mode or s.mode, params={**s.params, **params})

    change(Reason.USER_VELOCITY, clicks_max=1, events_max=4)
    change(Reason.IP_DATACENTER, Mode.FLAG)
    change(Reason.CLICK_TOO_FAST, Mode.OFF)
    change(Reason.CLICK_TOO_LATE, Mode.ENFORCE, gap_max_minutes=1, horizon_minutes=30)
    change(Reason.USER_MANY_IPS, networks_max=1)
    return dataclasses.replace(default, rules=rules)


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    """A server with two databases: `one` evaluated by the default set, `two`, from the same log, by the candidate."""
    folder = tmp_path_factory.mktemp("what_if")
    with open_log(folder / "log", MODEL.partitions) as writer:
        write_traffic(MODEL, writer, lambda _: None)
    (folder / "new.toml").write_text(candidate().text(), "utf-8")
    with EmbeddedServer.start(folder / "clickhouse") as running, pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        server = ServerAddress(running.host, running.port, running.http_port)
        patch.setenv(
            "ADLEDGER_CLICKHOUSE", f"clickhouse://{server.host}:{server.port}/?http_port={server.http_port}"
        )
        for database, rules in (("one", "default"), ("two", "new.toml")):
            settings = Settings(
                source=FilesAddress(folder / "log"), clickhouse=server, database=database, group=database, rules=rules,
                batch_rows_max=500, list_age_days_max=3_650,
            )  # fmt: skip
            summary = run_worker(settings, until_caught_up=True, progress=lambda _: None)
            assert summary is not None
            assert summary.conserved
        yield server


@pytest.fixture(scope="module")
def client(address: ServerAddress) -> Iterator[Client]:
    with connect(address) as connection:
        yield connection


def run(*arguments: str) -> Any:
    aged = ("--set", "list_age_days_max=3650")
    found = CliRunner().invoke(app, ["rules", *arguments, "--database", "one", *aged])
    assert found.exception is None or isinstance(found.exception, SystemExit | AdledgerError), found.exception
    return found


def what_if(rules: str, *span: str) -> dict[str, Any]:
    found = run("what-if", "--rules", rules, *span, "--json")
    assert found.exit_code == 0, found.exception
    return json.loads(found.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("hours", [None, (0, 24), (7, 9), (8, 11)])
def test_the_same_rules_change_nothing(
    client: Client, hours: tuple[int, int] | None, address: ServerAddress
) -> None:
    """This holds over all events and for a span that begins in the middle, with windows warmed up by earlier events."""
    ((first,),) = client.execute("SELECT toUnixTimestamp(min(lane_clock)) FROM one.events")
    assert address
    span = ALWAYS
    if hours is not None:
        begin, end = (
            dt.datetime.fromtimestamp(first // 3_600 * 3_600 + (h - 7) * 3_600, dt.UTC).strftime(
                "%Y-%m-%dT%H:%M"
            )
            for h in hours
        )
        span = ("--from", begin, "--to", end)
    found = what_if("default", *span)
    assert found["events"] > 0
    assert found["events_changed"] == 0
    assert found["changes"] == found["samples"] == []
    assert all(rule["hits_then"] == rule["hits_now"] for rule in found["rules"])


def test_a_prediction_is_what_a_run_with_the_candidate_changes(client: Client) -> None:
    """Events and money, by publisher and class, are exactly those that differ between the two databases."""
    before = client.execute(
        "SELECT count(), sum(cityHash64(lane, topic, offset, class_code, reasons)) FROM one.events"
    )
    found = what_if("new.toml", *ALWAYS)
    rows = client.execute(
        "SELECT a.publisher_id, toString(a.class), toString(b.class), count(), sum(toInt128(a.money_nanos)) FROM one.events AS a "
        "INNER JOIN two.events AS b ON a.lane = b.lane AND a.topic = b.topic AND a.offset = b.offset "
        "WHERE a.class_code != b.class_code GROUP BY ALL"
    )
    expected = {(p, a, b): (n, nanos) for p, a, b, n, nanos in rows}
    events: Counter[tuple[int, str, str]] = Counter()
    money: Counter[tuple[int, str, str]] = Counter()
    for c in found["changes"]:
        key = (c["publisher_id"], c["from"], c["to"])
        events[key] += c["events"]
        money[key] += int(c["money_nanos"])
    assert {key: (n, money[key]) for key, n in events.items()} == expected
    kinds = {(a, b) for _, a, b in expected}
    assert {("billable", "sivt"), ("givt", "billable"), ("sivt", "billable")} <= kinds
    assert {s["rule"] for s in found["samples"]} == {c["rule"] for c in found["changes"]}
    assert all(s["user_agent"] != "(text missing)" for s in found["samples"])
    after = client.execute(
        "SELECT count(), sum(cityHash64(lane, topic, offset, class_code, reasons)) FROM one.events"
    )
    assert before == after, "it writes nothing"


def test_the_output_names_rules_publishers_and_samples() -> None:
    """There are three tables; what can't be predicted is on stderr."""
    found = run("what-if", "--rules", "new.toml", *ALWAYS)
    assert found.exit_code == 0
    assert "would change their class" in found.stdout
    assert "USER_VELOCITY" in found.stdout
    assert "UNKNOWN_PUBLISHER is not evaluated" in found.stderr


def test_a_missing_dimension_string_is_reported(client: Client) -> None:
    """Without user_agents the stored findings are used, so the same rules still change nothing."""
    client.execute("CREATE TABLE one.kept ENGINE = Memory AS SELECT * FROM one.user_agents")
    client.execute("TRUNCATE TABLE one.user_agents")
    try:
        found = what_if("default", *ALWAYS)
    finally:
        client.execute("INSERT INTO one.user_agents SELECT * FROM one.kept")
        client.execute("DROP TABLE one.kept")
    assert found["events_changed"] == 0
    assert any("user agent whose text is not stored" in note for note in found["cannot_know"])


def test_every_evaluator_of_an_event_is_stored(client: Client) -> None:
    """It is stored with its complete rules, what they enforce, and the lists that it used."""
    rows = client.execute(
        "SELECT e.v, j.rules, j.enforced, j.list_names, j.list_contents, j.list_usable, j.release FROM "
        "(SELECT DISTINCT judge_version AS v FROM one.events) AS e LEFT JOIN one.judges AS j ON j.version = e.v"
    )
    assert rows
    default = load_rules("default")
    for _, rules, enforced, names, contents, usable, release in rows:
        assert RuleSet.parse(rules, "judges").version == default.version
        assert enforced == default.bits(Mode.ENFORCE)
        assert len(names) == len(contents) == len(usable) == 5
        assert release
    ((rows, versions),) = client.execute("SELECT count(), uniqExact(version) FROM one.judges")
    assert rows == versions


def test_the_tables_of_rules_round_trip(address: ServerAddress) -> None:
    """Sets, alerts, publishers, and the batches of a guardrail's window read back as a worker needs them."""
    assert run("publish", "new.toml", "--author", "mia", "--reason", "to see").exit_code == 0
    wrong = Path("wrong.toml")
    wrong.write_text(HEAD + "[rules.DOUBLE_CLICK]\nmode = 'enforce'\nwithin_ms = -1\n", "utf-8")
    refused = run("publish", str(wrong), "--reason", "x")
    assert isinstance(refused.exception, UsageError)
    assert "line 6" in refused.exception.message

    async def read() -> None:
        sink = ClickHouseSink(address, SinkOptions(database="one"))
        (row,) = await sink.rules.published()
        assert RuleSet.parse(row.text, "x").version == row.version == candidate().version
        assert (row.author, row.reason) == ("mia", "to see")
        breach = AlertRow(
            AlertKind.BREACH,
            row.version,
            "PREFETCH",
            3,
            9,
            1_700_000_000_123,
            5,
            7,
            2**70,
            2**71,
            1,
            2,
            "",
            "x",
        )
        await sink.rules.add_alert(breach)
        await sink.rules.add_alert(AlertRow(AlertKind.REFUSED, row.version, what="no"))
        (found,) = await sink.rules.alerts(row.version)
        assert dataclasses.replace(found, raised_at=0) == breach
        default = load_rules("default")
        batches = await sink.rules.evaluated(0, 2**40, 2**32, default.version)
        entry = await sink.ledger_end(0)
        assert entry is not None
        assert [b.batch_no for b in batches] == list(range(1, entry.batch_no + 1))
        assert {b.enforced for b in batches} == {default.bits(Mode.ENFORCE)}
        last = batches[-1]
        assert last.clock_after == entry.clock_after
        for c in (Class.BILLABLE, Class.GIVT, Class.SIVT):
            assert sum(n for _, _, code, _, n, _ in last.sums if code == c) == entry.counts.get(c, 0)
        assert sum(nanos for *_, nanos in last.sums) == sum(
            m.money_nanos for m in entry.money if m.class_code in (Class.BILLABLE, Class.GIVT, Class.SIVT)
        )
        await sink.close()

    asyncio.run(read())


def test_a_demoted_rule_waits_for_an_operator(address: ServerAddress) -> None:
    """`status` shows it and fails; after `resume` of a demoted rule nothing is waiting."""
    version = load_rules("default").version

    async def breach() -> None:
        sink = ClickHouseSink(address, SinkOptions(database="one"))
        await sink.rules.add_alert(
            AlertRow(AlertKind.BREACH, version, "IP_DATACENTER", 1, 9, 5, 1, 10, 30, 100, 0, 200_000)
        )
        await sink.close()

    asyncio.run(breach())
    status = run("status", "--json")
    assert status.exit_code == 1
    assert json.loads(status.stdout)["demoted"] == {"IP_DATACENTER": [1]}
    assert isinstance(run("resume", "PREFETCH", "--reason", "x").exception, UsageError)
    assert run("resume", "IP_DATACENTER", "--reason", "checked").exit_code == 0
    assert run("status").exit_code == 0
