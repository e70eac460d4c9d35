"""Tables of the rules' windows: open addressing, a slot of `stride` 64-bit words.

    word 0   key, never 0; 0 marks an empty slot
    word 1   its low half is the watermark (ms) of the slot's newest event, modulo 2^32; the rest is the rule's
    last     in tables of pairs, what a mask selects of it is the second part of the key

Ages are differences modulo 2^32 ms (49 days); `adledger.pipeline.rules.tables` sweeps a table before an entry gets that old.
A key's slot is secret (adledger.pipeline.kernels.slots). Every word, index and stride is u64.
"""

import numpy as np

from adledger.pipeline.kernels.hashing import splitmix64
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.kernels.slots import slot_after, slot_of, slot_of_pair
from adledger.schemas.wire import Flag

LOW = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
ONE = np.uint64(1)
_COOKIELESS = 1 << int(Flag.KEYED_BY_IP)


@inline_kernel
def age_ms(word, now):
    """Return the age at `now` (u64 ms) of the clock in the low half of a word, as i64."""
    return np.int64((now - word) & LOW)


@inline_kernel
def find(table, slots, stride, key):
    """Return the index of the first word of the key's slot, or of the empty slot where it would go."""
    slot = slot_of(key, slots)
    while True:
        at = slot * stride
        held = table[at]
        if held == key or held == 0:  # noqa: PLR1714 - numba
            return at
        slot = slot_after(slot, slots)


@inline_kernel
def find_pair(table, slots, stride, key, other, mask):
    """Return the index of the first word of a pair's slot, or of the empty slot where it would go.

    `other` (u64) has no bits outside `mask`.
    """
    slot = slot_of_pair(key, other, slots)
    while True:
        at = slot * stride
        if table[at] == 0 or (table[at] == key and table[at + stride - ONE] & mask == other):
            return at
        slot = slot_after(slot, slots)


@inline_kernel
def not_zero(key):
    """Return a key that does not look like an empty slot."""
    return key if key != 0 else ONE


@kernel
def count_live(table, stride, now, keep_ms):
    """Return how many slots are at most `keep_ms` old at `now` (u64 ms)."""
    live = 0
    for at in range(0, len(table), stride):
        if table[at] != 0 and age_ms(table[at + 1], now) <= keep_ms:
            live += 1
    return live


@kernel
def sweep(table, stride, mask, now, keep_ms, out, out_slots):
    """Move the slots that are at most `keep_ms` old at `now` into the empty table `out`. `mask` is 0 where keys have one part."""
    width = np.uint64(stride)
    for at in range(0, len(table), stride):
        key = table[at]
        if key == 0 or age_ms(table[at + 1], now) > keep_ms:
            continue
        other = table[at + stride - 1] & mask
        slot = slot_of_pair(key, other, out_slots) if mask != 0 else slot_of(key, out_slots)
        while out[slot * width] != 0:
            slot = slot_after(slot, out_slots)
        to = np.int64(slot * width)
        for word in range(stride):
            out[to + word] = table[at + word]


@kernel
def persons(user_hash, ip_hi, ip_lo, ua_hash, flags, out):
    """Write the person behind each of n events: the user, or address and user agent where the user has no id. u64[n]."""
    for i in range(len(out)):
        if flags[i] & _COOKIELESS:
            out[i] = splitmix64(splitmix64(splitmix64(ip_hi[i]) ^ ip_lo[i]) ^ ua_hash[i])
        else:
            out[i] = user_hash[i]
