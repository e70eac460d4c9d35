"""The live counts of one minute, in an open-addressed table of publishers; the plain twin is in the monitor's test.

A table is u32[capacity, 6], capacity a power of two: publisher id, then received, impressions, clicks, duplicates and
invalid records. A slot without received records is free.
"""

import numpy as np

from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.kernels.slots import slot_after, slot_of
from adledger.schemas.classes import Class
from adledger.schemas.wire import EventType

BILLABLE, DUPLICATE, GIVT, SIVT = int(Class.BILLABLE), int(Class.DUPLICATE), int(Class.GIVT), int(Class.SIVT)
CLICK = int(EventType.CLICK)

RECEIVED, IMPRESSIONS, CLICKS, DUPLICATES, INVALID = range(1, 6)
"""Columns of a table after the publisher."""

WIDTH = 6


@inline_kernel
def _slot(table, slots, publisher):
    """Return a publisher's slot, or the free slot for it. The table always has a free one."""
    slot = slot_of(np.uint64(publisher), slots)
    while table[slot, RECEIVED] != 0 and table[slot, 0] != publisher:
        slot = slot_after(slot, slots)
    return slot


@kernel
def add_rows(table, slots, taken, taken_max, begin, publisher, event_type, class_code, records):
    """Add rows from `begin` on; return (the first row not added, slots now taken).

    Stops early where a row needs a slot and `taken_max` (below the capacity) are taken. Counts wrap at 2^32.
    """
    for i in range(begin, len(publisher)):
        slot = _slot(table, slots, publisher[i])
        if table[slot, RECEIVED] == 0:
            if taken >= taken_max:
                return i, taken
            taken += 1
            table[slot, 0] = publisher[i]
        table[slot, RECEIVED] += records[i]
        code = class_code[i]
        if code == BILLABLE:
            table[slot, CLICKS if event_type[i] == CLICK else IMPRESSIONS] += records[i]
        elif code == DUPLICATE:
            table[slot, DUPLICATES] += records[i]
        elif code in (GIVT, SIVT):
            table[slot, INVALID] += records[i]
    return len(publisher), taken


@kernel
def move(table, larger, larger_slots):
    """Move all slots into an empty, larger table."""
    for i in range(len(table)):
        if table[i, RECEIVED] != 0:
            larger[_slot(larger, larger_slots, table[i, 0])] = table[i]


@kernel
def find(table, slots, publisher):
    """Return a publisher's slot; it is free where the publisher is not in the table."""
    return np.int64(_slot(table, slots, publisher))
