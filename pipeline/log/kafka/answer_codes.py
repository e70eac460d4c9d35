"""What an error code in a broker's answer to a read means for a lane."""

from collections.abc import Mapping

from aiokafka.errors import (
    CorruptRecordException,
    NoError,
    OffsetOutOfRangeError,
    UnknownError,
    UnknownTopicOrPartitionError,
    for_code,
)

from adledger.pipeline.errors import LogError, LogRewritten, OffsetOutOfRange

UNKNOWN_TOPIC_ID = (100, 103)
"""UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID: the broker does not know the topic yet, or the topic was recreated."""

FROM_THE_FIRST = 0
"""From where a log may be another one, where the broker does not know the stated leader epoch."""

UNREADABLE = (CorruptRecordException.errno, UnknownError.errno)
"""CORRUPT_MESSAGE, UNKNOWN_SERVER_ERROR: of a fetch, that the broker can't read what is at this offset.

Codes, not aiokafka's classes: it takes each code that it does not know, UNKNOWN_TOPIC_ID among them, for the latter.
"""


def raise_for_code(error_code: int, where: str, position: int) -> None:
    """Raise the error that an answer's code stands for: KafkaError where it is transient, OffsetOutOfRange, LogError."""
    kind = UnknownTopicOrPartitionError if error_code in UNKNOWN_TOPIC_ID else for_code(error_code)
    if kind is NoError:
        return
    if kind is OffsetOutOfRangeError:
        raise OffsetOutOfRange(
            f"{where}: the log does not hold offset {position}",
            remedy="Retention removed it, the log was truncated, or the topic was recreated: kafka-get-offsets.sh "
            "shows which offsets exist. Restore it; nothing is skipped automatically.",
        )
    if kind.retriable:
        raise kind(where)
    raise LogError(
        f"{where}: the broker refuses to read: {kind.__name__} ({kind.description})",
        remedy="Look at the broker's log; for missing rights, adledger doctor prints the commands that grant them.",
    )


def log_rewritten(
    lane: int, positions: Mapping[str, int], since: Mapping[str, int], index: Mapping[str, int]
) -> LogRewritten:
    """Return the error for a log that differs, from `since` on, from what was read before `positions`, all by topic."""
    what = (
        f"{name}-{lane}: the log was truncated: from offset {at} on it does not hold what was read before offset "
        f"{positions[name]}"
        if at != FROM_THE_FIRST
        else f"{name}-{lane}: the broker does not know the leader of what was read before offset {positions[name]}"
        for name, at in since.items()
    )
    return LogRewritten(
        "; ".join(what),
        since={index[name]: at for name, at in since.items()},
        remedy="Nothing to do yet: the lane compares the log with the ledger, and stops where they disagree.",
    )
