"""Ids and keys that an adversary makes: without a secret, xxHash64 and splitmix64 can be inverted."""

from collections.abc import Iterator
from itertools import count

import numpy as np
import xxhash

from adledger.pipeline.kernels.slots import SlotSecret
from adledger.pipeline.records.columns import I64, U32, U64
from adledger.pipeline.stages.plain_hashes import splitmix64
from adledger.schemas.wire import EVENT_TIME_MS_MAX, EVENT_TIME_MS_MIN

MASK = 2**64 - 1
P1, P2, P3, P4, P5 = (
    0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5,
)  # fmt: skip
"""xxHash64's primes."""


def texts_hashing_to(target: int) -> Iterator[bytes]:
    """Yield printable strings of 16 bytes whose xxHash64 (seed 0) is a number: eight bytes are tried, eight computed."""
    after = _unshift(_divided(_unshift(_divided(_unshift(target, 32), P3), 29), P2), 33)
    for number in count():
        first = b"%08x" % number
        before = _rotl((P5 + 16) ^ _round(int.from_bytes(first, "little")), 27) * P1 + P4 & MASK
        round_of_second = _rotl(_divided(after - P4 & MASK, P1), 64 - 27) ^ before
        second = _divided(_rotl(_divided(round_of_second, P1), 64 - 31), P2).to_bytes(8, "little")
        if second.isascii() and second.decode().isprintable():
            assert xxhash.xxh64_intdigest(first + second) == target
            yield first + second


def unsplitmix64(z: int) -> int:
    """Return x of z = splitmix64(x)."""
    z = _divided(_unshift(z, 31), 0x94D049BB133111EB)
    z = _divided(_unshift(z, 27), 0xBF58476D1CE4E5B9)
    return _unshift(z, 30) - 0x9E3779B97F4A7C15 & MASK


def keys_of_one_slot(n: int, secret: SlotSecret, bits: int = 24, *, paired: bool = False) -> U64:
    """Return n keys that share their slot in every table of up to 2^bits slots, given the secret.

    `paired`: in tables whose keys have two parts; the second is 0.
    """
    mixed = [i << bits for i in range(1, n + 1)]
    second_part = splitmix64(secret.second) if paired else 0
    keys = [unsplitmix64(unsplitmix64(m) ^ secret.second) ^ secret.first ^ second_part for m in mixed]
    assert splitmix64(splitmix64(keys[0] ^ second_part ^ secret.first) ^ secret.second) == mixed[0]
    return np.array(keys, np.uint64)


def ids_of_one_key(publishers: U64) -> U64:
    """Return the id hash with which each publisher's impression has the same dedupe key."""
    return np.array([7 ^ splitmix64(2 * p) for p in publishers.tolist()], np.uint64)


def groups_of_one_slot(n: int, currency: int, bits: int = 19) -> tuple[U32, I64]:
    """Return n publishers and minutes whose billable impressions shared a slot of the rollup when slots had no secret."""
    what = (currency << 8 | 16) * 0x9E37_79B9_7F4A_7C15 & MASK
    mixed = np.arange(256 * n, dtype=np.uint64) << np.uint64(bits)
    where = _unmixed(mixed) ^ np.uint64(what)
    minute = (where & np.uint64(0xFFFF_FFFF)).astype(np.int64)
    found = np.flatnonzero((minute * 60_000 >= EVENT_TIME_MS_MIN) & (minute * 60_000 <= EVENT_TIME_MS_MAX))[
        :n
    ]
    assert len(found) == n
    return (where[found] >> np.uint64(32)).astype(np.uint32), minute[found]


def _unmixed(z: U64) -> U64:
    """Return x of z = the finaliser of splitmix64 of x: u64[n]."""
    for shift, factor in ((31, 0x94D0_49BB_1331_11EB), (27, 0xBF58_476D_1CE4_E5B9), (30, 1)):
        y = z.copy()
        for _ in range(64 // shift):
            y = z ^ y >> np.uint64(shift)
        z = y * np.uint64(pow(factor, -1, 2**64))
    return z


def _rotl(x: int, n: int) -> int:
    x &= MASK
    return (x << n | x >> (64 - n)) & MASK


def _round(lane: int) -> int:
    return _rotl(lane * P2, 31) * P1 & MASK


def _unshift(x: int, n: int) -> int:
    """Return y of x = y ^ y >> n."""
    y = x
    for _ in range(64 // n + 1):
        y = x ^ y >> n
    return y


def _divided(x: int, by: int) -> int:
    return x * pow(by, -1, 2**64) & MASK
