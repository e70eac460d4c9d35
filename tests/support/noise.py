"""How repeated measurements of one thing scatter, as factors of its value."""

from collections.abc import Callable

import numpy as np

Noise = Callable[[np.random.Generator, int], np.ndarray]


def contaminated(rng: np.random.Generator, n: int) -> np.ndarray:
    """Quiet runs, one in ten of them disturbed: a third slower."""
    return 1 + 0.02 * rng.standard_normal(n) + 0.33 * (rng.random(n) < 0.1)


NOISE_MODELS: dict[str, Noise] = {
    "quiet, 1 %": lambda rng, n: 1 + 0.01 * rng.standard_normal(n),
    "shared machine, 8 %": lambda rng, n: np.exp(0.08 * rng.standard_normal(n)),
    "skewed: only ever slower": lambda rng, n: 1 + 0.05 * rng.exponential(size=n),
    "heavy tails": lambda rng, n: np.exp(0.03 * rng.standard_t(2, n)),
    "some runs disturbed": contaminated,
    "whole milliseconds, mostly equal": lambda rng, n: np.round(8 + 0.4 * rng.standard_normal(n)),
}
