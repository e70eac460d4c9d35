"""Scores are excess by its definition, and recall, precision and honest events by labels; the page is regenerated."""

import datetime as dt

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adledger.loadtest.fraud_eval.report import BEGIN, END, Evaluation, report
from adledger.loadtest.fraud_eval.scores import SCORED, Rows, farm_excess, flood_excess, scores
from adledger.loadtest.traffic.labels import Label
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.rules.plain import EventView, user_many_ips, user_velocity
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.schemas.classes import Class, Reason
from adledger.schemas.wire import EventType
from tests.support.rule_sets import rule_set

MINUTE_MS = 60_000
RULES = rule_set(
    USER_VELOCITY={"clicks_max": 2, "clicks_window_minutes": 2},
    USER_MANY_IPS={"window_minutes": 2, "networks_max": 2},
)

ACTIONS = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 90_000)), max_size=30)
"""User, network, and how long after the action before (ms)."""


def rows_of(actions: list[tuple[int, int, int]], label: Label, kind: EventType) -> Rows:
    rows = np.zeros(len(actions), SCORED)
    rows["user_no"], rows["log_time"] = [u for u, *_ in actions], np.cumsum([gap for *_, gap in actions])
    rows["ip_lo"] = [0xFFFF_0000_0000 + (n << 8) + 7 for _, n, _ in actions]
    rows["label"], rows["event_type"], rows["class_code"] = label, kind, Class.BILLABLE
    return rows


def events_of(rows: Rows) -> list[EventView]:
    return [
        EventView(int(r["event_type"]), int(r["log_time"]), int(r["log_time"]), 1, 1, 1, n, 0, 10 + int(r["user_no"]), False,
              int(r["ip_lo"]), 0)
        for n, r in enumerate(rows)
    ]  # fmt: skip


@given(ACTIONS)
def test_excess_is_what_the_plain_rules_say(actions: list[tuple[int, int, int]]) -> None:
    """Counted without the rules, the excess of floods and farms is what their plain definitions tag."""
    flood = rows_of(actions, Label.CLICK_FLOOD, EventType.CLICK)
    farm = rows_of(actions, Label.COOKIE_FARM, EventType.IMPRESSION)
    for rows, counted, rule, reason in (
        (flood, flood_excess, user_velocity, Reason.USER_VELOCITY),
        (farm, farm_excess, user_many_ips, Reason.USER_MANY_IPS),
    ):
        events, params = events_of(rows), RULES.rules[reason].params
        expected = [rule(events[:n], event, params) for n, event in enumerate(events)]
        assert counted(rows, RULES).tolist() == expected


def evaluation(rows: Rows) -> Evaluation:
    lists = load_lists(dt.date(2026, 1, 15), age_days_max=3_650)
    return Evaluation(dt.date(2026, 1, 1), 10, 1, RuleSet.none(), lists, (7,), *scores(rows, RULES), ())


def test_scores_count_by_label() -> None:
    """An attack's event is found when its own rule tags it and it is not billed; an invalidated honest event is reported,
    and fails.
    """
    rows = np.zeros(6, SCORED)
    rows["label"] = [Label.INJECTED_CLICK] * 3 + [Label.HONEST, Label.OFFICE, Label.HONEST]
    hit = 1 << Reason.CLICK_TOO_FAST
    rows["reasons"] = [hit, hit, 0, 0, hit, hit]
    rows["class_code"] = [
        Class.SIVT, Class.BILLABLE, Class.GIVT, Class.BILLABLE, Class.SIVT, Class.DUPLICATE,
    ]  # fmt: skip
    found = evaluation(rows)
    (attack,) = [a for a in found.attacks if a.events]
    assert (attack.label, attack.to_find, attack.found, attack.not_billed) == (Label.INJECTED_CLICK, 3, 1, 2)
    (rule,) = [r for r in found.by_rule if r.hits]
    assert (rule.reason, rule.hits, rule.of_attacks, rule.honest_invalidated) == (
        Reason.CLICK_TOO_FAST,
        3,
        2,
        1,
    )
    assert (found.honest_events, found.honest_invalidated) == (2, 1)
    wrong = found.wrong(0.99, 0.0001)
    assert any("INJECTED_CLICK is 0.3333" in line for line in wrong)
    assert any("1 of 2 honest events" in line for line in wrong)


def test_only_the_measured_part_of_the_page_is_renewed() -> None:
    """The text around the marks stays, and regenerating is idempotent."""
    found = evaluation(np.zeros(0, SCORED))
    once = report(found, f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert once.startswith(f"before\n{BEGIN}\n")
    assert once.endswith(f"{END}\nafter\n")
    assert "old" not in once
    assert report(found, once) == once
    assert BEGIN in report(found, "")
