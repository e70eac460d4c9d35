"""The rules of the protocol, each of which can be taken out, and what must then go wrong.

Product code has no such switches. A *variant* is a rule whose absence does no harm by itself: the model says so too.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule taken out. `holds`: nothing goes wrong without it, as long as all others are there."""

    name: str
    bit: int
    lacks: str
    assumption: bool = False
    holds: bool = False


(
    NO_INTENT, PENDING_DONE, HALF, RESEND, CURRENT_GENERATION, ANY_MEMBER, NO_WAIT, NO_QUIESCE, QUIESCE_FIRST,
    NO_RECOMMIT, OLD_DEADLINE, BLIND, TOKENS_ONLY, FROM_MEMORY, DERIVED_FIRST, LEDGER_FIRST, NEXT_EARLY, NO_DEADLINE,
    TORN_INSERTS, NOT_DURABLE, STALE_READS, ANY_INTENT,
) = (1 << i for i in range(22))  # fmt: skip

MUTANTS = (
    Mutant("no-intent", NO_INTENT, "nothing is committed before the insert"),
    Mutant("commit-is-done", PENDING_DONE, "an intent without a ledger row counts as a batch that is done"),
    Mutant("one-of-two-commits", HALF, "the insert follows when one of the two partitions accepted the intent"),
    Mutant("commit-sent-again", RESEND, "after a commit of unknown outcome: sent again, by the same member"),
    Mutant("current-generation", CURRENT_GENERATION,
           "a commit carries the generation that is current when it is sent (again), as a stock client's does"),
    Mutant("no-wait", NO_WAIT, "in doubt, nobody waits for the deadline"),
    Mutant("no-quiesce", NO_QUIESCE, "in doubt, nobody waits for inserts that run on the server"),
    Mutant("quiesce-before-wait", QUIESCE_FIRST, "running inserts are looked for first, then the deadline is waited for"),
    Mutant("no-recommit", NO_RECOMMIT, "in doubt, a new deadline is taken without committing the intent again"),
    Mutant("old-deadline", OLD_DEADLINE,
           "a batch that is judged anew is written by a later deadline, the next doubt waits for the one before"),
    Mutant("no-look", BLIND, "in doubt, nobody looks what is there: everything is inserted again"),
    Mutant("token-alone", TOKENS_ONLY, "in doubt, the same insert again, with the same token, until the server says OK"),
    Mutant("from-memory", FROM_MEMORY, "after doubt, rollups and ledger are made of what this release computes"),
    Mutant("derived-first", DERIVED_FIRST, "rollups are written before events"),
    Mutant("ledger-first", LEDGER_FIRST, "the ledger row is written before the rows that it vouches for"),
    Mutant("next-before-done", NEXT_EARLY, "the next intent is committed while the ledger row is still on its way"),
    Mutant("no-deadline", NO_DEADLINE, "the server accepts a block whenever it comes", assumption=True),
    Mutant("no-fencing", ANY_MEMBER, "the broker accepts commits of any member and generation", assumption=True),
    Mutant("torn-insert", TORN_INSERTS, "an insert that is killed may leave some of its rows", assumption=True),
    Mutant("not-durable", NOT_DURABLE, "rows that were answered OK may be gone after the server's death", assumption=True),
    Mutant("stale-reads", STALE_READS, "a look may miss rows that are there, as on a replica that lags", assumption=True),
    Mutant("any-intent", ANY_INTENT, "where the partitions carry different intents, either may be taken", holds=True),
)  # fmt: skip

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}
