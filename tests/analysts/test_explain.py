"""`adledger explain`: evidence computed again from stored events agrees with what is stored, rule by rule."""

import functools
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from typer.testing import CliRunner

from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.explain.explain import Explainer
from adledger.pipeline.explain.rows import COLUMNS, TIMES, EventRow
from adledger.pipeline.explain.store import Store
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.rules.loader import today
from adledger.schemas.classes import Class, Reason
from tests.analysts.conftest import Evaluated
from tests.analysts.story import PUBLISHER, RIVAL

PER_REASON, OTHERS = 2, 12


@pytest.fixture(scope="module")
def store(evaluated: Evaluated) -> Store:
    return Store(evaluated.client, TableNames(evaluated.settings.database))


@pytest.fixture(scope="module")
def explainer(evaluated: Evaluated, store: Store) -> Explainer:
    lists = load_lists(today(), age_days_max=evaluated.settings.list_age_days_max)
    return Explainer(store, lists, store.publishers())


@pytest.fixture(autouse=True)
def environment(evaluated: Evaluated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ADLEDGER_CLICKHOUSE", str(evaluated.settings.clickhouse))


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["explain", *arguments])


def found(event_id: str, *arguments: str) -> list[dict[str, Any]]:
    """Return what explain says on the test's server, queried once for each server."""
    return asked(os.environ["ADLEDGER_CLICKHOUSE"], event_id, *arguments)


@functools.cache
def asked(_server: str, event_id: str, *arguments: str) -> list[dict[str, Any]]:
    result = run(event_id, *arguments, "--json")
    assert result.exit_code == 0, result.exception
    return json.loads(result.stdout)["events"]


def some_of_each(evaluated: Evaluated) -> Iterator[EventRow]:
    """Return some events of every reason and class, including duplicates and users without an id, and some others."""
    columns = ", ".join(f"toUnixTimestamp64Milli({c})" if c in TIMES else c for c in COLUMNS)
    for where, most in [
        *((f"bitTest(reasons, {r:d})", PER_REASON) for r in Reason),
        *((f"bitTest(reasons, {r:d}) AND publisher_id >= {PUBLISHER:d}", PER_REASON) for r in Reason),
        *((f"class_code = {c:d} AND event_type_code = 2", PER_REASON) for c in Class),
        ("bitTest(flags, 5) AND event_type_code = 2", PER_REASON),
        ("1", OTHERS),
    ]:
        for row in evaluated.client.execute(
            f"SELECT {columns} FROM adledger.events WHERE {where} ORDER BY cityHash64(lane, topic, offset) LIMIT {most:d}"
        ):
            yield EventRow(*row)


def test_an_event_is_found_by_id_or_hash() -> None:
    """Ids are stored hashed: an id_hash explains the same events as the id, and an invalid hash is refused."""
    id_hash = str(json.loads(run("s-79", "--json").stdout)["id_hash"])
    assert found(id_hash, "--id-hash") == found("s-79")
    for wrong in ("s-79", str(2**64)):
        refused = run("--id-hash", wrong)
        assert "is not an id_hash" in str(refused.exception)


def test_evidence_agrees_with_what_is_stored(evaluated: Evaluated, explainer: Explainer) -> None:
    """For events of every reason, the rules, run again on the lane's stored events, hit exactly the stored bits."""
    seen = 0
    for row in some_of_each(evaluated):
        explained = explainer.explain(row)
        assert explained.differs == (), (row, explained.findings)
        assert explained.rules is not None
        assert {f.reason for f in explained.findings if f.hit} == {r for r in row.hits if r > 1}
        seen |= row.reasons
    assert {r for r in Reason if seen >> r & 1} >= set(Reason) - {
        Reason.UNKNOWN_PUBLISHER,
        Reason.PUBLISHER_SUSPENDED,
    }


def test_a_click_is_explained_by_its_impression() -> None:
    """The evidence has the gap, the limit and the position of the impression, each rule's mode, and where the click came
    from.
    """
    (click,) = found("s-79")
    rules = {r["rule"]: r for r in click["rules"]}
    assert (click["class"], click["primary_reason"]) == ("sivt", "CLICK_TOO_FAST")
    fast = rules["CLICK_TOO_FAST"]
    assert fast["hit"]
    assert fast["facts"]["gap_ms"] == 292
    assert fast["params"]["gap_min_ms"] == 500
    (impression,) = found("s-78")
    assert fast["facts"]["impression"]["offset"] == impression["offset"]
    assert click["topic"] == "ad.clicks"
    assert click["ledger"]["records_received"] > 0
    assert click["user_hash"] is None


def test_evidence_of_rates_and_lists() -> None:
    """Counts, networks and list entries are in the evidence, each with its threshold."""

    def evidence(event_id: str, rule: str, *arguments: str) -> dict[str, Any]:
        (event,) = found(event_id, *arguments)
        (of_rule,) = [r for r in event["rules"] if r["rule"] == rule]
        assert of_rule["hit"]
        return of_rule

    assert evidence("s-24", "USER_MANY_IPS")["facts"]["network"] == "81.2.74.0/24"
    assert len(evidence("s-24", "USER_MANY_IPS")["facts"]["networks_before"]) >= 2
    assert evidence("s-65", "REPEAT_CLICK")["facts"]["clicks_before"] == 4
    assert evidence("s-65", "USER_VELOCITY")["facts"]["clicks_before"] == 4
    assert set(evidence("s-47", "PERIODIC")["facts"]["gaps_ms"]) == {60_000}
    assert "Googlebot" in evidence("s-70", "CRAWLER_IMPOSTOR")["evidence"]
    assert "private" in evidence("s-76", "IP_RESERVED")["evidence"].lower()
    assert "curl" in evidence("s-71", "UA_NON_BROWSER")["evidence"]
    assert evidence("s-73", "INVALID_PLACEMENT")["facts"]["width"] == 1


def test_all_matches_and_their_families() -> None:
    """An id that two publishers use is two events; a duplicate names its original, an original its duplicates."""
    events = found("s-1")
    assert [e["publisher_id"] for e in events] == [PUBLISHER, PUBLISHER, RIVAL]
    first, again, other = events
    assert (again["class"], again["reasons"]) == ("duplicate", ["DUPLICATE_CONFLICT"])
    assert again["duplicate_of"]["offset"] == first["offset"]
    assert [d["offset"] for d in first["duplicates"]] == [again["offset"]]
    assert (other["duplicates"], other["duplicate_of"]) == ([], None)
    assert found("s-1", "--publisher", str(RIVAL)) == [other]
    assert found("s-1", "--type", "impression") == events
    output = run("s-1").stdout
    assert "event 2 of 3" in output
    assert "duplicate of" in output
    assert "DIFFERS" not in output


def test_a_missing_event_is_reported_with_what_to_check() -> None:
    """Nothing found is exit code 1 with other places to look; a dead letter with the id is named."""
    missing = run("no-such-id")
    assert isinstance(missing.exception, AdledgerError)
    assert missing.exception.exit_code == 1
    assert "adledger status" in missing.exception.remedy
    assert isinstance(run("s-79", "--type", "impression").exception, AdledgerError)
    letter = run("s-90").exception
    assert isinstance(letter, AdledgerError)
    assert "dead letters contain it" in letter.message
    assert "dead-letters show" in letter.remedy
