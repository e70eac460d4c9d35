"""Grouping events by publisher, minute, type, class and currency, as a hash aggregation in one pass."""

import numpy as np

from adledger.pipeline.kernels.jit import inline_kernel, kernel


@inline_kernel
def _mix(z):
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def group(slots, publisher, event_time, event_type, class_code, currency, money, first, records, nanos):
    """Assign every row to its group; return the number of groups g.

    slots: i32[capacity], all -1, capacity a power of two > n. Groups are in the order of their first rows:
    first i64[:g] is that row, records i64[:g] and nanos i64[:g] are the sums.
    """
    mask = np.uint64(len(slots) - 1)
    groups = 0
    for i in range(len(publisher)):
        minute = event_time[i] // 60_000
        where = (np.uint64(publisher[i]) << np.uint64(32)) | np.uint64(minute)
        what = (np.uint64(currency[i]) << np.uint64(8)) | np.uint64(event_type[i] * 16 + class_code[i])
        slot = _mix(where ^ (what * np.uint64(0x9E3779B97F4A7C15))) & mask
        while True:
            g = slots[slot]
            if g < 0:
                slots[slot] = groups
                first[groups] = i
                records[groups] = 1
                nanos[groups] = money[i]
                groups += 1
                break
            j = first[g]
            if (
                publisher[j] == publisher[i]
                and event_time[j] // 60_000 == minute
                and event_type[j] == event_type[i]
                and class_code[j] == class_code[i]
                and currency[j] == currency[i]
            ):
                records[g] += 1
                nanos[g] += money[i]
                break
            slot = (slot + np.uint64(1)) & mask
    return groups
