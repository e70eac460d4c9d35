"""The hashes of the contract, compiled. The plain twins are in adledger.pipeline.stages.plain_hashes."""

import numpy as np

from adledger.pipeline.kernels.intrinsics import load8, load16, load32, load64
from adledger.pipeline.kernels.jit import inline_kernel, kernel

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_ZERO = np.uint64(0)
_LOW32 = np.uint64(0xFFFFFFFF)

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)

_INT_HASH_SEED = np.uint64(0x4CF2D2BAAE6DA887)
_FINAL1 = np.uint64(0xFF51AFD7ED558CCD)
_FINAL2 = np.uint64(0xC4CEB9FE1A85EC53)

_MURMUR_SEED = np.uint64(0x9747B28C)
_MURMUR_M = np.uint64(0x5BD1E995)


@inline_kernel
def _rotate(x, left):
    return (x << np.uint64(left)) | (x >> np.uint64(64 - left))


@inline_kernel
def _round(lane, word):
    return _rotate(lane + word * _P2, 31) * _P1


@inline_kernel
def _merge(h, lane):
    return (h ^ _round(_ZERO, lane)) * _P1 + _P4


@inline_kernel
def xxh64(address, length):
    """Return xxHash64 (seed 0) of `length` bytes at an address."""
    p = address
    end = address + length
    if length >= 32:
        a, b, c, d = _P1 + _P2, _P2, _ZERO, _ZERO - _P1
        last = end - 32
        while p <= last:
            a = _round(a, load64(p))
            b = _round(b, load64(p + 8))
            c = _round(c, load64(p + 16))
            d = _round(d, load64(p + 24))
            p += 32
        h = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
        h = _merge(_merge(_merge(_merge(h, a), b), c), d)
    else:
        h = _P5
    h += np.uint64(length)
    while p + 8 <= end:
        h = _rotate(h ^ _round(_ZERO, load64(p)), 27) * _P1 + _P4
        p += 8
    if p + 4 <= end:
        h = _rotate(h ^ (load32(p) * _P1), 23) * _P2 + _P3
        p += 4
    while p < end:
        h = _rotate(h ^ (load8(p) * _P5), 11) * _P1
        p += 1
    h = (h ^ (h >> np.uint64(33))) * _P2
    h = (h ^ (h >> np.uint64(29))) * _P3
    return h ^ (h >> np.uint64(32))


@inline_kernel
def splitmix64(z):
    """Return the next output of a SplitMix64 generator whose state is z (u64 -> u64)."""
    z += _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX1
    z = (z ^ (z >> np.uint64(27))) * _MIX2
    return z ^ (z >> np.uint64(31))


@inline_kernel
def int_hash64(z):
    """Return ClickHouse's intHash64() of z (u64 -> u64): murmur3's finaliser."""
    z ^= _INT_HASH_SEED
    z = (z ^ (z >> np.uint64(33))) * _FINAL1
    z = (z ^ (z >> np.uint64(33))) * _FINAL2
    return z ^ (z >> np.uint64(33))


@inline_kernel
def murmur2(address, length):
    """Return Kafka's murmur2 of `length` bytes at an address: a u32 in a u64."""
    h = _MURMUR_SEED ^ np.uint64(length)
    p = address
    whole = address + (length & ~3)
    while p < whole:
        k = (load32(p) * _MURMUR_M) & _LOW32
        k = ((k ^ (k >> np.uint64(24))) * _MURMUR_M) & _LOW32
        h = ((h * _MURMUR_M) & _LOW32) ^ k
        p += 4
    rest = length & 3
    if rest:
        tail = load16(p) | (load8(p + 2) << np.uint64(16))
        tail &= (np.uint64(1) << np.uint64(8 * rest)) - np.uint64(1)
        h = ((h ^ tail) * _MURMUR_M) & _LOW32
    h ^= h >> np.uint64(13)
    h = (h * _MURMUR_M) & _LOW32
    return h ^ (h >> np.uint64(15))


@inline_kernel
def partition_of(address, length, partitions):
    """Return the partition (u64) that Java's default partitioner gives the key at an address."""
    return (murmur2(address, length) & np.uint64(0x7FFFFFFF)) % partitions


@kernel
def hash_all(addresses, lengths, partitions, hashes, parts):
    """Write xxh64 (u64[n]) and the partition (u64[n]) of each of n byte strings: i64[n], i64[n], u64."""
    for i in range(len(addresses)):
        hashes[i] = xxh64(addresses[i], lengths[i])
        parts[i] = partition_of(addresses[i], lengths[i], partitions)
