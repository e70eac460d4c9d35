"""Counter-based randomness: every draw is a pure function of (key, counter, purpose), so order never matters.

The mixer is splitmix64's (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014); it is a
bijection of 64-bit integers, which is what makes event ids unique by construction.
"""

import numpy as np

from adledger.pipeline.kernels.intrinsics import load64
from adledger.pipeline.kernels.jit import inline_kernel

QUANTILES = 4_096
QUANTILE_SHIFT = 32 - 12

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_A = np.uint64(0xBF58476D1CE4E5B9)
_B = np.uint64(0x94D049BB133111EB)
_S30 = np.uint64(30)
_S27 = np.uint64(27)
_S31 = np.uint64(31)
_S32 = np.uint64(32)
_LOW32 = np.uint64(0xFFFFFFFF)


@inline_kernel
def mix64(x):
    """Return splitmix64's finaliser of x (uint64 -> uint64, one to one)."""
    z = x + GOLDEN
    z = (z ^ (z >> _S30)) * _A
    z = (z ^ (z >> _S27)) * _B
    return z ^ (z >> _S31)


@inline_kernel
def draw(base, purpose):
    """Return 64 random bits for one purpose (small integer) of `base` (uint64)."""
    return mix64(base ^ (np.uint64(purpose) * _A))


@inline_kernel
def below(bits, n):
    """Return an integer in [0, n) from the upper 32 bits; n < 2^32."""
    return np.int64(((bits >> _S32) * np.uint64(n)) >> _S32)


@inline_kernel
def low(bits):
    """Return the lower 32 bits as int64: below `share * 2^32` with the probability `share`."""
    return np.int64(bits & _LOW32)


@inline_kernel
def high(bits):
    """Return the upper 32 bits as int64."""
    return np.int64(bits >> _S32)


@inline_kernel
def quantile(table, bits32):
    """Return the interpolated value of a quantile table (address of QUANTILES + 1 int64) at bits32 / 2^32."""
    knot = table + 8 * (bits32 >> QUANTILE_SHIFT)
    rest = (bits32 >> (QUANTILE_SHIFT - 16)) & 0xFFFF
    here = np.int64(load64(knot))
    return here + (((np.int64(load64(knot + 8)) - here) * rest) >> 16)


@inline_kernel
def alias(table, rows, bits):
    """Return a row of a Walker alias table (address of `rows` pairs of uint32: threshold, other row).

    The row is drawn by the upper 32 bits, and kept or swapped by the lower.
    """
    row = below(bits, rows)
    pair = load64(table + 8 * row)
    return row if low(bits) < low(pair) else high(pair)
