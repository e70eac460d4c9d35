"""The dedupe table as a kernel: open addressing, two 64-bit words a slot, exact to 64 bits of key.

    word 0   key
    word 1   clock << 32 | fingerprint     clock = ms since the table's base, plus 1; 0 marks an empty slot

One cache line serves a look-up. Keys are splitmix64 outputs, so their low bits address the slot directly. The table
is larger than any cache: a row's line is asked for some rows ahead, so that memory answers many at once (ADR 18).
"""

import numpy as np

from adledger.pipeline.kernels.intrinsics import prefetch
from adledger.pipeline.kernels.jit import inline_kernel, kernel

_U32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_SLOT_BYTES = 16
_AHEAD = 32
"""Rows between asking for a slot's line and using it; 8 to 32 are alike."""


@inline_kernel
def _ask_ahead(address, mask, keys, i):
    """Ask for the line of the key some rows ahead; `address` is the table's."""
    if i + _AHEAD < len(keys):
        prefetch(address + np.int64(keys[i + _AHEAD] & mask) * _SLOT_BYTES)


@kernel
def dedupe(table, mask, base, window_ms, keys, fingerprints, clocks, live, duplicate, conflict):
    """Look each live row up and enter it where it is the first of its key.

    table: u64[2 * capacity], changed in place; mask: capacity - 1; base: ms, at most the smallest clock.
    keys u64[n], fingerprints u32[n], clocks i64[n] (watermark, ms, not falling), live bool[n].
    Sets duplicate[i], conflict[i] (u8) and returns how many new slots were taken.
    An entry older than `window_ms` is replaced by the row, which is then the first.
    """
    taken = 0
    address = table.ctypes.data
    for i in range(len(keys)):
        _ask_ahead(address, mask, keys, i)
        if not live[i]:
            continue
        key = keys[i]
        now = clocks[i] - base + 1
        word = (np.uint64(now) << _U32) | np.uint64(fingerprints[i])
        slot = key & mask
        while True:
            held = table[2 * slot + 1]
            if held == 0:
                table[2 * slot] = key
                table[2 * slot + 1] = word
                taken += 1
                break
            if table[2 * slot] == key:
                if now - np.int64(held >> _U32) <= window_ms:
                    duplicate[i] = 1
                    conflict[i] = (held & _LOW) != (word & _LOW)
                else:
                    table[2 * slot + 1] = word
                break
            slot = (slot + np.uint64(1)) & mask
    return taken


@kernel
def count_live(table, oldest):
    """Return how many entries have clock (ms since base, plus 1) >= oldest."""
    live = 0
    for slot in range(len(table) // 2):
        held = table[2 * slot + 1]
        if held != 0 and np.int64(held >> _U32) >= oldest:
            live += 1
    return live


@kernel
def rehash(table, oldest, shift, out, out_mask):
    """Move entries with clock >= oldest into the empty table `out`, their clocks lowered by `shift` ms."""
    for slot in range(len(table) // 2):
        held = table[2 * slot + 1]
        if held == 0 or np.int64(held >> _U32) < oldest:
            continue
        key = table[2 * slot]
        to = key & out_mask
        while out[2 * to + 1] != 0:
            to = (to + np.uint64(1)) & out_mask
        out[2 * to] = key
        out[2 * to + 1] = held - (np.uint64(shift) << _U32)


@kernel
def load(table, mask, base, keys, fingerprints, clocks):
    """Enter firsts that were read back, in any order: of two entries of a key the later one stays."""
    taken = 0
    address = table.ctypes.data
    for i in range(len(keys)):
        _ask_ahead(address, mask, keys, i)
        key = keys[i]
        word = (np.uint64(clocks[i] - base + 1) << _U32) | np.uint64(fingerprints[i])
        slot = key & mask
        while table[2 * slot + 1] != 0 and table[2 * slot] != key:
            slot = (slot + np.uint64(1)) & mask
        held = table[2 * slot + 1]
        if held == 0:
            taken += 1
        if word >> _U32 >= held >> _U32:
            table[2 * slot] = key
            table[2 * slot + 1] = word
    return taken


@kernel
def unseen(table, mask, hashes, live, rows):
    """Write to `rows` (i64[n]) the first row of each hash that the set `table` lacks, and enter it.

    table: u64[capacity], 0 marks empty, so the hash 0 is never kept: its text is written every time.
    Stops when the set is half full. Returns (rows found, rows looked at).
    """
    found = 0
    room = (mask + np.uint64(1)) // np.uint64(2)
    for i in range(len(hashes)):
        if not live[i]:
            continue
        key = hashes[i]
        if key == 0:
            rows[found] = i
            found += 1
            continue
        slot = key & mask
        while table[slot] != 0 and table[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        if table[slot] == 0:
            if np.uint64(found) >= room:
                return found, i
            table[slot] = key
            rows[found] = i
            found += 1
    return found, len(hashes)
