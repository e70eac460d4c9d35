"""Rule sets as data: read whole or refused with line and remedy; versions cover all that an evaluation uses."""

import dataclasses
import datetime as dt
import re
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import UsageError
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.pipeline.rules.loader import DEFAULT, load_evaluator, load_rules
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.pipeline.rules.schema import rules_schema
from adledger.pipeline.settings import Settings
from adledger.pipeline.stages.evaluate import CONTRACT_VERSION
from adledger.schemas.classes import Reason
from tests.support.rule_sets import HEAD, rule_set

MODES = {r: [m for m in Mode if not (rule.flag_only and m == Mode.ENFORCE)] for r, rule in RULES.items()}


@st.composite
def rule_sets(draw) -> RuleSet:
    """Any set that the text format can express."""
    text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(str.strip)
    rules = {}
    for reason, setting in RuleSet.none().rules.items():
        params = {p.name: draw(st.integers(p.least, p.most)) for p in RULES[reason].params}
        shares = sorted(draw(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6))))
        mode = draw(st.sampled_from(MODES[reason]))
        rules[reason] = dataclasses.replace(
            setting, mode=mode, params=params, share_min_ppm=shares[0], share_max_ppm=shares[1]
        )
    return RuleSet(
        draw(text),
        draw(st.dates()),
        draw(text),
        rules,
        draw(st.integers(1, 1440)),
        draw(st.integers(1, 10**12)),
    )


@given(rule_sets())
def test_a_set_round_trips(rules):
    """text() and parse() are inverse, and equal sets have equal versions."""
    again = RuleSet.parse(rules.text(), "again")
    assert again == rules
    assert again.version == rules.version


@given(rule_sets(), rule_sets())
def test_the_version_names_what_is_decided_and_nothing_else(one, other):
    """Another author is the same evaluator; another mode, threshold or bound is not."""
    assert dataclasses.replace(one, author="x", reason="y").version == one.version
    same = all(
        getattr(one, f) == getattr(other, f)
        for f in ("rules", "guardrail_window_minutes", "guardrail_events_min")
    )
    assert (one.version == other.version) == same


def test_the_default_set_is_what_the_rules_say():
    """The shipped set has every rule, in its default mode, with its default parameters."""
    rules = load_rules(DEFAULT)
    for reason, setting in rules.rules.items():
        assert (setting.mode, setting.params) == (
            RULES[reason].mode,
            {p.name: p.default for p in RULES[reason].params},
        )
    assert rules.horizon_ms == 60 * 60_000


def test_the_schema_is_that_of_the_rules():
    """schemas/rules.schema.json says what parse accepts; regenerate it with `python -m adledger.pipeline.rules.schema`."""
    path = Path(__file__).resolve().parents[2] / "schemas" / "rules.schema.json"
    assert orjson.loads(path.read_bytes()) == rules_schema()


WRONG = [
    ("[rules.UA_BLANK]\nmode = 'enforc'\n", 5, "not a mode"),
    ("[rules.UA_BLANK]\n\nmood = 'enforce'\n", 6, "no 'mood'"),
    ("[rules.UA_BLANKS]\nmode = 'enforce'\n", 4, "no 'UA_BLANKS'"),
    ("[rules.UA_BLANK]\n", 4, "mode is missing"),
    ("[rules.CLICK_NO_IMPRESSION]\nmode = 'enforce'\n", 5, "hints"),
    ("[rules.DOUBLE_CLICK]\nmode = 'flag'\nwithin_ms = 0\n", 6, "out of bounds"),
    ("[rules.DOUBLE_CLICK]\nmode = 'flag'\nwithin_ms = true\n", 6, "out of bounds"),
    ("[rules.UA_BLANK]\nmode = 'flag'\nshare_max_percent = 101\n", 6, "not a share"),
    ("[rules.UA_BLANK]\nmode = 'flag'\nshare_max_percent = 0.00001\n", 6, "too fine"),
    ("[rules.UA_BLANK]\nmode = 'flag'\nshare_min_percent = 9\nshare_max_percent = 2\n", 6, "above"),
    ("[guardrail]\nevents_min = 0\n", 5, "out of bounds"),
    ("[gardrail]\n", 4, "no 'gardrail'"),
    ("[rules\n", 4, "not TOML"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "line", "what"), WRONG, ids=[what for *_, what in WRONG])
def test_a_wrong_set_is_refused_whole_with_its_line(body, line, what):
    """The message has file, line and error; the remedy says what to do."""
    with pytest.raises(UsageError, match=what) as refused:
        RuleSet.parse(HEAD + body, "new.toml")
    assert re.match(rf"new\.toml, line {line}: ", refused.value.message), refused.value.message
    assert refused.value.remedy


@pytest.mark.parametrize("key", ["author", "date", "reason"])
def test_a_set_says_who_when_and_why(key):
    """A set without author, date or reason is refused."""
    lines = [line for line in HEAD.splitlines() if not line.startswith(key)]
    with pytest.raises(UsageError, match=f"{key} is missing"):
        RuleSet.parse("\n".join(lines), "new.toml")


def test_the_settings_name_the_evaluator(tmp_path):
    """none, default, a file, or published (the default set until one is published); an unreadable set, or one that looks
    back further than the setting allows, is refused.
    """
    day = dt.date(2026, 1, 15)
    assert load_evaluator(Settings(rules="none"), day).version == CONTRACT_VERSION
    assert load_evaluator(Settings(), day).version == load_evaluator(Settings(rules=DEFAULT), day).version
    default = load_evaluator(Settings(rules=DEFAULT, list_age_days_max=3_650), day)
    assert set(default.not_evaluated) == {Reason.UNKNOWN_PUBLISHER, Reason.PUBLISHER_SUSPENDED}
    with pytest.raises(UsageError, match="can't be read"):
        load_evaluator(Settings(rules=str(tmp_path / "none.toml")), day)
    far = tmp_path / "far.toml"
    far.write_text(HEAD + "[rules.REPEAT_CLICK]\nmode = 'flag'\nwindow_minutes = 61\n")
    with pytest.raises(UsageError, match="looks back 61 minutes"):
        load_evaluator(Settings(rules=str(far)), day)
    assert (
        load_evaluator(Settings(rules=str(far), rule_horizon_minutes_max=61), day).rules.horizon_ms
        == 61 * 60_000
    )


def test_a_rule_without_its_list_says_that_it_is_not_evaluated():
    """Without lists and publishers their rules are not evaluated, with a reason, and the others are."""
    evaluator = RuleEvaluator(rule_set(UA_KNOWN_BOT={}, UNKNOWN_PUBLISHER={}, PREFETCH={}, PERIODIC={}))
    assert set(evaluator.not_evaluated) == {Reason.UA_KNOWN_BOT, Reason.UNKNOWN_PUBLISHER}
    assert evaluator.run == 1 << Reason.PREFETCH | 1 << Reason.PERIODIC
    assert all(evaluator.not_evaluated.values())


def test_the_evaluator_version_covers_all_that_it_uses():
    """Without rules it is the contract's version; each rule and mode changes it."""
    assert RuleEvaluator.none().version == CONTRACT_VERSION
    one = RuleEvaluator(rule_set(PREFETCH={}))
    demoted = RuleEvaluator(one.rules.flagged([Reason.PREFETCH]))
    assert len({CONTRACT_VERSION, one.version, demoted.version}) == 3
    assert (one.enforced, demoted.enforced, demoted.run) == (1 << Reason.PREFETCH, 0, 1 << Reason.PREFETCH)
