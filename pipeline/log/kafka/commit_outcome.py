"""What the broker's answers to an OffsetCommit mean for the lane that sent it.

| answer of a partition | meaning | when all have it |
| --- | --- | --- |
| 0 | DONE | - |
| ILLEGAL_GENERATION, UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, REBALANCE_IN_PROGRESS | FENCED | CommitFenced |
| COORDINATOR_LOAD_IN_PROGRESS, OFFSET_METADATA_TOO_LARGE, UNKNOWN_TOPIC_OR_PARTITION, not authorised ... | NOT_DONE | CommitRefused |
| NOT_COORDINATOR, COORDINATOR_NOT_AVAILABLE, none, any other | UNKNOWN | CommitUnknown |

A mix of accepted and not accepted is CommitUnknown too; a mix of fenced and not done is CommitFenced.

NOT_COORDINATOR and COORDINATOR_NOT_AVAILABLE look like "ask another broker", and stock clients send the commit again. But
a broker also returns them for a commit that it *has* written but not seen replicated (its replicas were slow, or it lost
the partition meanwhile: Kafka's GroupMetadataManager.storeOffsets, CoordinatorRuntime), and the next coordinator may
treat that one as accepted. So the outcome is unknown.
"""

from collections.abc import Collection, Mapping
from enum import Enum

from adledger.pipeline.errors import CommitFenced, CommitRefused, CommitUnknown, LogError
from adledger.pipeline.log.kafka_admin.failures import RIGHTS_REMEDY

METADATA_BYTES_MAX = 4096
"""The brokers' `offset.metadata.max.bytes`, by default."""


class CommitAnswer(Enum):
    """What one partition's answer says about the commit."""

    DONE = "accepted"
    FENCED = "refused, the lane has another owner"
    NOT_DONE = "refused, certainly not done"
    UNKNOWN = "unknown"


NAMES: Mapping[int, tuple[str, CommitAnswer]] = {
    -1: ("UNKNOWN_SERVER_ERROR", CommitAnswer.UNKNOWN),
    0: ("NONE", CommitAnswer.DONE),
    3: ("UNKNOWN_TOPIC_OR_PARTITION", CommitAnswer.NOT_DONE),
    7: ("REQUEST_TIMED_OUT", CommitAnswer.UNKNOWN),
    12: ("OFFSET_METADATA_TOO_LARGE", CommitAnswer.NOT_DONE),
    14: ("COORDINATOR_LOAD_IN_PROGRESS", CommitAnswer.NOT_DONE),
    15: ("COORDINATOR_NOT_AVAILABLE", CommitAnswer.UNKNOWN),
    16: ("NOT_COORDINATOR", CommitAnswer.UNKNOWN),
    22: ("ILLEGAL_GENERATION", CommitAnswer.FENCED),
    24: ("INVALID_GROUP_ID", CommitAnswer.NOT_DONE),
    25: ("UNKNOWN_MEMBER_ID", CommitAnswer.FENCED),
    27: ("REBALANCE_IN_PROGRESS", CommitAnswer.FENCED),
    28: ("INVALID_COMMIT_OFFSET_SIZE", CommitAnswer.NOT_DONE),
    29: ("TOPIC_AUTHORIZATION_FAILED", CommitAnswer.NOT_DONE),
    30: ("GROUP_AUTHORIZATION_FAILED", CommitAnswer.NOT_DONE),
    82: ("FENCED_INSTANCE_ID", CommitAnswer.FENCED),
    88: ("UNSTABLE_OFFSET_COMMIT", CommitAnswer.UNKNOWN),
}
"""Kafka's error codes that OffsetCommit and OffsetFetch may answer with. Others are UNKNOWN."""

REMEDIES: Mapping[int, str] = {
    3: "create the topic, or name another in the settings (`adledger topics check`)",
    12: f"set the brokers' offset.metadata.max.bytes to {METADATA_BYTES_MAX} (Kafka's default) or more",
    14: "wait: the broker reads the group's offsets after its start",
    29: RIGHTS_REMEDY,
    30: RIGHTS_REMEDY,
}
LOOK = "look at the brokers' logs"

TopicAndPartition = tuple[str, int]


def error_name(code: int) -> str:
    """Return Kafka's name of an error code."""
    return NAMES[code][0] if code in NAMES else f"error code {code}"


def remedy(code: int) -> str:
    """Return what an operator can do about an error code."""
    return REMEDIES.get(code, LOOK)


def outcome(
    where: str, asked: Collection[TopicAndPartition], answers: Mapping[TopicAndPartition, int]
) -> LogError | None:
    """Return the error that the answers to one commit amount to, or None where every requested partition accepted it."""
    verdicts = {NAMES[answers[at]][1] if answers.get(at) in NAMES else CommitAnswer.UNKNOWN for at in asked}
    if verdicts == {CommitAnswer.DONE}:
        return None
    found = ", ".join(
        f"{topic} {error_name(answers[topic, partition]) if (topic, partition) in answers else 'no answer'}"
        for topic, partition in sorted(asked)
    )
    if verdicts & {CommitAnswer.DONE, CommitAnswer.UNKNOWN}:
        return CommitUnknown(
            f"{where}: whether the commit was accepted is unknown: {found}",
            remedy="the worker leaves the group and joins as a new member; if this keeps happening, look at the brokers' logs",
        )
    if CommitAnswer.FENCED in verdicts:
        return CommitFenced(
            f"{where}: the commit was refused: {found}", remedy="none: the lane has another owner"
        )
    return CommitRefused(
        f"{where}: the commit was refused: {found}", remedy=remedy(max(answers[at] for at in asked))
    )
