"""Writing text to raw addresses. Addresses are int64 and unchecked.

At least 32 readable bytes follow the end of every text table, and as many writable ones that of every output buffer:
texts are copied 32 bytes at a time, and the next write overwrites the surplus.
"""

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from adledger.pipeline.kernels.intrinsics import copy32, load64, store8
from adledger.pipeline.kernels.jit import inline_kernel

SLACK_BYTES = 32

_DECIMAL_PAIRS = np.frombuffer(b"".join(b"%02d" % i for i in range(100)), "<u2").copy()
_HEX_PAIRS = np.frombuffer(b"".join(b"%02x" % i for i in range(256)), "<u2").copy()
_U8 = np.uint64(8)
_BYTE = np.uint64(255)


@intrinsic
def store16(_typing, address, value):
    """Write two bytes, the low one first."""

    def codegen(_c, builder, _s, args):
        pointer = builder.inttoptr(args[0], ir.IntType(16).as_pointer())
        builder.store(builder.trunc(args[1], ir.IntType(16)), pointer, align=1)

    return types.void(types.int64, types.uint64), codegen


@inline_kernel
def put_byte(at, byte):
    """Write one byte (int64); return the address after it."""
    store8(at, np.uint64(byte))
    return at + 1


@inline_kernel
def put_text(at, text, length):
    """Copy `length` bytes from the address `text`; return the address after them."""
    done = 0
    while done < length:
        copy32(at + done, text + done)
        done += 32
    return at + length


@inline_kernel
def put_entry(at, texts, entry):
    """Copy an entry of a text table (see `lookup_tables`); return the address after it."""
    where = load64(texts + 8 * entry)
    return put_text(at, texts + np.int64(where >> np.uint64(16)), np.int64(where & np.uint64(0xFFFF)))


@inline_kernel
def put_hex(at, value, digits):
    """Write the low `digits` hex digits (an even number) of a uint64; return the address after them."""
    for k in range(digits - 2, -2, -2):
        store16(at + k, np.uint64(_HEX_PAIRS[np.int64(value & _BYTE)]))
        value >>= _U8
    return at + digits


@inline_kernel
def put_decimal(at, value):
    """Write a non-negative int64 below 10^18; return the address after it."""
    digits = 1
    limit = 10
    while digits < 18 and value >= limit:
        digits += 1
        limit *= 10
    k = at + digits
    while k - at >= 2:
        rest = value // 100
        k -= 2
        store16(k, np.uint64(_DECIMAL_PAIRS[value - rest * 100]))
        value = rest
    if k > at:
        store8(at, np.uint64(48 + value))
    return at + digits
