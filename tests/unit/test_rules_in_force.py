"""A worker's rule evaluators at its start, while ClickHouse comes and goes."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from adledger.pipeline.errors import SinkUnavailable
from adledger.pipeline.lanes import rules_in_force
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.sinks.rules import AlertRow, NoRuleStore


class Away(NoRuleStore):
    """Does not answer for some attempts."""

    def __init__(self, tries: int, *, refused: bool = False) -> None:
        self.left, self.refused, self.asked = tries, refused, 0

    async def alerts(self, rules_version: int) -> Sequence[AlertRow]:
        self.asked += 1
        if self.asked <= self.left:
            raise SinkUnavailable("no connection", refused=self.refused)
        return ()


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules_in_force, "BEGIN_RETRY", replace(rules_in_force.BEGIN_RETRY, backoff_ms_max=0))


async def test_an_unreachable_server_is_waited_for_and_each_attempt_logged() -> None:
    """A worker that starts while ClickHouse is killed and comes back goes on."""
    lines: list[str] = []
    store = Away(3)
    await rules_in_force.RulesInForce(RuleEvaluator.none(), store, say=lines.append).begin()
    assert store.asked == 4
    assert lines == [
        f"no connection; try {n} of {rules_in_force.BEGIN_RETRY.attempts_max}" for n in (1, 2, 3)
    ]


@pytest.mark.parametrize(("refused", "asked"), [(False, rules_in_force.BEGIN_RETRY.attempts_max), (True, 1)])
async def test_waiting_is_bounded_and_a_refusal_ends_it(refused: bool, asked: int) -> None:
    """The start ends with the error after the last attempt, and at once where a password is wrong."""
    store = Away(1_000, refused=refused)
    with pytest.raises(SinkUnavailable):
        await rules_in_force.RulesInForce(RuleEvaluator.none(), store).begin()
    assert store.asked == asked
