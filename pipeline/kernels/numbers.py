"""Parsing numbers: decimal ones eight digits at a time."""

import numpy as np

from adledger.pipeline.kernels.intrinsics import load64
from adledger.pipeline.kernels.jit import inline_kernel

DIGITS_MAX = 16

_EIGHT_DIGITS = np.uint64(100_000_000)


@inline_kernel
def _up_to_eight(word, digits):
    """Return the value of the first 1..8 digits of a word: adjacent digits are combined in three steps."""
    word <<= np.uint64(64 - 8 * digits)
    word = ((word & np.uint64(0x0F0F0F0F0F0F0F0F)) * np.uint64(10 * 2**8 + 1)) >> np.uint64(8)
    word = ((word & np.uint64(0x00FF00FF00FF00FF)) * np.uint64(100 * 2**16 + 1)) >> np.uint64(16)
    return ((word & np.uint64(0x0000FFFF0000FFFF)) * np.uint64(10_000 * 2**32 + 1)) >> np.uint64(32)


@inline_kernel
def digits_value(p, digits):
    """Return the value of 1..16 decimal digits at an address (u64)."""
    if digits <= 8:
        return _up_to_eight(load64(p), digits)
    return _up_to_eight(load64(p), digits - 8) * _EIGHT_DIGITS + _up_to_eight(load64(p + digits - 8), 8)


@inline_kernel
def number_at(p, digits):
    """Return the value of 1..8 decimal digits at an address (i64)."""
    return np.int64(_up_to_eight(load64(p), digits))


@inline_kernel
def hex_digit(byte):
    """Return the value of a hexadecimal digit (u64), or a number > 15 for any other byte."""
    if byte - np.uint64(0x30) <= 9:
        return byte - np.uint64(0x30)
    letter = (byte | np.uint64(0x20)) - np.uint64(0x61)
    return letter + np.uint64(10) if letter <= 5 else np.uint64(16)
