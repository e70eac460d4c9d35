"""The cookbook's queries run unchanged, and mean what the page says."""

import re
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from adledger.pipeline.rules.rule import Mode
from adledger.schemas.classes import Reason
from adledger.sinks.connection import Client, connect
from tests.analysts.conftest import Evaluated
from tests.analysts.story import FARM_IPS, PUBLISHER, READER_IP, RIVAL

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "analysts.md").read_text("utf-8")
QUERIES = re.findall(r"### (.+?)\n.*?```sql\n(.+?)```", PAGE, re.DOTALL)

Row = dict[str, Any]


@pytest.fixture(scope="module")
def client(evaluated: Evaluated) -> Client:
    with connect(evaluated.settings.clickhouse, database="adledger") as connection:
        yield connection


def answer(client: Client, number: int) -> list[Row]:
    """Return the rows of a query, by its number on the page."""
    (sql,) = [sql for title, sql in QUERIES if title.startswith(f"{number}. ")]
    rows, columns = client.execute(sql, with_column_types=True)
    return [dict(zip([name for name, _ in columns], row, strict=True)) for row in rows]


def test_every_query_runs(client: Client) -> None:
    """The ten numbered queries and the last one each return rows for this traffic."""
    assert [title.split(".")[0] for title, _ in QUERIES][:10] == [str(n) for n in range(1, 11)]
    assert len(QUERIES) == 11
    for title, sql in QUERIES:
        assert client.execute(sql), title


def test_look_ups_find_the_actors(client: Client) -> None:
    """1 to 3: the event, the farmer on all its networks, and everything from the reader's address."""
    (event,) = answer(client, 1)
    assert (event["event_type"], event["class"], event["primary_reason"]) == ("click", "sivt", "REPEAT_CLICK")
    assert event["money"] == Decimal("0.5")
    farmer = answer(client, 2)
    assert [str(e["ip"].ipv4_mapped) for e in farmer] == list(FARM_IPS)
    assert [e["primary_reason"] for e in farmer] == ["", "", *["USER_MANY_IPS"] * 4]
    address = answer(client, 3)
    assert (
        len(address) == client.execute(f"SELECT count() FROM v_events WHERE ip = toIPv6('{READER_IP}')")[0][0]
    )
    assert {e["publisher_id"] for e in address} == {PUBLISHER, RIVAL}


def test_gross_to_net_adds_up(client: Client) -> None:
    """4: for each type and currency, gross is the sum of the other steps, and the story's rules are among them."""
    rows = answer(client, 4)
    for kind in ("impression", "click"):
        for what in ("events", "money"):
            of_kind = [(r["step"], r[what]) for r in rows if r["event_type"] == kind]
            assert (
                sum(v for s, v in of_kind if s == "gross") == sum(v for s, v in of_kind if s != "gross") > 0
            )
    by_reason = {r["reason"]: r for r in rows if r["step"] in {"givt", "sivt"}}
    assert by_reason["UA_KNOWN_BOT"]["events"] == 1
    assert by_reason["INVALID_PLACEMENT"]["money"] == Decimal("0.002")
    assert by_reason["REPEAT_CLICK"]["step"] == "sivt"
    assert {r["events"] for r in rows if r["reason"] == "DUPLICATE_CONFLICT"} == {1}


def test_rules_are_ranked_by_what_they_cost(client: Client, evaluated: Evaluated) -> None:
    """5 and 8: money falls within a currency, only enforced rules are listed, and both count the same events."""
    rows = answer(client, 5)
    for currency in {r["currency"] for r in rows}:
        money = [r["money"] for r in rows if r["currency"] == currency]
        assert money == sorted(money, reverse=True)
    enforced = {r.name for r, s in evaluated.rules.rules.items() if s.mode == Mode.ENFORCE}
    assert {r["reason"] for r in rows} <= enforced
    events: Counter[str] = Counter()
    for row in rows:
        events[row["reason"]] += row["events"]
    beside = answer(client, 8)
    assert {r["primary_reason"]: r["events"] for r in beside} == events
    bits = sum(1 << Reason[name] for name in enforced)
    for row in beside:
        only = 1 << Reason[row["primary_reason"]]
        alone = f"SELECT count() FROM events WHERE bitAnd(reasons, {bits}) = {only} AND class_code IN (3, 4)"
        assert client.execute(alone) == [(row["only_this_rule"],)]


def test_shares_user_agents_conflicts_and_floods(client: Client) -> None:
    """6, 7, 9, 10: worst publishers first; bots by name; what conflicts claimed; the flood's users, billed up to the
    limit.
    """
    shares = answer(client, 6)
    assert [r["percent"] for r in shares] == sorted((r["percent"] for r in shares), reverse=True)
    assert all(0 <= r["invalid"] <= r["gross"] for r in shares)
    assert shares[0]["percent"] > shares[-1]["percent"]
    assert any("Googlebot" in r["user_agent"] for r in answer(client, 7))
    conflicts = {r["publisher_id"]: r for r in answer(client, 9)}
    story = conflicts[PUBLISHER]
    assert (story["conflicts"], story["of_price"], story["more_asked"]) == (1, 1, Decimal("0.007"))
    floods = answer(client, 10)
    assert floods[0]["clicks"] >= 20
    assert all(r["billed"] < r["clicks"] for r in floods[:3])
    assert all(r["over_the_limit"] > 0 for r in floods[:3])
