"""The rules of the protocol, each of which can be removed, and what must then go wrong.

Product code has no such switches. A rule whose absence alone does no harm is marked `holds`, and the model checks that too.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule that is removed. `holds`: nothing goes wrong without it, as long as all others are kept."""

    name: str
    bit: int
    lacks: str
    assumption: bool = False
    holds: bool = False


(
    NO_INTENT, PENDING_DONE, HALF, RESEND, CURRENT_GENERATION, ANY_MEMBER, NO_WAIT, NO_QUIESCE, QUIESCE_FIRST,
    NO_RECOMMIT, OLD_DEADLINE, BLIND, TOKENS_ONLY, FROM_MEMORY, DERIVED_FIRST, LEDGER_FIRST, NEXT_EARLY, NO_DEADLINE,
    TORN_INSERTS, NOT_DURABLE, STALE_READS, ANY_INTENT, OWN_INTENT,
) = (1 << i for i in range(23))  # fmt: skip

MUTANTS = (
    Mutant("no-intent", NO_INTENT, "nothing is committed before the insert"),
    Mutant("commit-is-done", PENDING_DONE, "an intent without a ledger row counts as a batch that is done"),
    Mutant("one-of-two-commits", HALF, "the insert follows when one of the two partitions accepted the intent"),
    Mutant("commit-sent-again", RESEND, "a commit of unknown outcome is sent again by the same member"),
    Mutant("current-generation", CURRENT_GENERATION,
           "a commit carries the generation that is current when it is sent (again), as a stock client's does"),
    Mutant("no-wait", NO_WAIT, "in doubt, the deadline is not waited for"),
    Mutant("own-intent", OWN_INTENT,
           "a worker that finds its own intent does not wait for the deadline, though an insert under it was not answered"),
    Mutant("no-quiesce", NO_QUIESCE, "in doubt, inserts that run on the server are not waited for"),
    Mutant("quiesce-before-wait", QUIESCE_FIRST, "running inserts are waited for first, then the deadline"),
    Mutant("no-recommit", NO_RECOMMIT, "in doubt, a new deadline is taken without committing the intent again"),
    Mutant("old-deadline", OLD_DEADLINE,
           "a batch that is evaluated again is written with a later deadline, and the next doubt waits for the earlier one"),
    Mutant("no-look", BLIND, "in doubt, the tables are not read, and everything is inserted again"),
    Mutant("token-alone", TOKENS_ONLY, "in doubt, the same insert is sent again with the same token until the server answers OK"),
    Mutant("from-memory", FROM_MEMORY, "after doubt, rollups and ledger are computed by this release, not from the stored events"),
    Mutant("derived-first", DERIVED_FIRST, "rollups are written before events"),
    Mutant("ledger-first", LEDGER_FIRST, "the ledger row is written before the rows that it vouches for"),
    Mutant("next-before-done", NEXT_EARLY, "the next intent is committed while the ledger row is still on its way"),
    Mutant("no-deadline", NO_DEADLINE, "the server accepts a block at any time", assumption=True),
    Mutant("no-fencing", ANY_MEMBER, "the broker accepts commits of any member and generation", assumption=True),
    Mutant("torn-insert", TORN_INSERTS, "an insert that is killed may leave some of its rows", assumption=True),
    Mutant("not-durable", NOT_DURABLE, "rows that were answered OK may be gone after the server's death", assumption=True),
    Mutant("stale-reads", STALE_READS, "a read may miss stored rows, as on a lagging replica", assumption=True),
    Mutant("any-intent", ANY_INTENT, "where the partitions carry different intents, either may be taken", holds=True),
)  # fmt: skip

BY_NAME = {mutant.name: mutant for mutant in MUTANTS}
