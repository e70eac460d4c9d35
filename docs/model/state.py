"""The model's state: small numbers in a vector, packed into two 64-bit words, two workers alike.

A *content* says what a batch is: its number, its range of the log of two records, and the release (worker) that
evaluated it. Batch 1 is either record 1 (X) or both records (Y), depending on how its owner cut it; after X comes batch 2
with record 2 (Z). Codes: 0 none, 1 X by A, 2 X by B, 3 Y by A, 4 Y by B, 5 Z by A, 6 Z by B, 7 torn (rows of a part of it).

Time is relative: a deadline is the number of seconds until it, plus one; 0 is past forever. So clocks are unbounded.
Generations are relative too: an assignment is the current one or never again. So rebalances are unbounded too.
"""

import numba
import numpy as np

jit = numba.njit(cache=False, boundscheck=False)

NONE, X, Y, Z, TORN = 0, 1, 3, 5, 7

# What survives every worker: the group's commits on two partitions, and the tables by batch number.
P0, P1 = 0, 1
TABLES = 2  # events 1, derived 1, ledger 1, events 2, derived 2, ledger 2
TOKENS = 8  # token log of the server, a bit for each table and batch; only where a mutant uses tokens
# Orphans, on their way without a worker that waits for them: a commit, and two inserts (table, content, deadline, stage).
ORPHAN_COMMIT, ORPHAN_CURRENT = 9, 10
ORPHANS, ORPHAN_FIELDS = 11, 4
ORPHANS_MAX = 2
VIOLATION = 19
# Of each commit: its deadline, and the worker (1 A, 2 B) that sent it and got OK for each insert under it.
BY0, BY1, QUIET0, QUIET1 = 20, 21, 22, 23
WORKERS, WORKER_FIELDS = 24, 10
(PC, CURRENT, CONTENT, SEND_BY, LAST, INSERT, MODE, DERIVED_THERE, READ0, READ1) = range(WORKER_FIELDS)
FIELDS = WORKERS + 2 * WORKER_FIELDS

BITS = np.array(
    [3, 3, *[3] * 6, 6, 3, 1, *[2, 3, 2, 2] * 2, 4, *[2] * 4, *[5, 1, 3, 2, 2, 2, 2, 1, 3, 3] * 2], np.uint64
)
"""Width of each field; those before WORKERS are the first word, the others the second."""

EVENTS, DERIVED, LEDGER = 1, 2, 3
"""`derived` stands for dead_letters and rollup_minute, which the code treats alike, one after the other."""

ON_WIRE, RUNNING = 1, 2
"""An insert's stage: not at the server; past the deadline's check, its part not published."""

DELIVER, SETTLE, REJUDGE = 0, 1, 2
"""Why a worker commits or writes: first time; in doubt; in doubt, with the batch as its own release computes it."""

(OUT, START, READ_LEDGER, READ_BEYOND, RECHECK, NEXT, COMMIT, WRITE_EVENTS, WRITE_DERIVED, WRITE_LEDGER,
 WAIT, QUIESCE, INTEND, LOOK, IDLE) = range(15)  # fmt: skip
"""Where a worker is. OUT: dead, restarted, revoked, or left to join again: it has no state."""

FIRST_DONE = 7
"""A worker's content in NEXT: batch 1 (X) is done, Z is next."""

(FINE, TWICE, PARTLY, DISAGREE, GAP, OLD_INTENT, STOPPED, LOST, TOO_SMALL, LIVELOCK) = range(10)
"""What is wrong. TOO_SMALL is an error of this model, which lacks room for what happens. LIVELOCK is found by the search."""


@jit
def batch_of(content):
    """Return the batch number of a content, 0 for none."""
    if content == NONE:
        return 0
    return 2 if content in (5, 6) else 1


@jit
def range_of(content):
    """Return X, Y, Z or NONE."""
    return NONE if content == NONE else ((content - 1) & 6) + 1


@jit
def judged_by(content, worker):
    """Return the same batch as a worker's release evaluates it."""
    return range_of(content) + worker


@jit
def swapped(content):
    """Return a content with the workers' names exchanged."""
    return content if content in (NONE, TORN) else ((content - 1) ^ 1) + 1


@jit
def pack(s):
    """Return a state as two words."""
    first, second = np.uint64(0), np.uint64(0)
    for i in range(WORKERS):
        first = (first << BITS[i]) | np.uint64(s[i])
    for i in range(WORKERS, FIELDS):
        second = (second << BITS[i]) | np.uint64(s[i])
    return first, second


@jit
def unpack(first, second, s):
    """Fill a state from two words."""
    one = np.uint64(1)
    for i in range(WORKERS - 1, -1, -1):
        s[i] = first & ((one << BITS[i]) - one)
        first >>= BITS[i]
    for i in range(FIELDS - 1, WORKERS - 1, -1):
        s[i] = second & ((one << BITS[i]) - one)
        second >>= BITS[i]


@jit
def sort_orphans(s):
    """Sort the two orphaned inserts, since their order has no meaning."""
    a, b = ORPHANS, ORPHANS + ORPHAN_FIELDS
    for k in range(ORPHAN_FIELDS):
        if s[a + k] != s[b + k]:
            if s[a + k] < s[b + k]:
                for j in range(ORPHAN_FIELDS):
                    s[a + j], s[b + j] = s[b + j], s[a + j]
            return


@jit
def swap_workers(s, to):
    """Fill `to` with the state in which A is named B and B is named A, and so are their releases."""
    for i in range(WORKERS):
        to[i] = s[i]
    for i in range(P0, TABLES + 6):
        to[i] = swapped(s[i])
    for i in (QUIET0, QUIET1):
        to[i] = 3 - s[i] if s[i] else 0
    to[ORPHAN_COMMIT] = swapped(s[ORPHAN_COMMIT])
    for k in range(ORPHANS_MAX):
        to[ORPHANS + k * ORPHAN_FIELDS + 1] = swapped(s[ORPHANS + k * ORPHAN_FIELDS + 1])
    for w in range(2):
        here, there = WORKERS + w * WORKER_FIELDS, WORKERS + (1 - w) * WORKER_FIELDS
        for k in range(WORKER_FIELDS):
            to[there + k] = s[here + k]
        to[there + CONTENT] = swapped(s[here + CONTENT])  # FIRST_DONE, as TORN, is nobody's
        to[there + READ0] = swapped(s[here + READ0])
        to[there + READ1] = swapped(s[here + READ1])
    sort_orphans(to)


@jit
def canonical(s, scratch):
    """Return the words of a state and of its mirror image, whichever are smaller. Sorts `s`.

    Sound, because nothing in the protocol or in what must hold depends on a worker's name.
    """
    sort_orphans(s)
    first, second = pack(s)
    swap_workers(s, scratch)
    mirrored_first, mirrored_second = pack(scratch)
    if mirrored_first < first or (mirrored_first == first and mirrored_second < second):
        return mirrored_first, mirrored_second
    return first, second
