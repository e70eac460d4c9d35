"""Rules about rates, compiled: exact counts in a sliding window, networks of a user, regular arrivals.

adledger.pipeline.rules.plain has the same rules in plain Python.
"""

import numpy as np

from adledger.pipeline.kernels.hashing import splitmix64
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.kernels.rules_tables import HALF, LOW, ONE, age_ms, find, find_pair, not_zero

COUNT_STRIDE = 2
"""key | source, events in the window (not a clock: expired slots are those that count 0); the key is both"""
USER_STRIDE = 8
"""key | seven entries, the newest first: what << 32 | clock; 0 marks none"""
REMEMBERED = USER_STRIDE - 1

_COUNT = np.uint64(COUNT_STRIDE)
_USER = np.uint64(USER_STRIDE)
_SOURCE = np.uint64(0xFFFFFFFF_00000000)


@inline_kernel
def _find_counted(table, slots, key, source):
    """Return the index of the slot of a key and its source (u32), or of the empty slot where it would go."""
    return find_pair(table, slots, _COUNT, key, np.uint64(source) << HALF, _SOURCE)


@inline_kernel
def _expire(table, slots, fifo_keys, fifo_sources, fifo_clocks, first, end, now, window_ms):
    """Remove the events older than the window from the counts; return the index of the first that stays."""
    ring = len(fifo_keys) - 1
    while first < end and now - fifo_clocks[first & ring] > window_ms:
        gone = _find_counted(table, slots, fifo_keys[first & ring], fifo_sources[first & ring])
        table[gone + ONE] -= ONE
        first += 1
    return first


@kernel
def count_in_window(
    table, slots, fifo_keys, fifo_sources, fifo_clocks, fifo, keys, sources, clocks, counted, window_ms, count_max, bit,
    hits,
):  # fmt: skip
    """Set `bit` on each counted row that `count_max` or more of its key (u64) and source (u32) precede in the window.

    fifo i64[2]: first and end index of the events in the window, which only increase; event `index` is at
    `index & (capacity - 1)` of fifo_keys u64[], fifo_sources u32[], fifo_clocks i64[], which have room for all rows.
    Returns how many new slots were taken.
    """
    ring = len(fifo_keys) - 1
    first, end = fifo[0], fifo[1]
    taken = 0
    for i in range(len(keys)):
        if not counted[i]:
            continue
        now = clocks[i]
        first = _expire(table, slots, fifo_keys, fifo_sources, fifo_clocks, first, end, now, window_ms)
        key = not_zero(keys[i])
        at = _find_counted(table, slots, key, sources[i])
        if table[at] == 0:
            table[at] = key
            table[at + ONE] = np.uint64(sources[i]) << HALF
            taken += 1
        if table[at + ONE] & LOW >= np.uint64(count_max):
            hits[i] |= bit
        table[at + ONE] += ONE
        fifo_keys[end & ring] = key
        fifo_sources[end & ring] = sources[i]
        fifo_clocks[end & ring] = now
        end += 1
    fifo[0], fifo[1] = first, end
    return taken


@kernel
def expire(table, slots, fifo_keys, fifo_sources, fifo_clocks, fifo, now, window_ms):
    """Remove events older than the window at `now` from the counts."""
    fifo[0] = _expire(table, slots, fifo_keys, fifo_sources, fifo_clocks, fifo[0], fifo[1], now, window_ms)


@kernel
def keep_counted(table, out, out_slots):
    """Move the slots whose count is not 0 into the empty table `out`; return their number."""
    kept = 0
    for at in range(0, len(table), COUNT_STRIDE):
        if table[at + 1] & LOW != 0:
            to = find_pair(out, out_slots, _COUNT, table[at], table[at + 1] & _SOURCE, _SOURCE)
            out[to] = table[at]
            out[to + ONE] = table[at + 1]
            kept += 1
    return kept


@inline_kernel
def _network(ip_hi, ip_lo):
    """Return 32 bits of the network of an address: /24 of IPv4, /64 of IPv6; never 0."""
    v4 = ip_hi == 0 and ip_lo >> HALF == np.uint64(0xFFFF)
    word = splitmix64(ip_lo >> np.uint64(8) if v4 else ip_hi ^ ONE << np.uint64(63)) >> HALF
    return word if word != 0 else ONE


@kernel
def many_networks(table, slots, user_hash, ip_hi, ip_lo, clocks, counted, window_ms, networks_max, bit, hits):
    """Set `bit` where an event's network is not among the `networks_max` that its user was last seen in.

    networks_max is 1..REMEMBERED. Returns how many new slots were taken.
    """
    taken = 0
    for i in range(len(hits)):
        if not counted[i]:
            continue
        now = np.uint64(clocks[i])
        key = not_zero(user_hash[i])
        network = _network(ip_hi[i], ip_lo[i])
        entry = (network << HALF) | (now & LOW)
        at = find(table, slots, _USER, key)
        if table[at] == 0:
            table[at] = key
            taken += 1
        place = np.uint64(1)
        others = 0
        while place < _USER:
            held = table[at + place]
            if held == 0 or held >> HALF == network:
                break
            if age_ms(held, now) <= window_ms:
                others += 1
            place += ONE
        if others >= networks_max:
            hits[i] |= bit
        last = (
            place if place < _USER else _USER - ONE
        )  # its entry moves to the front, or the last one is dropped
        while last > ONE:
            table[at + last] = table[at + last - ONE]
            last -= ONE
        table[at + ONE] = entry
    return taken


@kernel
def regular_arrivals(
    table, slots, user_hash, event_time, clocks, counted, horizon_ms, gap_min_ms, tolerance_percent, bit, hits
):
    """Set `bit` where a user's last eight counted events are equally spaced. Returns how many new slots were taken.

    Event times are kept modulo 2^32 ms, and their differences read as signed: exact within 24 days.
    """
    taken = 0
    for i in range(len(hits)):
        if not counted[i]:
            continue
        now = np.uint64(clocks[i])
        time = np.uint64(event_time[i]) & LOW
        at = find(table, slots, _USER, not_zero(user_hash[i]))
        if table[at] == 0:
            table[at] = not_zero(user_hash[i])
            taken += 1
        oldest = table[at + _USER - ONE]
        if oldest != 0 and age_ms(oldest, now) <= horizon_ms:
            later = time
            least, most = np.int64(1) << 40, np.int64(-1) << 40
            for place in range(1, USER_STRIDE):
                earlier = table[at + np.uint64(place)] >> HALF
                gap = np.int64((later - earlier) & LOW)
                if gap >= np.int64(1) << 31:
                    gap -= np.int64(1) << 32
                least, most = min(least, gap), max(most, gap)
                later = earlier
            if least >= gap_min_ms and (most - least) * 100 <= tolerance_percent * least:
                hits[i] |= bit
        for back in range(REMEMBERED, 1, -1):
            table[at + np.uint64(back)] = table[at + np.uint64(back - 1)]
        table[at + ONE] = (time << HALF) | (now & LOW)
    return taken
