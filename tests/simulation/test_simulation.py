"""The whole pipeline under every fault, in virtual time: what must hold after each seed.

`make simulate SEEDS=0..1999` runs more of them; docs/simulation.md says what is simulated.
"""

import gc
import os
import subprocess
import sys
from collections import Counter

import pytest

from adledger.pipeline.lanes.warm import compile_kernels
from tests.simulation.kafka import Broker
from tests.simulation.loop import Node, SimTask
from tests.simulation.run import Outcome, run
from tests.simulation.world import FAULTS, World

SEEDS, FORCED_SEEDS = range(300), range(100)
"""The part that `make test` runs; CI also runs 2,000."""


@pytest.fixture(scope="module")
def outcomes() -> list[Outcome]:
    compile_kernels()
    return [run(seed) for seed in SEEDS]


def test_every_seed_ends_in_the_expected_tables(outcomes):
    """Conservation, continuity and every cell of every table hold, and every lane is at the log's end or reports why not."""
    failed = {o.seed: o.problems for o in outcomes if o.problems}
    first = next(iter(failed), None)
    assert not failed, f"repeat it: make simulate SEEDS={first}..{first} TRACE=1\n{failed[first][0]}"


def test_a_log_overwritten_at_the_worst_of_times_loses_nothing():
    """In each seed an election overwrites what was read, while a batch is in doubt or a lane starts: it is counted, or
    reported.
    """
    outcomes = [run(seed, forced=True) for seed in FORCED_SEEDS]
    failed = {o.seed: o.problems for o in outcomes if o.problems}
    first = next(iter(failed), None)
    assert not failed, (
        f"repeat it: make simulate SEEDS={first}..{first} OVERWRITES=1 TRACE=1\n{failed[first][0]}"
    )
    assert sum(o.faults["overwritten in doubt"] for o in outcomes) > len(FORCED_SEEDS) // 3


def test_nothing_is_left_of_a_run():
    """100,000 seeds run in the memory of one, since nothing of a world outlives its run."""
    gc.collect()
    others = [o for o in gc.get_objects() if isinstance(o, World | Node | SimTask | Broker)]  # of other tests
    known = {id(o) for o in others}
    run(3)
    left = [
        o for o in gc.get_objects() if isinstance(o, World | Node | SimTask | Broker) and id(o) not in known
    ]
    assert left == []


def test_every_kind_of_fault_was_injected(outcomes):
    """Each kind of fault occurs within these seeds."""
    injected = sum((o.faults for o in outcomes), Counter())
    assert set(injected) <= set(FAULTS), "every kind has its name in the list"
    assert [kind for kind in FAULTS if not injected[kind]] == []


def test_there_is_something_to_lose(outcomes):
    """In most seeds there are enough batches to interrupt."""
    assert sum(o.batches >= 3 for o in outcomes) > 0.8 * len(outcomes)
    assert sum(o.records > 10 for o in outcomes) > 0.9 * len(outcomes)


@pytest.mark.parametrize("seed", [3, 7])
def test_a_seed_repeats_itself(seed):
    """The same seed gives the same trace, line by line, also in another process with another hash seed."""
    here = run(seed, trace=True)
    assert here == run(seed, trace=True)
    elsewhere = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seeds", str(seed), "--trace"],
        capture_output=True, text=True, check=True, env={**os.environ, "PYTHONHASHSEED": "1234"},
    ).stdout  # fmt: skip
    assert "\n".join(here.trace) in elsewhere
