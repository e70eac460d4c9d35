"""The lane protocol as a model (docs/model): it holds in every state, and does not without any one rule."""

from collections.abc import Mapping

import pytest

from docs.model.__main__ import searched_all
from docs.model.mutants import MUTANTS, Mutant
from docs.model.search import Searched
from docs.model.trace import WRONG, trace

PROTOCOL = ""


@pytest.fixture(scope="module")
def found() -> Mapping[str, Searched]:
    return {mutant.name if mutant else PROTOCOL: searched for mutant, searched in searched_all()}


def test_the_protocol_holds_in_every_state(found):
    """However often workers die, the group rebalances, requests are late and answers lost, nothing is lost and nothing
    counted twice.

    And from every state the lane reaches its end when nothing more goes wrong.
    """
    assert found[PROTOCOL].violation == 0, "\n".join(trace(found[PROTOCOL], 0))
    assert found[PROTOCOL].states > 100_000


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if not m.holds], ids=lambda m: m.name)
def test_each_rule_is_needed(found, mutant: Mutant):
    """Each rule, and each assumption, is needed, and the shortest violation without it can be printed."""
    searched = found[mutant.name]
    lines = list(trace(searched, mutant.bit))
    assert lines[-1] == f"  => {WRONG[searched.violation]}"
    assert sum(not line.startswith(" " * 9) for line in lines) == len(searched.chain)


@pytest.mark.parametrize("mutant", [m for m in MUTANTS if m.holds], ids=lambda m: m.name)
def test_a_redundant_rule_does_no_harm_alone(found, mutant: Mutant):
    """The model also shows which rule the others make redundant."""
    assert found[mutant.name].violation == 0
