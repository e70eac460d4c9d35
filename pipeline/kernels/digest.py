"""Folding a column into the digests of rows."""

import numpy as np

from adledger.pipeline.kernels.jit import kernel

MULTIPLIER = 0x9E37_79B9_7F4A_7C15
"""Odd, so multiplication by it is invertible: two rows that differ in one column never have the same digest."""

_MULTIPLIER = np.uint64(MULTIPLIER)


@kernel
def fold(digests, column):
    """digests[i] = (digests[i] xor column[i]) * MULTIPLIER, modulo 2^64; signed values as two's complement."""
    for i in range(len(digests)):
        digests[i] = (digests[i] ^ np.uint64(column[i])) * _MULTIPLIER
