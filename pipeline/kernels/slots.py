"""A key's slot in an open-addressed table: the key mixed with a secret, so that nobody can craft keys that collide.

Where a key has two parts, the slot depends on both: with one part alone, entries that share it would lie in one chain,
and a producer could make it as long as the window (one event id under a million publishers).

Ids come from producers, and their hashes are public (xxHash64, seed 0): without a secret, colliding keys are easy to
construct, and each lookup among n of them reads n slots. Mixed twice with 128 secret bits, keys spread like random ones.
The secret only decides where an entry is: keys are compared whole, and no verdict, row or digest depends on it.
"""

from typing import NamedTuple

import numpy as np

from adledger.pipeline.kernels.hashing import splitmix64
from adledger.pipeline.kernels.jit import inline_kernel

SECRET_BYTES = 16


class Slots(NamedTuple):
    """A table's slots as kernels need them: capacity - 1 (a power of two less one), and the two halves of the secret."""

    mask: np.uint64
    first: np.uint64
    second: np.uint64


class SlotSecret(NamedTuple):
    """The secret of one process's tables, two 64-bit halves."""

    first: int
    second: int

    @classmethod
    def of(cls, data: bytes) -> "SlotSecret":
        """Return the secret from SECRET_BYTES random bytes, which must stay in this process."""
        assert len(data) == SECRET_BYTES, f"a secret of {len(data)} bytes"
        return cls(int.from_bytes(data[:8], "little"), int.from_bytes(data[8:], "little"))

    def slots(self, capacity: int) -> Slots:
        """Return the slots of a table; `capacity` is a power of two."""
        return Slots(np.uint64(capacity - 1), np.uint64(self.first), np.uint64(self.second))


KNOWN_SECRET = SlotSecret(0x243F_6A88_85A3_08D3, 0x1319_8A2E_0370_7344)
"""For tests, simulations and tools whose keys are not hostile: pi."""


@inline_kernel
def slot_of(key, slots):
    """Return a key's first slot."""
    return splitmix64(splitmix64(key ^ slots.first) ^ slots.second) & slots.mask


@inline_kernel
def slot_of_pair(key, other, slots):
    """Return the first slot of a key of two parts (u64 each)."""
    return slot_of(splitmix64(other ^ slots.second) ^ key, slots)


@inline_kernel
def slot_after(slot, slots):
    """Return the slot to probe next."""
    return (slot + np.uint64(1)) & slots.mask
