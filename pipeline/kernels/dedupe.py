"""The dedupe table as a kernel: open addressing; a slot is two 64-bit words and a publisher (u32).

    word 0      key
    word 1      click << 63 | clock << 32 | fingerprint     clock = ms since the table's base, plus 1; 0: an empty slot
    publisher   in a separate array

An entry matches an event where key, publisher and type are equal. A key alone is not enough: it is a public function of
all three, so ids can be constructed whose keys are equal under any number of publishers. Slots are secret
(adledger.pipeline.kernels.slots) and depend on publisher and type too, so that nobody can choose ids whose lookups
collide. The table is larger than any cache: a row's cache line is prefetched some rows ahead, so that many memory
accesses overlap (ADR 18).
"""

import numpy as np

from adledger.pipeline.kernels.intrinsics import prefetch
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.kernels.slots import slot_after, slot_of, slot_of_pair

_ONE = np.uint64(1)
_U32 = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_CLOCK = np.uint64(0x7FFFFFFF)
_TYPE = np.uint64(63)
_SLOT_BYTES, _PUBLISHER_BYTES = 16, 4
_AHEAD = 32
"""Rows between prefetching a slot's line and using it; 8 to 32 perform alike."""


@inline_kernel
def _clock(word):
    """Return the clock of a word 1."""
    return np.int64(word >> _U32 & _CLOCK)


@inline_kernel
def _word(source, clock, fingerprint):
    """Return word 1 of an entry; `source` is 2 * publisher + (1 for a click)."""
    return (source << _TYPE) | (np.uint64(clock) << _U32) | np.uint64(fingerprint)


@inline_kernel
def _first_slot(slots, keys, sources, i, ring, address, publishers_address):
    """Return row i's first slot, and prefetch that of row i + _AHEAD. `ring` (u64[_AHEAD]) has the slots in between."""
    slot = ring[i % _AHEAD] if i >= _AHEAD else slot_of_pair(keys[i], sources[i], slots)
    if i + _AHEAD < len(keys):
        ahead = slot_of_pair(keys[i + _AHEAD], sources[i + _AHEAD], slots)
        ring[i % _AHEAD] = ahead
        prefetch(address + np.int64(ahead) * _SLOT_BYTES)
        prefetch(publishers_address + np.int64(ahead) * _PUBLISHER_BYTES)
    return slot


@inline_kernel
def _is_of(table, publishers, slot, key, source):
    """Whether the entry of an occupied slot belongs to this event."""
    return (
        table[2 * slot] == key
        and np.uint64(publishers[slot]) == source >> _ONE
        and table[2 * slot + 1] >> _TYPE == source & _ONE
    )


@kernel
def dedupe(
    table, publishers, slots, base, window_ms, keys, sources, fingerprints, clocks, live, duplicate, conflict
):
    """Look up each live row, and enter it where it is the first of its identity.

    table u64[2 * capacity], publishers u32[capacity], changed in place; base: ms, at most the smallest clock.
    keys u64[n], sources u64[n] (2 * publisher + 1 for a click), fingerprints u32[n], clocks i64[n] (watermark, ms, not falling), live bool[n].
    Sets duplicate[i], conflict[i] (u8) and returns how many new slots were taken.
    An entry older than `window_ms` is replaced by the row, which is then the first.
    """
    taken = 0
    address, publishers_address = table.ctypes.data, publishers.ctypes.data
    ring = np.empty(_AHEAD, np.uint64)
    for i in range(len(keys)):
        slot = _first_slot(slots, keys, sources, i, ring, address, publishers_address)
        if not live[i]:
            continue
        key, source = keys[i], sources[i]
        now = clocks[i] - base + 1
        word = _word(source, now, fingerprints[i])
        while True:
            held = table[2 * slot + 1]
            if held == 0:
                table[2 * slot] = key
                table[2 * slot + 1] = word
                publishers[slot] = source >> _ONE
                taken += 1
                break
            if _is_of(table, publishers, slot, key, source):
                if now - _clock(held) <= window_ms:
                    duplicate[i] = 1
                    conflict[i] = (held & _LOW) != (word & _LOW)
                else:
                    table[2 * slot + 1] = word
                break
            slot = slot_after(slot, slots)
    return taken


@kernel
def count_live(table, oldest):
    """Return how many entries have clock (ms since base, plus 1) >= oldest."""
    live = 0
    for slot in range(len(table) // 2):
        held = table[2 * slot + 1]
        if held != 0 and _clock(held) >= oldest:
            live += 1
    return live


@kernel
def rehash(table, publishers, oldest, shift, out, out_publishers, out_slots):
    """Move entries with clock >= oldest into the empty table `out`, their clocks lowered by `shift` ms."""
    for slot in range(len(table) // 2):
        held = table[2 * slot + 1]
        if held == 0 or _clock(held) < oldest:
            continue
        key = table[2 * slot]
        source = np.uint64(publishers[slot]) << _ONE | held >> _TYPE
        to = slot_of_pair(key, source, out_slots)
        while out[2 * to + 1] != 0:
            to = slot_after(to, out_slots)
        out[2 * to] = key
        out[2 * to + 1] = held - (np.uint64(shift) << _U32)
        out_publishers[to] = publishers[slot]


@kernel
def load(table, publishers, slots, base, keys, sources, fingerprints, clocks):
    """Enter firsts that were read back, in any order: the later of two entries of one identity stays."""
    taken = 0
    address, publishers_address = table.ctypes.data, publishers.ctypes.data
    ring = np.empty(_AHEAD, np.uint64)
    for i in range(len(keys)):
        slot = _first_slot(slots, keys, sources, i, ring, address, publishers_address)
        key, source = keys[i], sources[i]
        word = _word(source, clocks[i] - base + 1, fingerprints[i])
        while table[2 * slot + 1] != 0 and not _is_of(table, publishers, slot, key, source):
            slot = slot_after(slot, slots)
        held = table[2 * slot + 1]
        if held == 0:
            taken += 1
        if _clock(word) >= _clock(held):
            table[2 * slot] = key
            table[2 * slot + 1] = word
            publishers[slot] = source >> _ONE
    return taken


@kernel
def probes(table, publishers, slots, keys, sources):
    """Return the total number of slots read to look up n events."""
    read = 0
    for i in range(len(keys)):
        slot = slot_of_pair(keys[i], sources[i], slots)
        read += 1
        while table[2 * slot + 1] != 0 and not _is_of(table, publishers, slot, keys[i], sources[i]):
            slot = slot_after(slot, slots)
            read += 1
    return read


@kernel
def unseen(table, slots, hashes, live, rows):
    """Write to `rows` (i64[n]) the first row of each hash that is not in the set `table`, and enter the hash.

    table: u64[capacity], 0 marks empty, so the hash 0 is never kept: its string is written every time.
    Stops when the set is half full. Returns (rows found, rows examined).
    """
    found = 0
    room = np.uint64(len(table)) // np.uint64(2)
    for i in range(len(hashes)):
        if not live[i]:
            continue
        key = hashes[i]
        if key == 0:
            rows[found] = i
            found += 1
            continue
        slot = slot_of(key, slots)
        while table[slot] != 0 and table[slot] != key:
            slot = slot_after(slot, slots)
        if table[slot] == 0:
            if np.uint64(found) >= room:
                return found, i
            table[slot] = key
            rows[found] = i
            found += 1
    return found, len(hashes)
