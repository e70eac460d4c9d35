"""Adds up the ground truth of rows in a growing hash table of publisher-minute keys."""

import numpy as np

from adledger.loadtest.traffic.kernels.draw import mix64
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.schemas.classes import Class

MALFORMED = int(Class.MALFORMED)
FULL = 0.6
"""The table is doubled before a larger share of its slots is taken."""


@inline_kernel
def _place(keys, key):
    """Return the key's slot, or the free slot for it; 0 marks a free slot (no key is 0, since it includes a class)."""
    mask = len(keys) - 1
    at = np.int64(mix64(key)) & mask
    while keys[at] != np.uint64(0) and keys[at] != key:
        at = (at + 1) & mask
    return at


@inline_kernel
def rollup_key(row, currency_code):
    """Return the row's rollup key as one number, ordered like ground_truth.ROLLUP_KEY.

    32 bits of publisher, 27 of minute, 1 of event type, 3 of class, 1 that is 0 for `currency_code`.
    """
    key = np.uint64(row.publisher_id) << np.uint64(32)
    key |= np.uint64(row.event_time // 60_000) << np.uint64(5)
    key |= (np.uint64(row.event_type) - np.uint64(1)) << np.uint64(4)
    key |= np.uint64(row.class_code) << np.uint64(1)
    return key if row.currency_code == currency_code else key | np.uint64(1)


@kernel
def tally(
    rows, first, currency_code, reasons, keys, records, money, used, classes, malformed, misrouted, conflicts
):
    """Add rows from `first` on to the table (keys, records, money; 2^k slots, of which `used` are taken) and the counts.

    Returns (the row where it stopped, slots used): it stops where the table must grow first.
    """
    full = np.int64(len(keys) * FULL)
    for i in range(first, len(rows)):
        if used >= full:
            return i, used
        row = rows[i]
        classes[row.partition, row.class_code] += 1
        if row.class_code == MALFORMED:
            malformed[reasons[row.recipe]] += 1
            continue
        misrouted[row.partition] += row.misrouted
        conflicts[row.partition] += row.conflict
        key = rollup_key(row, currency_code)
        at = _place(keys, key)
        if keys[at] != key:
            keys[at] = key
            used += 1
        records[at] += 1
        money[at] += row.money_nanos
    return len(rows), used


@kernel
def move(keys, records, money, keys_to, records_to, money_to):
    """Move all entries into another, empty table."""
    for i in range(len(keys)):
        if keys[i] != np.uint64(0):
            at = _place(keys_to, keys[i])
            keys_to[at] = keys[i]
            records_to[at] = records[i]
            money_to[at] = money[i]
