"""Every reason for which a lane halts, and the way out of each.

Errors, the event log, `adledger lane status` and docs/operations.md name a reason by its value, which is a stored name.
Nothing else halts a lane: while ClickHouse or the brokers are unavailable or refuse, lanes retry without limit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class HaltReason(StrEnum):
    """Why a lane halts."""

    OFFSETS_GONE = "offsets_gone"
    LOG_TRUNCATED = "log_truncated"
    BATCH_TRUNCATED = "batch_truncated"
    RECORDS_REPLACED = "records_replaced"
    TOPIC_RECREATED = "topic_recreated"
    PARTITIONS_ADDED = "partitions_added"
    PARTITIONS_UNRELATED = "partitions_unrelated"
    COMMITS_DISAGREE = "commits_disagree"
    COMMITS_UNREADABLE = "commits_unreadable"
    NEWER_INTENT = "newer_intent"
    ROWS_UNEXPLAINED = "rows_unexplained"
    ROWS_INCOMPLETE = "rows_incomplete"
    ROWS_UNVERIFIED = "rows_unverified"
    BATCH_UNREADABLE = "batch_unreadable"
    OUT_OF_MEMORY = "out_of_memory"
    BUG = "bug"


SKIP, RESOLVE, REPARTITION = "skip", "resolve", "repartition"
"""The commands of `adledger lane` that override."""


@dataclass(frozen=True, slots=True)
class WayOut:
    """What was found, and what lets the lane go on.

    `command` is the command of `adledger lane` that overrides; "" if no override would be right, and then `does` is the
    remedy. `to`: the operator names the position with --to. `passes`: the cause may pass, so the lane restarts a few
    times before it halts.
    """

    found: str
    command: str
    does: str
    to: bool = False
    passes: bool = False

    def pattern(self, lane: str = "N") -> str:
        """Return the command, without the deployment's flags, or ""."""
        if not self.command:
            return ""
        which = "" if self.command == REPARTITION else f" {lane}"
        return f"adledger lane {self.command}{which}" + (" --to TOPIC=OFFSET" if self.to else "")


WAYS_OUT: Mapping[HaltReason, WayOut] = {
    HaltReason.OFFSETS_GONE: WayOut(
        "retention removed records before the lane had read them", SKIP,
        "counts exactly the offsets that are gone as lost",
    ),
    HaltReason.LOG_TRUNCATED: WayOut(
        "the log ends before the ledger does", SKIP,
        "continues at the log's end, in a new epoch", passes=True,
    ),
    HaltReason.BATCH_TRUNCATED: WayOut(
        "the log ends within a batch that was intended", SKIP,
        "removes the batch's rows, if any, and reads on where the ledger ends", passes=True,
    ),
    HaltReason.RECORDS_REPLACED: WayOut(
        "the log was truncated and has grown again, with other records than the ledger's", SKIP,
        "continues after them, in a new epoch, and counts their offsets as lost",
    ),
    HaltReason.TOPIC_RECREATED: WayOut(
        "a topic was deleted and created again", SKIP,
        "reads the new topic from its first offset, in a new epoch; running workers must be restarted",
    ),
    HaltReason.PARTITIONS_ADDED: WayOut(
        "the topics have a multiple of the ledger's partitions", REPARTITION,
        "switches all lanes, with their windows; running workers must be restarted",
    ),
    HaltReason.PARTITIONS_UNRELATED: WayOut(
        "the topics have another number of partitions, not a multiple", SKIP,
        "switches the lane without the windows of its new users, so that repeated events may be billed again",
    ),
    HaltReason.COMMITS_DISAGREE: WayOut(
        "the group's commits do not match the ledger: they expired, were reset, or belong to another database", RESOLVE,
        "continues where the ledger ends",
    ),
    HaltReason.COMMITS_UNREADABLE: WayOut(
        "another program commits for the group", RESOLVE,
        "continues where the ledger ends",
    ),
    HaltReason.NEWER_INTENT: WayOut(
        "a newer release has intended a batch that this one can't read", "",
        "run that release, or a newer one: this one can't tell what to override",
    ),
    HaltReason.ROWS_UNEXPLAINED: WayOut(
        "the tables hold rows of a batch that has no intent", RESOLVE,
        "removes them",
    ),
    HaltReason.ROWS_INCOMPLETE: WayOut(
        "some rows of an intended batch are missing, or there are too many", RESOLVE,
        "removes them, and the batch is written again",
    ),
    HaltReason.ROWS_UNVERIFIED: WayOut(
        "an intended batch has rows of records that the log no longer has, or that can't be read", RESOLVE,
        "removes them, and the batch is cut again",
    ),
    HaltReason.BATCH_UNREADABLE: WayOut(
        "a record batch is damaged, or the broker can't read or return it", SKIP,
        "counts its offsets as lost", to=True, passes=True,
    ),
    HaltReason.OUT_OF_MEMORY: WayOut(
        "the worker lacks the memory for a batch", SKIP,
        "counts its offsets as lost; more memory for the worker loses nothing", to=True, passes=True,
    ),
    HaltReason.BUG: WayOut(
        "a bug: the log has its traceback", SKIP,
        "counts the batch's offsets as lost; a release without the bug loses nothing", to=True,
    ),
}  # fmt: skip


def override_command(reason: HaltReason, lane: int, to: Mapping[str, int] | None = None) -> str:
    """Return the command that shows the override for a lane, complete except for the deployment's flags.

    `to`: topic -> the offset at which to go on; None if the operator has to find it.
    """
    pattern = WAYS_OUT[reason].pattern(str(lane))
    if to:
        positions = " ".join(f"--to {topic}={offset}" for topic, offset in to.items())
        pattern = pattern.replace("--to TOPIC=OFFSET", positions)
    return f"{pattern} --reason TEXT --dry-run"
