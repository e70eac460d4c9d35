"""Grouping events by publisher, minute, type, class, currency and book, as a hash aggregation in one pass.

Publishers and minutes come from producers, so slots are secret (adledger.pipeline.kernels.slots).
"""

import numpy as np

from adledger.pipeline.kernels.jit import kernel
from adledger.pipeline.kernels.slots import slot_after, slot_of_pair


@kernel
def group(
    table,
    slots,
    publisher,
    event_time,
    event_type,
    class_code,
    currency,
    after_close,
    money,
    first,
    records,
    nanos,
):
    """Assign every row to its group; return the number of groups g.

    table: i32[capacity], all -1, more than n slots. Groups are in the order of their first rows:
    first i64[:g] is that row, records i64[:g] and nanos i64[:g] are the sums.
    """
    groups = 0
    for i in range(len(publisher)):
        minute = event_time[i] // 60_000
        where = (np.uint64(publisher[i]) << np.uint64(32)) | np.uint64(minute)
        kind = np.uint64(event_type[i] * 16 + class_code[i]) | np.uint64(after_close[i]) << np.uint64(24)
        what = (np.uint64(currency[i]) << np.uint64(8)) | kind
        slot = slot_of_pair(where, what, slots)
        while True:
            g = table[slot]
            if g < 0:
                table[slot] = groups
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
                and after_close[j] == after_close[i]
            ):
                records[g] += 1
                nanos[g] += money[i]
                break
            slot = slot_after(slot, slots)
    return groups
