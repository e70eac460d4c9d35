"""When each record enters the log, and why: slots (impressions) in log order, their clicks and copies.

A *slot* is one impression. Its log time is an increasing function of its number, so that any range of slots can be
generated independently. Clicks and copies are *derived*: functions of their slot alone, with log times after it. Whether
a copy is a duplicate depends only on the other records of its slot, so the ground truth is known without running a
pipeline.
"""

import numpy as np

from adledger.loadtest.traffic.kernels.draw import GOLDEN, below, draw, high, low, mix64, quantile
from adledger.loadtest.traffic.kernels.shapes import CHANGE_NONE, CHANGE_PAGE, CHANGE_PRICE, CHANGE_TIME
from adledger.pipeline.kernels.intrinsics import load64
from adledger.pipeline.kernels.jit import inline_kernel, kernel

MINUTE_MS = 60_000
HOUR_MS = 3_600_000
COPIES_MAX = 4
DERIVED_MAX = 2 * COPIES_MAX + 1
"""The most records that derive from one slot."""

FIRST_COPY_LABEL = 2  # labels.Label.RETRY_AT_ONCE; kinds of copies are numbered from it
_AT_ONCE, _HOURS, _EDGE, _BEYOND, _CONFLICT, _TEXT, _RESTART = range(7)

# purposes: one for each kind of draw
P_JITTER, P_ROLE, P_RECIPE, P_CLICK, P_CLICK_DELAY, P_COPY, P_COPY_CLICK = range(7)


@inline_kernel
def slot_base(tb, slot):
    """Return the 64 random bits that everything about a slot is drawn from."""
    return mix64(tb.key ^ (np.uint64(slot) * GOLDEN))


@inline_kernel
def _weight(tb, step, slot):
    """Return the slot's position in the cumulative weight: one slot per `step`, at random within it."""
    jitter = np.float64(high(draw(slot_base(tb, slot), P_JITTER))) * 2.0**-32
    return (np.float64(slot) + jitter) * step


@kernel
def slot_times(tb, arrivals, step, first, stride, out):
    """Fill out with the log times (ms) of slots first, first + stride, ...

    `arrivals` is the cumulative weight at each step_ms of the run (int64), `step` the weight of one slot.
    """
    at = np.searchsorted(arrivals, _weight(tb, step, first), side="right") - 1
    for i in range(len(out)):
        weight = _weight(tb, step, first + i * stride)
        while weight >= arrivals[at + 1]:
            at += 1
        begin = np.float64(arrivals[at])
        span = np.float64(arrivals[at + 1]) - begin
        out[i] = tb.start_ms + at * tb.step_ms + np.int64((weight - begin) * tb.step_ms / span)


@inline_kernel
def _emit(out, n, log_time, slot_time, slot, variant):
    row = out[n]
    row.log_time = log_time
    row.slot_time = slot_time
    row.slot = slot
    row.variant = variant
    row.change = CHANGE_NONE
    row.duplicate = 0
    row.conflict = 0
    row.label = 0
    row.recipe = 0


@inline_kernel
def _odd(tb, base, out, n):
    """Make a share of the decodable records odd, with a draw for each time that a record is sent."""
    bits = draw(base, 32 + out[n].variant)
    if low(bits) < tb.odd_t:
        out[n].recipe = 1 + tb.malformed_recipes + below(bits, tb.odd_recipes)


@inline_kernel
def _delay(tb, kind, bits):
    """Return how long after the previous sending a copy follows (ms), at least 1."""
    if kind == _HOURS:
        return HOUR_MS + below(bits, 22 * HOUR_MS)
    if kind == _EDGE:
        return tb.window_ms - 2_000 + below(bits, 4_001)
    if kind == _BEYOND:
        return tb.window_ms + 1 + below(bits, 6 * HOUR_MS)
    if kind == _CONFLICT or kind == _TEXT:
        return 10 + below(bits, tb.conflict_ms)
    if kind == _RESTART:
        return 3_005 + below(bits, tb.restart_ms - 3_005)
    return 5 + below(bits, 3_000)


@inline_kernel
def _change(kind, bits):
    if kind == _CONFLICT:
        return CHANGE_PRICE + low(bits) % 3
    if kind == _TEXT:
        return CHANGE_PAGE + low(bits) % 2
    return CHANGE_NONE


@inline_kernel
def _copies(tb, base, purpose, out, n, log_time, slot_time, slot, is_click):
    """Emit the copies of one event, in log order, each with its ground truth; return the new n.

    The first sending opens the dedupe window; a copy within it is a duplicate and does not extend it; a copy
    after it is a first again. Two sendings conflict when they differ in a field that the fingerprint covers.
    """
    window_from = log_time
    first_payload = 0
    at = log_time
    bits = draw(base, purpose)
    for copy in range(1, COPIES_MAX + 1):
        more = tb.copy_t if copy == 1 else 1 << 29  # one copy in eight is followed by another
        if low(bits) >= more:
            break
        kind_bits = draw(bits, copy)
        kind = 0
        while kind < _RESTART and low(kind_bits) >= np.int64(load64(tb.copy_kinds + 8 * kind)):
            kind += 1
        at += _delay(tb, kind, kind_bits)
        if abs(at - window_from - tb.window_ms) <= tb.margin_ms and tb.margin_ms:
            at += 2 * tb.margin_ms
        _emit(out, n, at, slot_time, slot, 2 * copy + is_click)
        change = _change(kind, draw(bits, 16 + copy))
        payload = 0
        if CHANGE_PRICE <= change <= CHANGE_TIME:
            payload = change * 16 + (copy if change == CHANGE_TIME else 0)
        out[n].change = change
        out[n].label = FIRST_COPY_LABEL + kind
        if at - window_from <= tb.window_ms:
            out[n].duplicate = 1
            out[n].conflict = payload != first_payload
        else:
            window_from = at
            first_payload = payload
        _odd(tb, base, out, n)
        n += 1
        bits = draw(bits, 8)
    return n


@kernel
def plan_slots(tb, first, times, slots, derived):
    """Plan the slots from `first` on, with the given log times.

    Fills `slots` (PLANNED, one per slot) and `derived` (PLANNED, with room for DERIVED_MAX per slot); returns the number
    of derived records.
    """
    n = 0
    for i in range(len(times)):
        slot = first + i
        at = times[i]
        base = slot_base(tb, slot)
        _emit(slots, i, at, at, slot, 0)
        role = draw(base, P_ROLE)
        if low(role) < tb.malformed_t:
            slots[i].label = 1
            slots[i].recipe = 1 + below(draw(base, P_RECIPE), tb.malformed_recipes)
            continue
        _odd(tb, base, slots, i)
        n = _copies(tb, base, P_COPY, derived, n, at, at, slot, 0)
        click = draw(base, P_CLICK)
        if low(click) < tb.click_t:
            clicked = at + click_delay(tb, base) + high(click) % 200
            _emit(derived, n, clicked, at, slot, 1)
            _odd(tb, base, derived, n)
            n = _copies(tb, base, P_COPY_CLICK, derived, n + 1, clicked, at, slot, 1)
    return n


@inline_kernel
def click_delay(tb, base):
    """Return how long the human took to click (ms)."""
    return quantile(tb.q_click, high(draw(base, P_CLICK_DELAY)))


@kernel
def click_delays(tb, slots, out):
    """Fill out with how long the humans took to click (ms) on the impressions of these slots."""
    for i in range(len(slots)):
        out[i] = click_delay(tb, slot_base(tb, slots[i]))


@kernel
def merge_planned(derived, slots, out):
    """Merge two runs of PLANNED records in log order into one.

    Where log times are equal, derived records go first: they come after their own slot, so their slot is an earlier one.
    """
    n = 0
    for i in range(len(slots)):
        while n < len(derived) and derived[n].log_time <= slots[i].log_time:
            out[i + n] = derived[n]
            n += 1
        out[i + n] = slots[i]
    for k in range(n, len(derived)):
        out[len(slots) + k] = derived[k]
