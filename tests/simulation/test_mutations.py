"""The simulation bites: each removed rule of the protocol is noticed within the CI seeds."""

import pytest

from adledger.pipeline.lanes.warm import compile_kernels
from tests.simulation.mutations import MUTATIONS, Mutation
from tests.simulation.run import run

CI_SEEDS = 2_000
"""As many as `.ci/run` gives to the simulation."""

BEGINS = {
    "a cached state is trusted": 172,
    "batch in doubt of other records": 46,
    "day ignored": 9,
    "deadline not enforced": 46,
    "insert after one of two commits": 41,
    "intent not committed again after doubt": 115,
    "intent sent again after an unknown outcome": 92,
    "intent sent again under a new generation": 15,
    "leader epochs not compared": 8,
    "leader epochs not kept": 60,
    "members not fenced": 11,
    "no wait for the deadline": 173,
    "one leader epoch remembered": 78,
    "records not compared": 178,
    "running inserts not looked for": 13,
    "settled batch not remembered": 7,
    "silent jump": 84,
}
"""Mutation -> the seed to begin with, where the first seeds do not notice it: only for speed. A code change
changes what seeds mean, so the scan continues, through all of them if needed.
"""


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    compile_kernels()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_a_missing_rule_is_noticed(mutation: Mutation, record_property):
    """Without the rule a seed fails that passes with it, and the report says which seed and which law."""
    begin = BEGINS.get(mutation.name, 0)
    for seed in (*range(begin, CI_SEEDS), *range(begin)):
        with mutation.in_force():
            outcome = run(seed, parts=mutation.parts, forced=mutation.forced)
        if outcome.problems:
            assert not all(map(_is_of_the_mutation, outcome.problems)), (
                f"it no longer fits: {outcome.problems[0]}"
            )
            assert run(seed, forced=mutation.forced).problems == (), "with the rule the same seed is well"
            record_property("noticed", f"seed {seed}: {outcome.problems[0][:160]}")
            return
    pytest.fail(f"{mutation.name} ({mutation.lacks}) went unnoticed")


def _is_of_the_mutation(problem: str) -> bool:
    """Whether it fails because its own code does: then no law noticed it."""
    return any(error in problem for error in ("TypeError", "AttributeError", "NameError", "Timeout"))


def test_there_are_at_least_twelve():
    """Each has a name of its own."""
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS) >= 12
