"""The worker's side of the protocol: `adledger.pipeline.lanes`, step by step (docs/exactly-once.md has the table).

What a worker is about to send is on the wire already: it may be as slow as it likes in between.
"""

from docs.model.mutants import (
    ANY_INTENT, BLIND, DERIVED_FIRST, FROM_MEMORY, LEDGER_FIRST, NEXT_EARLY, NO_DEADLINE, NO_INTENT,
    NO_QUIESCE, NO_RECOMMIT, NO_WAIT, OLD_DEADLINE, OWN_INTENT, PENDING_DONE, QUIESCE_FIRST, STALE_READS,
    TOKENS_ONLY,
)  # fmt: skip
from docs.model.state import (
    BY0, COMMIT, CONTENT, CURRENT, DELIVER, DERIVED, DERIVED_THERE, EVENTS, FIRST_DONE, IDLE, INSERT,
    INTEND, LAST, LEDGER, LOOK, LOST, MODE, NEXT, NONE, ON_WIRE, ORPHAN_FIELDS, ORPHANS, ORPHANS_MAX, P0,
    P1, PC, QUIESCE, QUIET0, READ0, READ1, READ_BEYOND, READ_LEDGER, RECHECK, REJUDGE, RUNNING, SEND_BY, SETTLE,
    START, STOPPED, TABLES, TOO_SMALL, TORN, VIOLATION, WAIT, WORKER_FIELDS, WORKERS, WRITE_DERIVED,
    WRITE_EVENTS, WRITE_LEDGER, X, Y, Z, batch_of, jit, judged_by, range_of,
)  # fmt: skip
from docs.model.steps import (
    INTENDS, LOOKS, QUIESCED, READS_AGAIN, READS_BEYOND, READS_COMMITS, READS_LEDGER,
    WAITED, finished, part_at, step,
)  # fmt: skip

DEADLINE_SECONDS = 1
SOON = DEADLINE_SECONDS + 1
"""A deadline that was read from the clock just now."""


@jit
def add_orphan(t, table, content, send_by, stage, m):
    """Note an orphaned insert, unless the server will refuse it; past its check it has no deadline."""
    if stage == ON_WIRE and send_by == 0 and not m & NO_DEADLINE:
        return
    for k in range(ORPHANS_MAX):
        at = ORPHANS + k * ORPHAN_FIELDS
        if t[at] == 0:
            t[at], t[at + 1], t[at + 3] = table, content, stage
            t[at + 2] = send_by if stage == ON_WIRE else 0
            return
    if m == 0:
        t[VIOLATION] = TOO_SMALL  # of a mutant, one more is lost


@jit
def leave(t, at):
    """The worker loses all its state."""
    for k in range(WORKER_FIELDS):
        t[at + k] = 0


@jit
def stop(t, at):
    """`LaneHalted`: an operator must decide. A worker that lost the lane while it looked halts until it learns that."""
    if t[at + CURRENT]:
        t[VIOLATION] = STOPPED
    leave(t, at)


@jit
def next_batch(t, at, done):
    """The worker goes on after a batch that is done, or from the beginning."""
    t[at + SEND_BY] = t[at + LAST] = t[at + INSERT] = t[at + MODE] = t[at + DERIVED_THERE] = 0
    if done == NONE:
        t[at + PC], t[at + CONTENT] = NEXT, NONE
    elif range_of(done) == X:
        t[at + PC], t[at + CONTENT] = NEXT, FIRST_DONE
    else:
        t[at + PC], t[at + CONTENT] = IDLE, NONE
        if not finished(t):
            t[VIOLATION] = LOST


@jit
def write(t, at, pc):
    """The worker sends an insert, with the deadline that it holds."""
    t[at + PC], t[at + INSERT] = pc, ON_WIRE


@jit
def not_quiet(t, at, m):
    """An insert of the worker has no OK: its rows may come until the deadline of the intent."""
    w = (at - WORKERS) // WORKER_FIELDS
    for k in range(2):
        if t[QUIET0 + k] == w + 1 and not m & OWN_INTENT:
            t[QUIET0 + k] = 0


@jit
def doubt(t, at, m):
    """The worker's insert failed, or its answer was lost."""
    t[at + INSERT] = 0
    not_quiet(t, at, m)
    if m & TOKENS_ONLY:
        t[at + SEND_BY], t[at + INSERT] = SOON, ON_WIRE
    elif t[at + MODE] == DELIVER:
        t[at + LAST], t[at + SEND_BY] = t[at + SEND_BY], 0
        t[at + PC] = QUIESCE if m & QUIESCE_FIRST else WAIT
    else:
        t[at + PC], t[at + SEND_BY] = (QUIESCE if m & QUIESCE_FIRST else WAIT), 0


@jit
def insert_done(t, at, m):
    """The worker gets OK: it goes on to the next table, or the batch is done."""
    pc, first_time = t[at + PC], t[at + MODE] == DELIVER
    content = t[at + CONTENT]
    t[at + INSERT] = 0
    if first_time and m & DERIVED_FIRST:
        following = WRITE_EVENTS if pc == WRITE_DERIVED else WRITE_LEDGER if pc == WRITE_EVENTS else 0
    elif first_time and m & LEDGER_FIRST:
        following = WRITE_EVENTS if pc == WRITE_LEDGER else WRITE_DERIVED if pc == WRITE_EVENTS else 0
    elif pc == WRITE_EVENTS and t[at + DERIVED_THERE]:
        following = WRITE_LEDGER
        if t[part_at(DERIVED, batch_of(content))] != content:
            stop(t, at)
            return
    else:
        following = pc + 1 if pc != WRITE_LEDGER else 0
    if following == WRITE_LEDGER and m & NEXT_EARLY:
        add_orphan(t, LEDGER, content, t[at + SEND_BY], ON_WIRE, m)
        next_batch(t, at, content)
    elif following:
        write(t, at, following)
    else:
        next_batch(t, at, content)


@jit
def committed(t, at, m):
    """The worker's commit was accepted on both partitions."""
    if t[at + MODE] == DELIVER:
        first = WRITE_DERIVED if m & DERIVED_FIRST else WRITE_LEDGER if m & LEDGER_FIRST else WRITE_EVENTS
        write(t, at, first)
    elif t[at + MODE] == SETTLE:
        t[at + PC], t[at + LAST] = LOOK, t[at + SEND_BY]
    else:
        if not m & OLD_DEADLINE:
            t[at + LAST] = t[at + SEND_BY]
        t[at + MODE] = SETTLE
        write(t, at, WRITE_EVENTS)


@jit
def intend(t, at, content, mode):
    """The worker read the clock just now, and commits."""
    t[at + PC], t[at + CONTENT], t[at + MODE], t[at + SEND_BY] = COMMIT, content, mode, SOON


@jit
def find_start(s, n, out, labels, w, m):
    """`recovery.find_start`: commits, ledger and what lies beyond, read one after the other."""
    at = WORKERS + w * WORKER_FIELDS
    pc = s[at + PC]
    if pc == START:
        t = step(s, n, out, labels, READS_COMMITS, w)
        t[at + READ0], t[at + READ1], t[at + PC] = s[P0], s[P1], READ_LEDGER
        t[at + LAST] = deadline_read(s, w)
        return n + 1
    if pc == READ_LEDGER:
        a, b = s[at + READ0], s[at + READ1]
        if batch_of(a) >= batch_of(b) or m & ANY_INTENT:
            agree(step(s, n, out, labels, READS_LEDGER, w), at, a, m)
            n += 1
        if b != a and (batch_of(b) >= batch_of(a) or m & ANY_INTENT):
            agree(step(s, n, out, labels, READS_LEDGER, w), at, b, m)
            n += 1
        return n
    if pc == READ_BEYOND:
        look_beyond(step(s, n, out, labels, READS_BEYOND, w), at)
        return n + 1
    t = step(s, n, out, labels, READS_AGAIN, w)  # RECHECK
    if s[at + READ0] == s[P0] and s[at + READ1] == s[P1]:
        stop(t, at)
        return n + 1
    t[at + PC], t[at + READ0], t[at + READ1], t[at + LAST] = START, NONE, NONE, 0
    return n + 1


@jit
def deadline_read(s, w):
    """The deadline of the intent with the highest batch number; none of one that this worker sent, if no insert is missing.

    That the worker may be dead and a new one has its name is the worst case: it skips a wait that it would not skip.
    """
    last = 0
    for k in range(2):
        highest = batch_of(s[P0 + k]) >= batch_of(s[P0 + 1 - k])
        if highest and s[QUIET0 + k] != w + 1:
            last = max(last, s[BY0 + k])
    return last


@jit
def agree(t, at, intent, m):
    """`_agree`: the intent is of the ledger's last batch, or of the next one and begins where it ends."""
    entry = t[TABLES + 5] if t[TABLES + 5] != NONE else t[TABLES + 2]
    done, number = batch_of(entry), batch_of(intent)
    if number == done and range_of(intent) == range_of(entry):
        t[at + PC], t[at + CONTENT], t[at + MODE] = READ_BEYOND, entry, DELIVER
    elif number == done + 1 and (done == 0 or range_of(entry) == X):
        t[at + PC], t[at + CONTENT], t[at + MODE] = READ_BEYOND, intent, SETTLE
        if m & PENDING_DONE:
            t[at + MODE] = DELIVER
    else:
        t[at + PC] = RECHECK


@jit
def look_beyond(t, at):
    """`_check_beyond`: no table has rows of a batch without ledger row or intent."""
    content, pending = t[at + CONTENT], t[at + MODE] == SETTLE
    for number in range(batch_of(content) + 1, 3):
        for table in range(EVENTS, LEDGER + 1):
            if t[part_at(table, number)] != NONE:
                t[at + PC], t[at + CONTENT], t[at + MODE] = RECHECK, NONE, DELIVER
                return
    t[at + READ0] = t[at + READ1] = NONE
    t[at + MODE] = DELIVER
    if pending:
        t[at + PC] = WAIT
    else:
        next_batch(t, at, content)


@jit
def settle(s, n, out, labels, w, m):
    """`Settlement.settle`: the wait, quiesce, the intent again, the look, and the missing inserts."""
    at = WORKERS + w * WORKER_FIELDS
    pc = s[at + PC]
    if pc == WAIT and (s[at + LAST] == 0 or m & NO_WAIT):
        t = step(s, n, out, labels, WAITED, w)
        t[at + LAST], t[at + PC] = 0, (INTEND if m & QUIESCE_FIRST else QUIESCE)
        return n + 1
    if pc == QUIESCE and (m & NO_QUIESCE or not any_running(s)):
        t = step(s, n, out, labels, QUIESCED, w)
        t[at + PC] = WAIT if m & QUIESCE_FIRST else INTEND
        return n + 1
    if pc == INTEND:
        t = step(s, n, out, labels, INTENDS, w)
        intend(t, at, s[at + CONTENT], SETTLE)
        if m & NO_RECOMMIT:
            committed(t, at, m)
        return n + 1
    if pc == LOOK:
        t = step(s, n, out, labels, LOOKS, w)
        number = batch_of(s[at + CONTENT])
        look(t, at, w, m, s[part_at(EVENTS, number)], s[part_at(DERIVED, number)], s[part_at(LEDGER, number)])
        n += 1
        if m & STALE_READS:
            look(step(s, n, out, labels, LOOKS, w), at, w, m, NONE, NONE, NONE)
            n += 1
    return n


@jit
def look(t, at, w, m, events, derived, ledger):
    """`batch_rows` and `_finish`: the stored rows decide what is inserted."""
    content = t[at + CONTENT]
    if m & BLIND:
        write(t, at, WRITE_EVENTS)
    elif ledger != NONE:
        next_batch(t, at, ledger)
    elif events == NONE:
        t[at + DERIVED_THERE] = derived != NONE
        mine = judged_by(range_of(content), w)
        if mine == content or m & NO_RECOMMIT:
            t[at + CONTENT] = mine
            write(t, at, WRITE_EVENTS)
        else:
            intend(t, at, mine, REJUDGE)
    else:
        if m & FROM_MEMORY and events != TORN:
            t[at + CONTENT] = judged_by(range_of(content), w)
        elif events != content or (derived != NONE and derived != events):
            stop(t, at)
            return
        write(t, at, WRITE_DERIVED if derived == NONE else WRITE_LEDGER)


@jit
def any_running(s):
    """Whether an insert of the lane runs on the server, whichever worker sent it."""
    for w in range(2):
        if s[WORKERS + w * WORKER_FIELDS + INSERT] == RUNNING:
            return True
    for k in range(ORPHANS_MAX):
        if s[ORPHANS + k * ORPHAN_FIELDS + 3] == RUNNING:
            return True
    return False


@jit
def intend_next(s, n, out, labels, w, m):
    """`Lane._deliver` and `Delivery.intend`: the next batch, with any cut, or with that of a refused commit."""
    at = WORKERS + w * WORKER_FIELDS
    for cut in (X, Y) if s[at + CONTENT] == NONE else (Z, Z):
        t = step(s, n, out, labels, INTENDS, w)
        intend(t, at, judged_by(cut, w), DELIVER)
        if m & NO_INTENT:
            committed(t, at, m)
        n += 1
        if cut == Z:
            break
    return n
