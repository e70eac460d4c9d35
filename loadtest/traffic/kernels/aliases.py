"""Walker's alias method (Vose's construction) in integers: O(1) draws from 400,000 weights."""

import numpy as np
import numpy.typing as npt

from adledger.pipeline.kernels.jit import kernel

U32 = npt.NDArray[np.uint32]

_GRID = 2**38
"""Weights are integer multiples of 2^-38 of their sum: coarse enough to be the same whatever a machine's pow() returns."""


@kernel
def _vose(mass, total, accept, other):
    """Fill accept (threshold of 2^32) and other (row) from mass (weight * n, int64); total is the sum of weights."""
    n = len(mass)
    small = np.empty(n, np.int64)
    large = np.empty(n, np.int64)
    smalls = 0
    larges = 0
    for i in range(n):
        if mass[i] < total:
            small[smalls] = i
            smalls += 1
        else:
            large[larges] = i
            larges += 1
    while smalls > 0 and larges > 0:
        smalls -= 1
        s = small[smalls]
        g = large[larges - 1]
        accept[s] = (mass[s] << 25) // ((total >> 7) + 1)
        other[s] = g
        mass[g] -= total - mass[s]
        if mass[g] < total:
            larges -= 1
            small[smalls] = g
            smalls += 1


def alias_table(weights: npt.NDArray[np.float64]) -> U32:
    """Return pairs (threshold, other), flat: row i is kept where 32 random bits are below its threshold."""
    n = len(weights)
    rounded = np.maximum(np.rint(weights / weights.sum() * (_GRID - 2 * n)), 1).astype(np.int64)
    accept = np.full(n, 0xFFFFFFFF, np.uint32)
    other = np.arange(n, dtype=np.uint32)
    _vose(rounded * n, rounded.sum(), accept, other)
    return np.stack([accept, other], axis=1).ravel()
