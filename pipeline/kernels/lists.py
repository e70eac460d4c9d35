"""List lookups, compiled: flags of user agents by hash and of addresses by range, the status of publishers by id.

adledger.pipeline.lists builds the tables and has the plain twins.
"""

from typing import NamedTuple

import numpy as np

from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.kernels.slots import slot_after, slot_of

# Flags of a user agent: u16. The high byte is the crawler (adledger.pipeline.lists.crawlers) that it claims to be, 0 for none.
UA_BLANK = 1
UA_KNOWN_BOT = 2
UA_NON_BROWSER = 4
UA_ALLOWED = 8  # an allow list of the deployment names it: then it has no other flag
UA_TAKEN = 128  # in the table only: the slot holds an entry
UA_PENDING = 64  # in the table only: the entry's text is being classified
UA_CLAIM_SHIFT = 8

# Flags of an address: u32. Bit IP_OWNER_SHIFT + c: it lies in the published ranges of crawler c (1..24).
IP_DATACENTER = 1
IP_RESERVED = 2
IP_ALLOWED = 4  # an allow list of the deployment names it: neither flag above, and valid for every crawler
IP_OWNER_SHIFT = 7
CRAWLERS_MAX = 24
IP_OWNED_BY_ALL = 0xFFFF_FF00

_V4_MAPPED = np.uint64(0xFFFF)
_16, _32, _48 = (np.uint64(n) for n in (16, 32, 48))
_LOW32 = np.uint64(0xFFFFFFFF)
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


class AddressTable(NamedTuple):
    """Segments that cover all addresses, in order: segment i runs from its start up to that of the next one.

    The index has, for each value h of an address's top 16 bits, the segment of the first such address; and the last
    segment for h = 65536. v4: u32 starts; v6: u64 halves.
    """

    v4_index: np.ndarray  # u32[65537]
    v4_starts: np.ndarray  # u32[n]
    v4_values: np.ndarray  # u32[n]
    v6_index: np.ndarray  # u32[65537]
    v6_starts_hi: np.ndarray  # u64[m]
    v6_starts_lo: np.ndarray  # u64[m]
    v6_values: np.ndarray  # u32[m]


@inline_kernel
def _v4_value(table, address):
    bucket = address >> _16
    low = np.int64(table.v4_index[bucket])
    high = np.int64(table.v4_index[bucket + np.uint64(1)])
    while low < high:
        middle = (low + high + 1) >> 1
        if np.uint64(table.v4_starts[middle]) <= address:
            low = middle
        else:
            high = middle - 1
    return table.v4_values[low]


@inline_kernel
def _v6_value(table, hi, lo):
    bucket = hi >> _48
    low = np.int64(table.v6_index[bucket])
    high = np.int64(table.v6_index[bucket + np.uint64(1)])
    while low < high:
        middle = (low + high + 1) >> 1
        start = table.v6_starts_hi[middle]
        if start < hi or (start == hi and table.v6_starts_lo[middle] <= lo):
            low = middle
        else:
            high = middle - 1
    return table.v6_values[low]


@kernel
def address_flags(table, ip_hi, ip_lo, out):
    """Write the flags (u32) of n addresses, IPv6 halves u64, IPv4 as ::ffff:a.b.c.d, to `out`."""
    for i in range(len(ip_hi)):
        if ip_hi[i] == 0 and ip_lo[i] >> _32 == _V4_MAPPED:
            out[i] = _v4_value(table, ip_lo[i] & _LOW32)
        else:
            out[i] = _v6_value(table, ip_hi[i], ip_lo[i])


@kernel
def cached_flags(keys, values, slots, hashes, live, start, room, out, unknown):
    """Write the flags (u16) of live rows from `start` on to `out`, as far as the table knows them.

    keys u64, values u16: open addressing, changed in place: an unknown hash takes a slot, which is pending until
    `enter_flags`, and its first row is written to `unknown` (i64). Stops before there are more than `room` of them.
    Returns (number of unknown hashes, further rows that have them, the row to continue with).
    """
    found = repeats = 0
    for i in range(start, len(hashes)):
        if not live[i]:
            continue
        key = hashes[i]
        slot = slot_of(key, slots)
        while values[slot] != 0 and keys[slot] != key:
            slot = slot_after(slot, slots)
        if values[slot] == 0:
            if found >= room:
                return found, repeats, i
            keys[slot] = key
            values[slot] = UA_TAKEN | UA_PENDING
            unknown[found] = i
            found += 1
        elif values[slot] & UA_PENDING:
            repeats += 1
        else:
            out[i] = values[slot] & ~np.uint16(UA_TAKEN)
    return found, repeats, len(hashes)


@kernel
def enter_flags(keys, values, slots, hashes, rows, flags):
    """Write the flags (u16) of rows whose hashes have pending slots."""
    for k in range(len(rows)):
        key = hashes[rows[k]]
        slot = slot_of(key, slots)
        while keys[slot] != key or values[slot] == 0:
            slot = slot_after(slot, slots)
        values[slot] = flags[k] | np.uint16(UA_TAKEN)


@inline_kernel
def _publisher_slot(key, shift):
    return (np.uint64(key) * _GOLDEN) >> shift


@kernel
def enter_publishers(keys, statuses, shift, ids, values):
    """Enter publishers (u32) with a status (u8, not 0) into an empty table of 2 ** (64 - shift) slots."""
    mask = np.uint64(len(keys) - 1)
    for k in range(len(ids)):
        slot = _publisher_slot(ids[k], shift)
        while statuses[slot] != 0:
            slot = (slot + np.uint64(1)) & mask
        keys[slot] = ids[k]
        statuses[slot] = values[k]


@kernel
def publisher_statuses(keys, statuses, shift, ids, out):
    """Write the status (u8) of n publishers (u32) to `out`; 0 for unknown ones."""
    mask = np.uint64(len(keys) - 1)
    for i in range(len(ids)):
        slot = _publisher_slot(ids[i], shift)
        while statuses[slot] != 0 and keys[slot] != ids[i]:
            slot = (slot + np.uint64(1)) & mask
        out[i] = statuses[slot]
