"""Loads from raw addresses and bit tricks that numba does not offer: each becomes one or a few instructions.

Addresses are int64 and need no alignment; loads are little-endian and return uint64. Nothing is checked: the caller
ensures that the bytes are readable (READ_AHEAD_BYTES follow the last record of every records buffer; the widest load here
takes 32). Masks cover 32 or 16 bytes and have one bit per byte, the lowest for the first byte.
"""

# ruff: noqa: ARG001

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_I64 = ir.IntType(64)
_QUOTE, _BACKSLASH, _SPACE, _ZERO, _NINE, _DOT = (ord(c) for c in '"\\ 09.')


def _at(builder: Any, address: Any, pointee: Any) -> Any:
    return builder.inttoptr(address, pointee.as_pointer())


def _load(builder: Any, address: Any, bits: int) -> Any:
    word = builder.load(_at(builder, address, ir.IntType(bits)), align=1)
    return word if bits == 64 else builder.zext(word, _I64)


def _load_bytes(builder: Any, address: Any, count: int) -> Any:
    return builder.load(_at(builder, address, ir.VectorType(ir.IntType(8), count)), align=1)


def _every(vector: Any, byte: int) -> Any:
    return ir.Constant(vector.type, [byte] * vector.type.count)


def _mask(builder: Any, truths: Any) -> Any:
    return builder.zext(builder.bitcast(truths, ir.IntType(truths.type.count)), _I64)


@intrinsic
def load8(_typing, address):
    """Return the byte at an address."""
    return types.uint64(types.int64), lambda _c, builder, _s, args: _load(builder, args[0], 8)


@intrinsic
def load16(_typing, address):
    """Return the two bytes at an address."""
    return types.uint64(types.int64), lambda _c, builder, _s, args: _load(builder, args[0], 16)


@intrinsic
def load32(_typing, address):
    """Return the four bytes at an address."""
    return types.uint64(types.int64), lambda _c, builder, _s, args: _load(builder, args[0], 32)


@intrinsic
def load64(_typing, address):
    """Return the eight bytes at an address."""
    return types.uint64(types.int64), lambda _c, builder, _s, args: _load(builder, args[0], 64)


@intrinsic
def store8(_typing, address, byte):
    """Write one byte."""

    def codegen(_c, builder, _s, args):
        builder.store(builder.trunc(args[1], ir.IntType(8)), _at(builder, args[0], ir.IntType(8)), align=1)

    return types.void(types.int64, types.uint64), codegen


@intrinsic
def store64(_typing, address, word):
    """Write eight bytes."""

    def codegen(_c, builder, _s, args):
        builder.store(args[1], _at(builder, args[0], _I64), align=1)

    return types.void(types.int64, types.uint64), codegen


@intrinsic
def copy32(_typing, to, source):
    """Copy 32 bytes."""

    def codegen(_c, builder, _s, args):
        block = _load_bytes(builder, args[1], 32)
        builder.store(block, _at(builder, args[0], block.type), align=1)

    return types.void(types.int64, types.int64), codegen


@intrinsic
def same32(_typing, left, right):
    """Return the mask of the 32 bytes that are equal at both addresses."""

    def codegen(_c, builder, _s, args):
        left, right = (_load_bytes(builder, address, 32) for address in args)
        return _mask(builder, builder.icmp_unsigned("==", left, right))

    return types.uint64(types.int64, types.int64), codegen


@intrinsic
def special32(_typing, address):
    """Return the mask of the 32 bytes that end or interrupt a JSON string: quote, backslash, control characters."""

    def codegen(_c, builder, _s, args):
        block = _load_bytes(builder, args[0], 32)
        quote = builder.icmp_unsigned("==", block, _every(block, _QUOTE))
        backslash = builder.icmp_unsigned("==", block, _every(block, _BACKSLASH))
        control = builder.icmp_unsigned("<", block, _every(block, _SPACE))
        return _mask(builder, builder.or_(builder.or_(quote, backslash), control))

    return types.uint64(types.int64), codegen


@intrinsic
def special_or_high32(_typing, address):
    """Return the mask of the 32 bytes that are in special32's mask or over 127."""

    def codegen(_c, builder, _s, args):
        block = _load_bytes(builder, args[0], 32)
        quote = builder.icmp_unsigned("==", block, _every(block, _QUOTE))
        backslash = builder.icmp_unsigned("==", block, _every(block, _BACKSLASH))
        # As signed numbers, bytes over 127 are negative, and so below a space like the control characters.
        control_or_high = builder.icmp_signed("<", block, _every(block, _SPACE))
        return _mask(builder, builder.or_(builder.or_(quote, backslash), control_or_high))

    return types.uint64(types.int64), codegen


@intrinsic
def digits16(_typing, address):
    """Return the mask of the 16 bytes that are digits."""

    def codegen(_c, builder, _s, args):
        block = _load_bytes(builder, args[0], 16)
        value = builder.sub(block, _every(block, _ZERO))
        return _mask(builder, builder.icmp_unsigned("<=", value, _every(block, _NINE - _ZERO)))

    return types.uint64(types.int64), codegen


@intrinsic
def dots16(_typing, address):
    """Return the mask of the 16 bytes that are full stops."""

    def codegen(_c, builder, _s, args):
        block = _load_bytes(builder, args[0], 16)
        return _mask(builder, builder.icmp_unsigned("==", block, _every(block, _DOT)))

    return types.uint64(types.int64), codegen


@intrinsic
def prefetch(_typing, address):
    """Prefetch the cache line at an address for writing: returns at once, and may do nothing."""

    def codegen(context, builder, _s, args):
        byte, word = ir.IntType(8).as_pointer(), ir.IntType(32)
        signature = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        ask = cgutils.get_or_insert_function(builder.module, signature, "llvm.prefetch.p0i8")
        to_write, keep, data = word(1), word(3), word(1)
        builder.call(ask, [_at(builder, args[0], ir.IntType(8)), to_write, keep, data])
        return context.get_dummy_value()

    return types.void(types.int64), codegen


@intrinsic
def lowest_bit(_typing, mask):
    """Return the index of the lowest set bit (64 where there is none)."""

    def codegen(_c, builder, _s, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 0))

    return types.int64(types.uint64), codegen


@intrinsic
def copy_bytes(_typing, to, source, count):
    """Copy `count` bytes between two places that do not overlap."""

    def codegen(context, builder, _s, args):
        pointer = ir.IntType(8)
        cgutils.raw_memcpy(
            builder, _at(builder, args[0], pointer), _at(builder, args[1], pointer), args[2], 1
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), codegen
