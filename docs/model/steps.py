"""Steps, each recorded as a copy of the state with a label."""

import numpy as np

from docs.model.state import (
    DISAGREE, EVENTS, GAP, NONE, PARTLY, TABLES, TORN, VIOLATION, WRITE_EVENTS, X, Y, jit, range_of,
)  # fmt: skip

(TICK, REBALANCE, GONE, READS_COMMITS, READS_LEDGER, READS_BEYOND, READS_AGAIN, INTENDS, COMMIT_OK, COMMIT_UNKNOWN,
 COMMIT_REFUSED, COMMIT_FENCED, COMMIT_LATE, COMMIT_LOST, ARRIVES, TOO_LATE, PUBLISHED, UNANSWERED,
 KILLED, GIVEN_UP, OLD_ARRIVES, OLD_LOST, OLD_PUBLISHED, OLD_KILLED, WAITED, QUIESCED, LOOKS,
 RESENT, TOKEN_KNOWN, UNSYNCED) = range(30)  # fmt: skip
"""What a step is; its label is 2 * what + worker, 0 for A or nobody, 1 for B."""

STATES_MAX = 64
"""No state has more successors."""

STEPS = np.zeros(30, np.bool_)
"""Of a worker that owns the lane: its own steps, and the outcome of its requests when nothing goes wrong."""
STEPS[[READS_COMMITS, READS_LEDGER, READS_BEYOND, READS_AGAIN, INTENDS, COMMIT_OK, ARRIVES, TOO_LATE, PUBLISHED,
       WAITED, QUIESCED, LOOKS]] = True  # fmt: skip


@jit
def step(s, n, out, labels, what, worker):
    """Begin a successor: a copy of `s` that the caller changes."""
    t = out[n]
    for i in range(s.size):
        t[i] = s[i]
    labels[n] = 2 * what + worker
    return t


@jit
def part_at(table, batch):
    """Return the field of a table's rows of a batch."""
    return TABLES + 3 * (batch - 1) + table - 1


@jit
def table_of(pc):
    """Return the table that a worker writes."""
    return pc - WRITE_EVENTS + EVENTS


@jit
def finished(s):
    """Whether both records are in the ledger."""
    return range_of(s[TABLES + 2]) == Y or s[TABLES + 5] != NONE


@jit
def check(t):
    """Note a violation in the tables that readers trust, up to the ledger."""
    for n in range(2):
        events, derived, ledger = t[TABLES + 3 * n], t[TABLES + 3 * n + 1], t[TABLES + 3 * n + 2]
        if ledger != NONE:
            if events == NONE or events == TORN or derived == NONE or derived == TORN:
                t[VIOLATION] = PARTLY
            elif events != ledger or derived != ledger:
                t[VIOLATION] = DISAGREE
    if (t[TABLES + 3] or t[TABLES + 4] or t[TABLES + 5]) and range_of(t[TABLES + 2]) != X:
        t[VIOLATION] = GAP
