"""Search all reachable states breadth first, so that a violation is found by its shortest path."""

from dataclasses import dataclass

import numba
import numpy as np

from docs.model.mutants import NOT_DURABLE
from docs.model.servers import (
    gone,
    old_commit,
    old_inserts,
    own_commit,
    own_insert,
    rebalance,
    tick,
    unsynced,
)
from docs.model.state import (
    COMMIT, CURRENT, FIELDS, IDLE, LIVELOCK, NEXT, OUT, PC, RECHECK, START, VIOLATION, WORKER_FIELDS, WORKERS,
    WRITE_EVENTS, WRITE_LEDGER, canonical, jit, unpack,
)  # fmt: skip
from docs.model.steps import (
    OLD_LOST, OLD_PUBLISHED, PUBLISHED, REBALANCE, STATES_MAX, STEPS, TICK, check, finished,
)  # fmt: skip
from docs.model.worker import find_start, intend_next, settle


@jit
def successors(s, m, out, labels):
    """Fill `out` and `labels` with what can come next; return how many."""
    n = 0
    for w in range(2):
        at = WORKERS + w * WORKER_FIELDS
        pc = s[at + PC]
        if START <= pc <= RECHECK:
            n = find_start(s, n, out, labels, w, m)
        elif pc == NEXT:
            n = intend_next(s, n, out, labels, w, m)
        elif pc == COMMIT:
            n = own_commit(s, n, out, labels, w, m)
        elif WRITE_EVENTS <= pc <= WRITE_LEDGER:
            n = own_insert(s, n, out, labels, w, m)
        elif pc not in (OUT, IDLE):
            n = settle(s, n, out, labels, w, m)
        if pc != OUT:
            n = gone(s, n, out, labels, w, m)
        n = rebalance(s, n, out, labels, w, m)
    n = old_commit(s, n, out, labels, m)
    n = old_inserts(s, n, out, labels, m)
    n = tick(s, n, out, labels, m)
    if m & NOT_DURABLE:
        n = unsynced(s, n, out, labels)
    for i in range(n):
        check(out[i])
    return n


@jit
def rank(s, label):
    """Return a step's priority when nothing more goes wrong; 255: it is a fault, or not needed."""
    what, w = label // 2, label % 2
    owner = s[WORKERS + w * WORKER_FIELDS + CURRENT]
    if what in (OLD_PUBLISHED, OLD_LOST):
        return 0
    if what == PUBLISHED:
        return 1
    if owner and STEPS[what]:
        return 2
    if what == TICK:
        return 3
    at = WORKERS
    if what == REBALANCE and not s[at + CURRENT] and not s[at + WORKER_FIELDS + CURRENT]:
        return 4
    return 255


@jit
def slot_of(first, second, mask):
    """Return the slot at which a state's look-up in the table begins."""
    h = (first ^ (second * np.uint64(0x9E3779B97F4A7C15))) * np.uint64(0xBF58476D1CE4E5B9)
    h ^= h >> np.uint64(29)
    h *= np.uint64(0x94D049BB133111EB)
    return np.int64((h >> np.uint64(20)) & mask)


@jit
def grow(table, first, second, count):
    """Return a table of twice the size with all states in it."""
    bigger = np.full(table.size * 2, -1, np.int32)
    mask = np.uint64(bigger.size - 1)
    for i in range(count):
        at = slot_of(first[i], second[i], mask)
        while bigger[at] >= 0:
            at = (at + 1) & np.int64(mask)
        bigger[at] = i
    return bigger


@jit
def longer(array):
    """Return a copy of twice the size."""
    copy = np.empty(array.size * 2, array.dtype)
    copy[: array.size] = array
    return copy


@numba.njit
def explore(m, states_max):
    """Search. Return words, parents, wanted successors, number of states, steps, the bad state and the violation."""
    first, second = np.empty(1 << 16, np.uint64), np.empty(1 << 16, np.uint64)
    parent, wanted = np.empty(1 << 16, np.int32), np.empty(1 << 16, np.int32)
    table = np.full(1 << 18, -1, np.int32)
    s, scratch = np.zeros(FIELDS, np.int64), np.zeros(FIELDS, np.int64)
    out, labels = np.zeros((STATES_MAX, FIELDS), np.int64), np.zeros(STATES_MAX, np.int64)
    first[0], second[0] = canonical(s, scratch)
    parent[0] = -1
    table[slot_of(first[0], second[0], np.uint64(table.size - 1))] = 0
    count, steps, i = 1, 0, 0
    while i < count:
        unpack(first[i], second[i], s)
        n = successors(s, m, out, labels)
        steps += n
        best, wanted[i] = 255, -1
        for k in range(n):
            violation = out[k][VIOLATION]
            wanted_by = rank(s, labels[k])
            a, b = canonical(out[k], scratch)
            mask = np.uint64(table.size - 1)
            at = slot_of(a, b, mask)
            while table[at] >= 0 and (first[table[at]] != a or second[table[at]] != b):
                at = (at + 1) & np.int64(mask)
            if table[at] < 0:
                if count == first.size:
                    first, second, parent, wanted = (
                        longer(first),
                        longer(second),
                        longer(parent),
                        longer(wanted),
                    )
                first[count], second[count], parent[count] = a, b, i
                table[at] = count
                count += 1
                if violation:
                    return first, second, parent, wanted, count, steps, count - 1, violation
            if wanted_by < best:
                best, wanted[i] = wanted_by, table[at]
            if 2 * count > table.size:
                table = grow(table, first, second, count)
        if finished(s):
            wanted[i] = i
        if count >= states_max:
            return first, second, parent, wanted, count, steps, -1, -1
        i += 1
    stuck = never_ends(wanted, count)
    return first, second, parent, wanted, count, steps, stuck, LIVELOCK if stuck >= 0 else 0


@jit
def never_ends(wanted, count):
    """Return a state from which the wanted steps do not lead to the end, or -1."""
    ends = np.zeros(count, np.uint8)  # 1: on the way that is followed now; 2: ends
    for start in range(count):
        at = start
        while ends[at] == 0:
            ends[at] = 1
            if wanted[at] < 0:
                return start
            if wanted[at] == at:
                ends[at] = 2
                break
            at = wanted[at]
        if ends[at] == 1:
            return start
        at = start
        while ends[at] == 1:
            ends[at] = 2
            at = wanted[at]
    return -1


@dataclass(frozen=True, slots=True)
class Searched:
    """Result of a search. `chain`: the packed states from the beginning to the bad one, empty without a violation."""

    states: int
    steps: int
    violation: int
    chain: tuple[tuple[int, int], ...]


STATES_MAX_ALL = 60_000_000


def search(mutant: int = 0, states_max: int = STATES_MAX_ALL) -> Searched:
    """Search the protocol without the rules of `mutant`, to the first violation, or to the end."""
    first, second, parent, _, count, steps, bad, violation = explore(mutant, states_max)
    if violation < 0:
        raise RuntimeError(f"more than {states_max} states")
    chain = []
    at = int(bad)
    while at >= 0 and violation:
        chain.append((int(first[at]), int(second[at])))
        at = int(parent[at])
    return Searched(int(count), int(steps), int(violation), tuple(reversed(chain)))
