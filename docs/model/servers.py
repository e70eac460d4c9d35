"""Kafka, ClickHouse and the network: everything they may do with what workers send.

A reply is delivered together with what it answers, or never: all it does is let its worker go on.
"""

from docs.model.mutants import (
    ANY_MEMBER, CURRENT_GENERATION, HALF, NO_DEADLINE, RESEND, TOKENS_ONLY, TORN_INSERTS,
)  # fmt: skip
from docs.model.state import (
    BY0, BY1, COMMIT, CONTENT, CURRENT, DELIVER, DERIVED, EVENTS, INSERT, LAST, LEDGER, MODE, NONE, OLD_INTENT,
    ON_WIRE, ORPHAN_COMMIT, ORPHAN_CURRENT, ORPHAN_FIELDS, ORPHANS, ORPHANS_MAX, P0, P1, PC, QUIESCE, QUIET0,
    REJUDGE, RUNNING, SEND_BY, SETTLE, START, TOKENS, TOO_SMALL, TORN, TWICE, VIOLATION, WAIT,
    WORKER_FIELDS, WORKERS, batch_of, jit, swapped,
)  # fmt: skip
from docs.model.steps import (
    ARRIVES, COMMIT_FENCED, COMMIT_LATE, COMMIT_LOST, COMMIT_OK, COMMIT_REFUSED, COMMIT_UNKNOWN,
    GIVEN_UP, GONE, KILLED, OLD_ARRIVES, OLD_KILLED, OLD_LOST, OLD_PUBLISHED, PUBLISHED, REBALANCE,
    RESENT, TICK, TOKEN_KNOWN, TOO_LATE, UNANSWERED, UNSYNCED, part_at, step, table_of,
)  # fmt: skip
from docs.model.worker import SOON, add_orphan, committed, doubt, insert_done, leave, not_quiet


@jit
def accept(t, partition, content, send_by, worker):
    """A partition stores an intent, with its deadline. `worker`: 1 or 2, who sent it; 0: nobody waits for it."""
    if batch_of(content) < batch_of(t[partition]):
        t[VIOLATION] = OLD_INTENT
    t[partition] = content
    t[BY0 + partition], t[QUIET0 + partition] = send_by, worker


@jit
def own_commit(s, n, out, labels, w, m):
    """A commit that its worker waits for: accepted, half accepted, refused, fenced, unanswered, given up."""
    at = WORKERS + w * WORKER_FIELDS
    content = s[at + CONTENT]
    if not s[at + CURRENT] and not m & (CURRENT_GENERATION | ANY_MEMBER):
        leave(step(s, n, out, labels, COMMIT_FENCED, w), at)
        return n + 1
    for partitions in range(1, 4):
        if partitions == 3 or m & HALF:
            t = step(s, n, out, labels, COMMIT_OK, w)
            taken(t, content, partitions, s[at + SEND_BY], w + 1)
            committed(t, at, m)
            n += 1
        if not (m & HALF) or partitions == 3:
            t = step(s, n, out, labels, COMMIT_UNKNOWN, w)
            taken(t, content, partitions, s[at + SEND_BY], 0 if m & RESEND else w + 1)
            if not m & RESEND:
                leave(t, at)
            n += 1
    t = step(s, n, out, labels, COMMIT_REFUSED, w)
    t[at + SEND_BY] = 0
    if s[at + MODE] == DELIVER:
        t[at + SEND_BY] = SOON  # the clock is read again, and the same intent sent
    else:
        t[at + PC] = QUIESCE if s[at + MODE] == SETTLE else WAIT
        if s[at + MODE] == REJUDGE:
            t[at + CONTENT], t[at + MODE] = swapped(content), SETTLE
    n += 1
    if m & RESEND and s[ORPHAN_COMMIT] == NONE:
        t = step(s, n, out, labels, RESENT, w)
        t[ORPHAN_COMMIT], t[ORPHAN_CURRENT] = content, s[at + CURRENT]
        n += 1
    return n


@jit
def taken(t, content, partitions, send_by, worker):
    """The first, the second or both partitions accept."""
    if partitions & 1:
        accept(t, P0, content, send_by, worker)
    if partitions & 2:
        accept(t, P1, content, send_by, worker)


@jit
def old_commit(s, n, out, labels, m):
    """An orphaned commit arrives late, or never."""
    if s[ORPHAN_COMMIT] == NONE:
        return n
    if s[ORPHAN_CURRENT] or m & ANY_MEMBER:
        for partitions in range(1, 4):
            t = step(s, n, out, labels, COMMIT_LATE, 0)
            taken(
                t, s[ORPHAN_COMMIT], partitions, 0, 0
            )  # nobody sends rows under it: no deadline is the worst case
            t[ORPHAN_COMMIT] = t[ORPHAN_CURRENT] = 0
            n += 1
    t = step(s, n, out, labels, COMMIT_LOST, 0)
    t[ORPHAN_COMMIT] = t[ORPHAN_CURRENT] = 0
    return n + 1


@jit
def rebalance(s, n, out, labels, w, m):
    """The group assigns the lane to a worker in a new generation; it may own it already, or be far behind."""
    t = step(s, n, out, labels, REBALANCE, w)
    at = WORKERS + w * WORKER_FIELDS
    abandon(t, at, m)
    t[at + PC], t[at + CURRENT] = START, 1
    t[WORKERS + (1 - w) * WORKER_FIELDS + CURRENT] = 0
    t[ORPHAN_CURRENT] = 0
    if not m & ANY_MEMBER:
        t[ORPHAN_COMMIT] = NONE  # whenever it comes, it is refused
    return n + 1


@jit
def abandon(t, at, m):
    """The worker dies, or stops this lane; its requests stay on their way."""
    if t[at + PC] == COMMIT and (t[at + CURRENT] or m & ANY_MEMBER):
        if t[ORPHAN_COMMIT] == NONE:
            t[ORPHAN_COMMIT], t[ORPHAN_CURRENT] = t[at + CONTENT], t[at + CURRENT]
        elif m == 0:
            t[VIOLATION] = TOO_SMALL
    if t[at + INSERT]:
        not_quiet(t, at, m)
        add_orphan(t, table_of(t[at + PC]), t[at + CONTENT], t[at + SEND_BY], t[at + INSERT], m)
    leave(t, at)


# ClickHouse


@jit
def publish(t, table, content):
    """The part of an insert appears: all rows at once."""
    at = part_at(table, batch_of(content))
    if t[at] != NONE:
        t[VIOLATION] = TWICE
    t[at] = content


@jit
def in_time(send_by, m):
    """The constraint `nowInBlock() <= send_by`."""
    return send_by > 0 or m & NO_DEADLINE != 0


@jit
def token_of(table, content):
    """Return the bit of an insert's token, which the server writes down before it publishes the part."""
    return 1 << (3 * (batch_of(content) - 1) + table - 1)


@jit
def own_insert(s, n, out, labels, w, m):
    """An insert that its worker waits for."""
    at = WORKERS + w * WORKER_FIELDS
    table, content = table_of(s[at + PC]), s[at + CONTENT]
    if s[at + INSERT] == ON_WIRE:
        token = token_of(table, content)
        if not in_time(s[at + SEND_BY], m):
            doubt(step(s, n, out, labels, TOO_LATE, w), at, m)
        elif m & TOKENS_ONLY and s[TOKENS] & token:
            insert_done(step(s, n, out, labels, TOKEN_KNOWN, w), at, m)
        else:
            t = step(s, n, out, labels, ARRIVES, w)
            t[at + INSERT] = RUNNING
            if m & TOKENS_ONLY:
                t[TOKENS] |= token
        n += 1
    else:
        t = step(s, n, out, labels, PUBLISHED, w)
        publish(t, table, content)
        insert_done(t, at, m)
        t = step(s, n + 1, out, labels, UNANSWERED, w)
        publish(t, table, content)
        doubt(t, at, m)
        t = step(s, n + 2, out, labels, KILLED, w)
        if m & TORN_INSERTS and table != LEDGER and s[part_at(table, batch_of(content))] == NONE:
            t[part_at(table, batch_of(content))] = TORN
        doubt(t, at, m)
        n += 3
    t = step(s, n, out, labels, GIVEN_UP, w)
    add_orphan(t, table, content, s[at + SEND_BY], s[at + INSERT], m)
    doubt(t, at, m)
    return n + 1


@jit
def old_inserts(s, n, out, labels, m):
    """Orphaned inserts arrive late or in time, run on, end or are killed."""
    for k in range(ORPHANS_MAX):
        at = ORPHANS + k * ORPHAN_FIELDS
        if s[at] == 0 or (k and same_orphans(s)):
            continue
        if s[at + 3] == ON_WIRE:
            token = token_of(s[at], s[at + 1])
            if in_time(s[at + 2], m) and not (m & TOKENS_ONLY and s[TOKENS] & token):
                t = step(s, n, out, labels, OLD_ARRIVES, 0)
                t[at + 2], t[at + 3] = 0, RUNNING
                if m & TOKENS_ONLY:
                    t[TOKENS] |= token
                n += 1
            t = step(s, n, out, labels, OLD_LOST, 0)
        else:
            t = step(s, n, out, labels, OLD_PUBLISHED, 0)
            publish(t, s[at], s[at + 1])
            clear_orphan(t, at)
            n += 1
            t = step(s, n, out, labels, OLD_KILLED, 0)
        clear_orphan(t, at)
        n += 1
    return n


@jit
def clear_orphan(t, at):
    """Forget an insert."""
    for k in range(ORPHAN_FIELDS):
        t[at + k] = 0


@jit
def same_orphans(s):
    """Whether both orphaned inserts are equal, so that one of them stands for both."""
    for k in range(ORPHAN_FIELDS):
        if s[ORPHANS + k] != s[ORPHANS + ORPHAN_FIELDS + k]:
            return False
    return True


@jit
def gone(s, n, out, labels, w, m):
    """A worker dies, ends the lane on request, or gives up a commit and leaves the group."""
    at = WORKERS + w * WORKER_FIELDS
    abandon(step(s, n, out, labels, GONE, w), at, m)
    return n + 1


@jit
def tick(s, n, out, labels, m):
    """A second passes on the server. Past deadlines stay past: an insert on the wire after its own is lost."""
    t = step(s, n, out, labels, TICK, 0)
    changed = False
    for w in range(2):
        at = WORKERS + w * WORKER_FIELDS
        for k in (SEND_BY, LAST):
            if t[at + k]:
                t[at + k] -= 1
                changed = True
    for k in (BY0, BY1):
        if t[k]:
            t[k] -= 1
            changed = True
    for k in range(ORPHANS_MAX):
        at = ORPHANS + k * ORPHAN_FIELDS
        if t[at + 2]:
            t[at + 2] -= 1
            changed = True
            if t[at + 2] == 0 and not m & NO_DEADLINE:
                clear_orphan(t, at)
    return n + 1 if changed else n


@jit
def unsynced(s, n, out, labels):
    """The server dies and an acknowledged part is gone, which fsync and quorums prevent."""
    for number in range(1, 3):
        for table in range(EVENTS, DERIVED + 1):
            if s[part_at(table, number)] != NONE:
                t = step(s, n, out, labels, UNSYNCED, 0)
                t[part_at(table, number)] = NONE
                n += 1
    return n
