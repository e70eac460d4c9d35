"""What `loadtest compare` reports without a change, and which changes it finds: the table of docs/loadtest.md."""

import numpy as np
import pytest

from adledger.loadtest.compare.change import METRICS, ChangeKind, change_of
from tests.support.noise import NOISE_MODELS

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1_800)]

COMPARISONS = 2_000
WORSE = 1.1


@pytest.mark.parametrize("runs", [3, 5])
def test_a_against_a(runs):
    rng = np.random.default_rng(5)
    for name, noise in NOISE_MODELS.items():
        reported = 0
        for _ in range(COMPARISONS):
            sides = [(metric, *(noise(rng, runs).tolist() for _ in range(2))) for metric in METRICS]
            reported += any(change_of(*side).kind is not ChangeKind.SAME for side in sides)
        print(f"A against A, {runs} runs, {name}: {reported / COMPARISONS:.2%} report a change")


@pytest.mark.parametrize("runs", [3, 5, 10])
@pytest.mark.parametrize("scatter", [0.01, 0.02, 0.03, 0.05])
def test_a_tenth_more_cpu(scatter, runs):
    rng = np.random.default_rng(6)
    sides = np.exp(scatter * rng.standard_normal((COMPARISONS, 2, runs)))
    found = sum(
        change_of(METRICS[0], (a * WORSE).tolist(), b.tolist()).kind is ChangeKind.WORSE for a, b in sides
    )
    print(f"10 % more CPU, {runs} runs that scatter by {scatter:.0%}: {found / COMPARISONS:.2%} found")
