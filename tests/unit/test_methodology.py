"""The description of methodology says what the rules do."""

import re
from pathlib import Path

from adledger.pipeline.rules.loader import DEFAULT, load_rules
from adledger.pipeline.rules.methodology import methodology
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "methodology.md"


def test_the_page_is_that_of_the_shipped_rule_set():
    """A rule, threshold or sentence that changes without `make methodology` fails here."""
    expected = methodology(load_rules(DEFAULT), DEFAULT).rstrip()
    assert PAGE.read_text("utf-8").rstrip() == expected, "run `make methodology`"


def test_every_rule_is_described_with_its_class_threshold_and_totals():
    """Whatever the set, no rule is left out, every parameter has its value, and modes change what a rule counts towards."""
    rules = load_rules(DEFAULT)
    enforced = [r for r, s in rules.rules.items() if s.mode == Mode.ENFORCE]
    page, flagged = methodology(rules, "x"), methodology(rules.flagged(enforced), "x")
    for reason, rule in RULES.items():
        (line,) = [each for each in page.splitlines() if each.startswith(f"| [{reason.name}]")]
        assert f"| {rule.event_class.name} |" in line
        assert all(f"{name} = {value:,}" in line for name, value in rules.rules[reason].params.items())
        assert ("not net" in line) == (reason in enforced)
        assert rule.catches in page
        assert rule.origin in page
        assert rule.false_positives in page
    assert "not net" not in flagged


def test_the_readmes_comparison_counts_the_shipped_rules():
    """The number of rules that the README states is the number of rules there are, and the shipped set has each of them."""
    (stated,) = re.findall(
        r"\[(\d+) rules\]\(docs/methodology\.md\)", (ROOT / "README.md").read_text("utf-8")
    )
    assert int(stated) == len(RULES) == len(load_rules(DEFAULT).rules)
