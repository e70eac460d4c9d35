"""Rules about clicks, compiled: a click compared with its impression, and with the click before it.

adledger.pipeline.rules.plain has the same rules in plain Python.
"""

import numpy as np

from adledger.pipeline.kernels.hashing import splitmix64
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.kernels.rules_tables import HALF, LOW, ONE, age_ms, find, find_pair, not_zero
from adledger.schemas.classes import Reason
from adledger.schemas.wire import EventType, Flag

IMPRESSION_STRIDE = 4
"""key: id_hash | clock | event_time | publisher, campaign (by publisher) or person (by person)"""
OWN_MASK = np.uint64(0xFFFFFFFF_00000000)
"""Selects the publisher: the second part of the key of impressions by publisher."""
SEEN_MASK = np.uint64(0xFFFFFFFF_FFFFFFFF)
"""Selects the person: the second part of the key of impressions by person."""
LAST_CLICK_STRIDE = 3
"""key: person and creative | clock | event_time"""

_STRIDE = np.uint64(IMPRESSION_STRIDE)
_LAST_STRIDE = np.uint64(LAST_CLICK_STRIDE)
_TWO, _THREE = np.uint64(2), np.uint64(3)
_CLICK = int(EventType.CLICK)
_COOKIELESS = 1 << int(Flag.KEYED_BY_IP)
_NO_IMPRESSION = ONE << np.uint64(Reason.CLICK_NO_IMPRESSION)
_TOO_FAST = ONE << np.uint64(Reason.CLICK_TOO_FAST)
_TOO_LATE = ONE << np.uint64(Reason.CLICK_TOO_LATE)
_MISMATCH = ONE << np.uint64(Reason.CLICK_MISMATCH)
_DOUBLE_CLICK = ONE << np.uint64(Reason.DOUBLE_CLICK)

NO_IMPRESSION_MS, FAST_HORIZON_MS, FAST_MS, LATE_HORIZON_MS, LATE_MS, MISMATCH_MS = range(6)
"""Indexes in `limits` of `impressions`."""
_HORIZONS = (FAST_HORIZON_MS, LATE_HORIZON_MS, MISMATCH_MS)


@inline_kernel
def _enter(table, at, key, now, event_time, last):
    table[at] = key
    table[at + ONE] = now & LOW
    table[at + _TWO] = np.uint64(event_time)
    table[at + _THREE] = last


@kernel
def impressions(
    own, own_slots, seen, seen_slots, event_type, event_time, publisher, campaign, person,
    id_hash, impression_hash, clocks, live, duplicate, limits, hits,
):  # fmt: skip
    """Enter impressions and compare clicks with them, n rows in lane order.

    own, own_slots: impressions by id and publisher; seen, seen_slots: by id and person. live, duplicate u8[n] (duplicates
    are evaluated, never entered); clocks i64[n]; limits i64[6], in ms, by the names above: each rule's horizon, and the
    gaps. Sets bits of hits u64[n]. Returns how many new slots were taken in each table.
    The impression of a click is its publisher's newest with that id; where there is none within the horizon, the newest
    with that id that the same person saw, which is then another publisher's.
    """
    farthest = max(
        limits[NO_IMPRESSION_MS], limits[FAST_HORIZON_MS], limits[LATE_HORIZON_MS], limits[MISMATCH_MS]
    )
    own_taken = seen_taken = 0
    for i in range(len(hits)):
        if not live[i]:
            continue
        now = np.uint64(clocks[i])
        by = np.uint64(publisher[i]) << HALF
        if event_type[i] != _CLICK:
            if duplicate[i]:
                continue
            key = not_zero(id_hash[i])
            at = find_pair(own, own_slots, _STRIDE, key, by, OWN_MASK)
            own_taken += own[at] == 0
            _enter(own, at, key, now, event_time[i], by | np.uint64(campaign[i]))
            at = find_pair(seen, seen_slots, _STRIDE, key, person[i], SEEN_MASK)
            seen_taken += seen[at] == 0
            _enter(seen, at, key, now, event_time[i], person[i])
            continue
        key = not_zero(impression_hash[i])
        mine = find_pair(own, own_slots, _STRIDE, key, by, OWN_MASK)
        theirs = find_pair(seen, seen_slots, _STRIDE, key, person[i], SEEN_MASK)
        own_age = age_ms(own[mine + ONE], now) if own[mine] != 0 else farthest + 1
        other_age = age_ms(seen[theirs + ONE], now) if seen[theirs] != 0 else farthest + 1
        if own_age > limits[NO_IMPRESSION_MS] and other_age > limits[NO_IMPRESSION_MS]:
            hits[i] |= _NO_IMPRESSION
        for rule in range(3):
            horizon = limits[_HORIZONS[rule]]
            if own_age <= horizon:
                shown, age = np.int64(own[mine + _TWO]), own_age
            elif other_age <= horizon:
                shown, age = np.int64(seen[theirs + _TWO]), other_age
            else:
                continue
            gap = event_time[i] - shown
            if gap < 0:  # the two producers' clocks disagree: the log's clock decides
                gap = age
            if rule == 0:
                if gap < limits[FAST_MS]:
                    hits[i] |= _TOO_FAST
            elif rule == 1:
                if gap > limits[LATE_MS]:
                    hits[i] |= _TOO_LATE
            elif own_age > horizon or own[mine + _THREE] & LOW != np.uint64(campaign[i]):
                hits[i] |= _MISMATCH
    return own_taken, seen_taken


@kernel
def double_clicks(
    table, slots, event_type, event_time, creative, person, impression_hash, flags,
    clocks, counted, horizon_ms, within_ms, hits,
):  # fmt: skip
    """Compare each click with the last one of its person and creative; return how many new slots were taken.

    counted u8[n]: live and not a duplicate. Where the user has no id, both clicks must also be on the same impression.
    """
    taken = 0
    for i in range(len(hits)):
        if not counted[i] or event_type[i] != _CLICK:
            continue
        what = np.uint64(creative[i])
        if flags[i] & _COOKIELESS:
            what ^= impression_hash[i]
        key = not_zero(splitmix64(person[i] ^ splitmix64(what)))
        now = np.uint64(clocks[i])
        at = find(table, slots, _LAST_STRIDE, key)
        if table[at] == 0:
            table[at] = key
            taken += 1
        elif age_ms(table[at + ONE], now) <= horizon_ms:
            gap = event_time[i] - np.int64(table[at + _TWO])
            if -within_ms <= gap <= within_ms:
                hits[i] |= _DOUBLE_CLICK
        table[at + ONE] = now & LOW
        table[at + _TWO] = np.uint64(event_time[i])
    return taken
