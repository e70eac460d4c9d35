"""The hashes of the contract in plain Python: the twins of adledger.pipeline.kernels.hashing."""

import struct

import xxhash

_U64 = 2**64 - 1
_U32 = 2**32 - 1
_MURMUR_SEED = 0x9747B28C
_MURMUR_M = 0x5BD1E995
_WORDS = struct.Struct("<I")

xxh64 = xxhash.xxh64_intdigest
"""xxHash64 of bytes; its default seed is 0, as in ClickHouse's xxHash64()."""


def splitmix64(z: int) -> int:
    """Return the next output of a SplitMix64 generator whose state is z (u64 -> u64)."""
    z = (z + 0x9E3779B97F4A7C15) & _U64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _U64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _U64
    return z ^ (z >> 31)


def int_hash64(z: int) -> int:
    """Return ClickHouse's intHash64() of z (u64 -> u64): murmur3's finaliser."""
    z ^= 0x4CF2D2BAAE6DA887
    z = ((z ^ (z >> 33)) * 0xFF51AFD7ED558CCD) & _U64
    z = ((z ^ (z >> 33)) * 0xC4CEB9FE1A85EC53) & _U64
    return z ^ (z >> 33)


def murmur2(data: bytes) -> int:
    """Return Kafka's murmur2 of a key (Java's default partitioner), as u32."""
    h = _MURMUR_SEED ^ len(data)
    whole = len(data) & ~3
    for (word,) in _WORDS.iter_unpack(data[:whole]):
        k = (word * _MURMUR_M) & _U32
        k ^= k >> 24
        h = ((h * _MURMUR_M) & _U32) ^ ((k * _MURMUR_M) & _U32)
    if whole < len(data):
        h = ((h ^ int.from_bytes(data[whole:], "little")) * _MURMUR_M) & _U32
    h ^= h >> 13
    h = (h * _MURMUR_M) & _U32
    return h ^ (h >> 15)


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition that Java's default partitioner gives a key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
