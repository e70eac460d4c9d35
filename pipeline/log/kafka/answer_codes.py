"""What an error code in a broker's answer to a read means for a lane."""

from aiokafka.errors import (
    CorruptRecordException,
    NoError,
    OffsetOutOfRangeError,
    UnknownError,
    UnknownTopicOrPartitionError,
    for_code,
)

from adledger.pipeline.errors import LogError, OffsetOutOfRange

UNKNOWN_TOPIC_ID = (100, 103)
"""UNKNOWN_TOPIC_ID, INCONSISTENT_TOPIC_ID: the broker does not know the topic yet, or the topic was recreated."""

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
