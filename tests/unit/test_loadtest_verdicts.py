"""Thresholds, verdicts, and the search for the highest rate."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.loadtest.profiles.thresholds import OPERATORS, parse_threshold
from adledger.loadtest.results.run_folder import FaultResult, RunVerdict, Verification
from adledger.loadtest.runner.assessment import (
    GENERATOR_BEHIND_MS_MAX,
    RunFacts,
    threshold_results,
    verdict_of,
)
from adledger.loadtest.runner.search import PRECISION, STEPS_MAX, next_rate

EQUAL = Verification(ran=True, equal=True)
NOT_RUN = Verification(ran=False, equal=False, why_not="not drained")


@given(st.sampled_from(sorted(OPERATORS)), st.integers(-100, 100), st.integers(-100, 100))
def test_a_threshold_says_what_it_compares(comparison, bound, value):
    """`max OP bound` holds for exactly the values for which the Python comparison is true."""
    threshold = parse_threshold("freshness_ms", f"max{comparison}{bound}")
    assert threshold.holds(value) == eval(f"{value}{comparison}{bound}")
    assert threshold.expression == f"max{comparison}{bound}"


def test_a_threshold_without_a_value_is_crossed():
    """A missing measurement is not a success."""
    [result] = threshold_results(
        [parse_threshold("freshness_ms", "p(99)<5")], [], {"freshness_ms.p(99)": None}, verified=False
    )
    assert not result.held


def facts(**changes):
    values = {
        "seconds": 5, "paced": True, "dropped": 0, "go_ms": 0, "drained_seconds": 1.0, "interrupted": False,
        "verify_wanted": True, "wrong": (),
    }  # fmt: skip
    return RunFacts(**{**values, **changes})


def verdict(*, held=True, verification=EQUAL, behind=0, faults=(), **changes):
    metrics = {"freshness_ms.max": 1.0 if held else 9.0, "unequal_rows": 0 if verification.equal else 3}
    results = threshold_results(
        [parse_threshold("freshness_ms", "max<5")], [], metrics, verified=verification.ran
    )
    return verdict_of(
        results, faults, verification, facts(**changes), metrics | {"generator_behind_ms.max": behind}
    )[0]


def test_verdicts():
    """Each kind of ending has its own verdict; interrupted before invalid before crossed before unverified before held."""
    fault = FaultResult(
        kind="kill-worker",
        at_seconds=1,
        duration_seconds=0,
        started_second=1,
        ended_second=1,
        took_effect=False,
        seen="",
    )
    assert verdict() is RunVerdict.HELD
    assert verdict(held=False) is RunVerdict.CROSSED
    assert verdict(verification=Verification(ran=True, equal=False)) is RunVerdict.CROSSED
    assert verdict(verification=NOT_RUN) is RunVerdict.UNVERIFIED
    assert verdict(verification=NOT_RUN, verify_wanted=False) is RunVerdict.HELD
    assert verdict(verification=NOT_RUN, held=False) is RunVerdict.CROSSED
    assert verdict(held=False, behind=GENERATOR_BEHIND_MS_MAX + 1) is RunVerdict.INVALID
    assert verdict(behind=GENERATOR_BEHIND_MS_MAX + 1, paced=False) is RunVerdict.HELD
    assert verdict(faults=[fault]) is RunVerdict.INVALID
    assert verdict(wrong=("worker-1 ended with 1",)) is RunVerdict.INVALID
    assert verdict(interrupted=True, wrong=("x",), held=False) is RunVerdict.INTERRUPTED


@pytest.mark.parametrize("limit", [700, 5_000, 21_000, 90_000, 1_300_000])
def test_the_search_finds_the_limit(limit):
    """Whatever a system can take, the search ends within its steps, at or below that rate and within its precision."""
    steps = []
    while (rate := next_rate(20_000, steps)) is not None:
        steps.append((rate, rate <= limit))
    highest = max(rate for rate, held in steps if held)
    assert len(steps) <= STEPS_MAX
    assert limit / (1 + PRECISION) <= highest <= limit
