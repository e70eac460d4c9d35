"""Rules about clicks, compiled: a click compared with its impression, and with the click before it.

adledger.pipeline.rules.plain has the same rules in plain Python.
"""

import numpy as np

from adledger.pipeline.kernels.hashing import splitmix64
from adledger.pipeline.kernels.jit import kernel
from adledger.pipeline.kernels.rules_tables import HALF, LOW, ONE, age_ms, find, not_zero
from adledger.pipeline.kernels.slots import slot_after, slot_of
from adledger.schemas.classes import Reason
from adledger.schemas.wire import EventType, Flag

IMPRESSION_STRIDE = 4
"""key: id_hash | publisher, clock | event_time | campaign, person"""
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


@kernel
def impressions(
    table, slots, event_type, event_time, publisher, campaign, person,
    id_hash, impression_hash, clocks, live, duplicate, limits, hits,
):  # fmt: skip
    """Enter impressions and compare clicks with them, n rows in lane order; return how many new slots were taken.

    live, duplicate u8[n] (duplicates are evaluated, never entered); clocks i64[n]; limits i64[6], in ms, by the names
    above: each rule's horizon, and the gaps. Sets bits of hits u64[n].
    The impression of a click is its publisher's impression with that id; where there is none, the newest one with that id
    that the same person saw on another publisher.
    """
    farthest = max(
        limits[NO_IMPRESSION_MS], limits[FAST_HORIZON_MS], limits[LATE_HORIZON_MS], limits[MISMATCH_MS]
    )
    taken = 0
    for i in range(len(hits)):
        if not live[i]:
            continue
        now = np.uint64(clocks[i])
        who = person[i] & LOW
        by = np.uint64(publisher[i])
        if event_type[i] != _CLICK:
            if duplicate[i]:
                continue
            key = not_zero(id_hash[i])
            slot = slot_of(key, slots)
            while True:
                at = slot * _STRIDE
                if table[at] == 0:
                    taken += 1
                    break
                if table[at] == key and table[at + ONE] >> HALF == by:
                    break
                slot = slot_after(slot, slots)
            table[at] = key
            table[at + ONE] = (by << HALF) | (now & LOW)
            table[at + _TWO] = np.uint64(event_time[i])
            table[at + _THREE] = (np.uint64(campaign[i]) << HALF) | who
            continue
        key = not_zero(impression_hash[i])
        slot = slot_of(key, slots)
        own, other = np.uint64(0), np.uint64(0)
        own_age, other_age = farthest + 1, farthest + 1
        while table[slot * _STRIDE] != 0:
            at = slot * _STRIDE
            slot = slot_after(slot, slots)
            if table[at] != key:
                continue
            age = age_ms(table[at + ONE], now)
            if table[at + ONE] >> HALF == by:
                own, own_age = at, age
            elif table[at + _THREE] & LOW == who and (
                age < other_age or (age == other_age and table[at + ONE] > table[other + ONE])
            ):
                other, other_age = at, age
        if own_age > limits[NO_IMPRESSION_MS] and other_age > limits[NO_IMPRESSION_MS]:
            hits[i] |= _NO_IMPRESSION
        for rule in range(3):
            horizon = limits[_HORIZONS[rule]]
            if own_age <= horizon:
                shown, age = own, own_age
            elif other_age <= horizon:
                shown, age = other, other_age
            else:
                continue
            gap = event_time[i] - np.int64(table[shown + _TWO])
            if gap < 0:  # the two producers' clocks disagree: the log's clock decides
                gap = age
            if rule == 0:
                if gap < limits[FAST_MS]:
                    hits[i] |= _TOO_FAST
            elif rule == 1:
                if gap > limits[LATE_MS]:
                    hits[i] |= _TOO_LATE
            elif own_age > horizon or table[shown + _THREE] >> HALF != np.uint64(campaign[i]):
                hits[i] |= _MISMATCH
    return taken


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


@kernel
def impression_keys(impression_hash, publisher, out):
    """Write the key of the impression that each click names, under the click's publisher: u64[n]."""
    for i in range(len(out)):
        out[i] = not_zero(splitmix64(impression_hash[i] ^ splitmix64(np.uint64(publisher[i]))))
