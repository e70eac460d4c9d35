"""A counterexample in words: each worker's steps, and the contents of log and server after them."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from docs.model.search import Searched, successors
from docs.model.state import (
    CONTENT, DISAGREE, FIELDS, GAP, LIVELOCK, LOST, OLD_INTENT, ON_WIRE, ORPHAN_COMMIT, ORPHAN_FIELDS,
    ORPHANS, ORPHANS_MAX, P0, P1, PARTLY, PC, STOPPED, TOO_SMALL, TWICE, WORKER_FIELDS, WORKERS,
    WRITE_EVENTS, WRITE_LEDGER, canonical,
)  # fmt: skip
from docs.model.steps import (
    COMMIT_LATE, COMMIT_LOST, INTENDS, OLD_ARRIVES, OLD_KILLED, OLD_LOST, OLD_PUBLISHED, STATES_MAX,
    TICK, UNSYNCED, part_at, table_of,
)  # fmt: skip

State = npt.NDArray[np.int64]
Words = tuple[int, int]

WITHOUT_WORKER = {TICK, COMMIT_LATE, COMMIT_LOST, OLD_ARRIVES, OLD_KILLED, OLD_LOST, OLD_PUBLISHED, UNSYNCED}
"""Steps that are no worker's."""

WRONG = {
    TWICE: "a table holds a batch's rows twice",
    PARTLY: "the ledger has a batch whose rows are not all there: they are lost",
    DISAGREE: "the tables of one batch disagree",
    GAP: "batch 2 is written, and the ledger does not have the batch that it follows",
    OLD_INTENT: "an older intent has overwritten a newer one",
    STOPPED: "the lane halts, though nothing was damaged",
    LOST: "the lane has gone on to its end, and the ledger lacks a batch: it is lost",
    TOO_SMALL: "more requests are on their way than this model has room for",
    LIVELOCK: "from here the lane never comes to its end, though nothing more goes wrong",
}

CONTENTS = (
    "-", "1:X/A", "1:X/B", "1:Y/A", "1:Y/B", "2:Z/A", "2:Z/B", "torn",
)  # fmt: skip
"""Batch number, what is in it (X: record 1, Y: records 1 and 2, Z: record 2), and which worker's release evaluated it."""

TABLE_NAMES = ("", "events", "derived", "ledger")
STEP_TEXTS = (
    "a second passes", "is assigned the lane, in a new generation", "dies, or ends the lane: what it sent stays on its way",
    "reads the commits", "reads the ledger", "looks for rows beyond", "finds a mismatch, and reads the commits again",
    "intends {content}: reads the clock, and sends a commit", "learns that its intent {content} was accepted",
    "gets no answer to its commit, leaves, and will join as a new member",
    "learns that its commit was refused, and nothing done", "learns that it is fenced", "an old commit arrives",
    "an old commit is lost", "{table} {content}: arrives in time, and runs", "{table} {content}: too late, refused",
    "{table} {content}: published, OK", "{table} {content}: published, the answer is lost",
    "{table} {content}: killed while it ran", "{table} {content}: gives it up, but it may still arrive",
    "an old insert arrives in time, and runs", "an old insert is lost", "an old insert is published",
    "an old insert is killed while it ran", "has waited for the deadline",
    "sees no insert of the lane running", "reads the rows of batch {content}", "sends its commit again",
    "{table} {content}: the server knows its token, and answers OK", "the server dies, and has lost rows that it had answered for",
)  # fmt: skip
"""Text of each kind of step (docs.model.steps)."""


def trace(searched: Searched, mutant: int) -> Iterator[str]:
    """Yield the lines of a counterexample."""
    before: tuple[str, ...] = ()
    for number, (s, after, label) in enumerate(_states(searched.chain, mutant)):
        yield f"{number:3}  {_described(s, after, label)}"
        now = tuple(_contents(after))
        yield from (f"{'':9}{line}" for line in now if line not in before)
        before = now
    yield f"  => {WRONG[searched.violation]}"


def _states(chain: Sequence[Words], mutant: int) -> Iterator[tuple[State, State, int]]:
    """Yield (before, after, label), with constant names of workers, which the search exchanges."""
    s, scratch = np.zeros(FIELDS, np.int64), np.zeros(FIELDS, np.int64)
    out, labels = np.zeros((STATES_MAX, FIELDS), np.int64), np.zeros(STATES_MAX, np.int64)
    for wanted in chain[1:]:
        n = successors(s, mutant, out, labels)
        found = next(k for k in range(n) if _words(out[k], scratch) == wanted)
        after = out[found].copy()
        yield s, after, int(labels[found])
        s = after


def _words(s: State, scratch: State) -> Words:
    first, second = canonical(s, scratch)
    return int(first), int(second)


def _described(s: State, after: State, label: int) -> str:
    """Return the step in words."""
    what, w = divmod(label, 2)
    at = WORKERS + w * WORKER_FIELDS
    state = after if what == INTENDS else s
    content = CONTENTS[state[at + CONTENT]]
    table = TABLE_NAMES[table_of(s[at + PC])] if WRITE_EVENTS <= s[at + PC] <= WRITE_LEDGER else ""
    who = "" if what in WITHOUT_WORKER else f"{'AB'[w]}: "
    return who + STEP_TEXTS[what].format(content=content, table=table)


def _contents(s: State) -> Iterator[str]:
    """Yield the contents of Kafka and the server, and the requests on their way."""
    yield f"commits    {CONTENTS[s[P0]]}, {CONTENTS[s[P1]]}"
    for number in (1, 2):
        rows = [CONTENTS[s[part_at(table, number)]] for table in (1, 2, 3)]
        if number == 1 or set(rows) != {"-"}:
            yield f"tables, {number}  events {rows[0]}, derived {rows[1]}, ledger {rows[2]}"
    if s[ORPHAN_COMMIT]:
        yield f"old        commit {CONTENTS[s[ORPHAN_COMMIT]]}"
    for k in range(ORPHANS_MAX):
        table, content, left, stage = s[ORPHANS + k * ORPHAN_FIELDS :][:ORPHAN_FIELDS]
        if table:
            where = f"on the wire, {_seconds(left)}" if stage == ON_WIRE else "running"
            yield f"old        {TABLE_NAMES[table]} {CONTENTS[content]}, {where}"


def _seconds(left: int) -> str:
    return "past its deadline" if left == 0 else f"{left - 1} s before its deadline"
