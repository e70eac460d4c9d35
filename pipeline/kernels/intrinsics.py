"""Loads from raw addresses and bit tricks that numba has no words for: each becomes one or a few instructions.

Addresses are int64 and need no alignment; loads are little end first and give uint64. Nothing is checked: the
caller knows that the bytes can be read (READ_AHEAD_BYTES lie behind the last record of every records buffer; the
widest load here takes 32). The masks look at 32 or 16 bytes at once and have one bit a byte, the first byte's
the lowest.
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
    """Return the mask of bytes that are the same at both addresses, of 32."""

    def codegen(_c, builder, _s, args):
        left, right = (_load_bytes(builder, address, 32) for address in args)
        return _mask(builder, builder.icmp_unsigned("==", left, right))

    return types.uint64(types.int64, types.int64), codegen


@intrinsic
def special32(_typing, address):
    """Return the mask of bytes that end or interrupt a JSON string, of 32: quote, backslash, control characters."""

    def codegen(_c, builder, _s, args):
        block = _load_bytes(builder, args[0], 32)
        quote = builder.icmp_unsigned("==", block, _every(block, _QUOTE))
        backslash = builder.icmp_unsigned("==", block, _every(block, _BACKSLASH))
        control = builder.icmp_unsigned("<", block, _every(block, _SPACE))
        return _mask(builder, builder.or_(builder.or_(quote, backslash), control))

    return types.uint64(types.int64), codegen


@intrinsic
def special_or_high32(_typing, address):
    """Return the mask of special32's bytes and those over 127, of 32."""

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
    """Return the mask of the bytes 0-9, of 16."""

    def codegen(_c, builder, _s, args):
        block = _load_bytes(builder, args[0], 16)
        value = builder.sub(block, _every(block, _ZERO))
        return _mask(builder, builder.icmp_unsigned("<=", value, _every(block, _NINE - _ZERO)))

    return types.uint64(types.int64), codegen


@intrinsic
def dots16(_typing, address):
    """Return the mask of full stops, of 16."""

    def codegen(_c, builder, _s, args):
        block = _load_bytes(builder, args[0], 16)
        return _mask(builder, builder.icmp_unsigned("==", block, _every(block, _DOT)))

    return types.uint64(types.int64), codegen


@intrinsic
def prefetch(_typing, address):
    """Ask for the cache line at an address, to be written: goes on at once, and may do nothing."""

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
    """Return the number of the lowest bit that is set (64 where none is)."""

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
