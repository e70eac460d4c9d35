"""Differences between rule sets, publishers' files, and what alerts say of a lane."""

import dataclasses
import datetime as dt
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.cli.publishers import read_publishers
from adledger.pipeline.errors import SinkError, UsageError
from adledger.pipeline.lanes.rules_in_force import snapshot, standing
from adledger.pipeline.lists.facts import ADDRESSES_BACK_DAYS_MAX, DATACENTRES
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.lists.publishers import PublisherStatus
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.pipeline.rules.diff import differences
from adledger.pipeline.rules.loader import load_rules
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.schemas.classes import Reason
from adledger.sinks.rules import AlertKind, AlertRow
from tests.support.rule_sets import rule_set


def test_sets_that_decide_the_same_do_not_differ() -> None:
    """Author, date and reason of a set make no difference; versions and differences agree."""
    default = load_rules("default")
    assert differences(default, dataclasses.replace(default, author="ann", reason="else")) == []


@given(st.sampled_from([r for r, rule in RULES.items() if rule.params]), st.data())
def test_a_change_of_one_value_is_one_difference(reason: Reason, data: st.DataObject) -> None:
    """It has rule and name, from and to; for a horizon it says that windows are rebuilt."""
    default = load_rules("default")
    setting = default.rules[reason]
    param = data.draw(st.sampled_from(RULES[reason].params))
    value = data.draw(st.integers(param.least, param.most))
    changed = dataclasses.replace(setting, params={**setting.params, param.name: value})
    other = dataclasses.replace(default, rules={**default.rules, reason: changed})
    found = differences(default, other)
    assert bool(found) == (default.version != other.version)
    for d in found:
        before = str(setting.params[param.name])
        assert (d.rule, d.what, d.before, d.after) == (reason.name, param.name, before, str(value))
        assert d.rebuilds == bool(param.horizon_ms)


def test_modes_bounds_and_the_guardrail_are_compared() -> None:
    """Switching on a rule that looks back rebuilds windows too."""
    before, after = rule_set(PREFETCH={}), rule_set(PREFETCH={}, DOUBLE_CLICK={})
    after = dataclasses.replace(after.flagged([Reason.PREFETCH]), guardrail_events_min=5)
    found = {(d.rule, d.what, d.before, d.after, d.rebuilds) for d in differences(before, after)}
    assert found == {
        ("PREFETCH", "mode", "enforce", "flag", False),
        ("DOUBLE_CLICK", "mode", "off", "enforce", True),
        ("guardrail", "events_min", "10000", "5", False),
    }


def test_a_publishers_file_is_read_whole(tmp_path: Path) -> None:
    """Header, ids, statuses and days are read."""
    path = tmp_path / "p.csv"
    path.write_text(
        'publisher_id,status,name,since\n7,active,"News, daily",2026-01-31\n4294967295,suspended,,2026-02-01\n'
    )
    assert [(i, s, n, str(d)) for i, s, n, d in read_publishers(path)] == [
        (7, "active", "News, daily", "2026-01-31"), (4_294_967_295, "suspended", "", "2026-02-01"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "row", ["0,active,A,2026-01-01", "4294967296,active,A,2026-01-01", "x,active,A,2026-01-01", "1,paused,A,2026-01-01",
            "1,active,A,01.02.2026", "1,active,A", "7,active,again,2026-01-01"],
)  # fmt: skip
def test_a_mistake_in_a_publishers_file_is_refused_with_its_line(tmp_path: Path, row: str) -> None:
    """No part of an invalid file is used."""
    path = tmp_path / "p.csv"
    path.write_text(f"publisher_id,status,name,since\n7,active,A,2026-01-01\n{row}\n")
    with pytest.raises(UsageError, match="line 3"):
        read_publishers(path)
    path.write_text("id,status\n")
    with pytest.raises(UsageError, match="line 1"):
        read_publishers(path)


def test_statuses_of_another_release_are_refused() -> None:
    """Unknown statuses are not guessed."""
    assert len(snapshot([(1, "active"), (2, "suspended")])) == 2
    with pytest.raises(SinkError, match="paused"):
        snapshot([(1, "paused")])
    assert {s.name.lower() for s in PublisherStatus if s} == {"active", "suspended"}


ALERTS = st.lists(
    st.builds(
        AlertRow, st.sampled_from([AlertKind.BREACH, AlertKind.RESUME]), st.just(1), st.sampled_from(["PREFETCH", "UA_BLANK"]),
        lane=st.integers(0, 1), clock=st.integers(0, 9),
    ),
    max_size=8,
)  # fmt: skip


@given(ALERTS, st.integers(0, 1))
def test_the_last_alert_on_each_rule_counts(alerts: list[AlertRow], lane: int) -> None:
    """A breach of this lane demotes a rule, a resumption by any operator restores it; the last breach's watermark is
    kept.
    """
    found = standing(alerts, lane)
    for rule in (Reason.PREFETCH, Reason.UA_BLANK):
        words = [a for a in alerts if a.rule == rule.name and (a.kind == AlertKind.RESUME or a.lane == lane)]
        breaches = [a.clock for a in words if a.kind == AlertKind.BREACH]
        assert (rule in found.demoted) == bool(words and words[-1].kind == AlertKind.BREACH)
        assert found.breached.get(rule) == (breaches[-1] if breaches else None)


def test_a_set_with_demoted_rules_is_another_evaluator() -> None:
    """It reads back from its text with the demoted rules flagged."""
    default = load_rules("default")
    demoted = default.flagged([Reason.DOUBLE_CLICK])
    assert RuleSet.parse(demoted.text(), "x").rules[Reason.DOUBLE_CLICK].mode == Mode.FLAG
    assert demoted.version != default.version


def test_lists_of_addresses_are_not_used_for_log_days_long_before_them() -> None:
    """The batch's log day decides, to the day; which rules are not evaluated is part of the version, the day is not."""
    day = dt.date(2026, 11, 23)
    evaluator = RuleEvaluator(load_rules("default"), load_lists(day, age_days_max=3_650))
    assert evaluator.lists is not None
    made = next(f.made for f in evaluator.lists.facts if f.name == DATACENTRES)
    assert made is not None
    last = made - dt.timedelta(days=ADDRESSES_BACK_DAYS_MAX)
    none, one_day = frozenset[Reason](), dt.timedelta(days=1)
    now, in_time, too_early, long_ago = (
        evaluator.for_batch(d, none) for d in (day, last, last - one_day, dt.date(1970, 1, 1))
    )
    assert Reason.IP_DATACENTER not in in_time.not_evaluated
    assert Reason.IP_DATACENTER in too_early.not_evaluated
    assert now.version == in_time.version or Reason.CRAWLER_IMPOSTOR in in_time.not_evaluated
    assert too_early.version != now.version
    assert not too_early.run >> Reason.IP_DATACENTER & 1
    assert set(long_ago.not_evaluated) >= {Reason.IP_DATACENTER, Reason.CRAWLER_IMPOSTOR}
    assert evaluator.for_batch(day, frozenset({Reason.UA_BLANK})).version != now.version
