"""A record batch that can't be read: how it shows, and where it ends.

The checksum covers neither a batch's length nor its base offset, and what it covers can't be trusted where it does not match.
So a damaged batch ends where the next undamaged one begins, if an answer holds one; and a batch whose own offsets reach into
the one after it counts as damaged too, since brokers find batches by these offsets, and would skip one of the two in silence.
"""

from collections.abc import Iterator
from contextlib import suppress

import numpy as np

from adledger.pipeline.errors import LogError, UnreadableBatch
from adledger.pipeline.log.kafka.codecs import U8
from adledger.pipeline.log.kafka.progress import whole_batch_bytes
from adledger.pipeline.records.batch_format import HEADER_BYTES, MAGIC, NUMBER_MAX
from adledger.pipeline.records.record_batch import BatchHeader, checksum_matches, parse_header

_LENGTH_AT, _MAGIC_AT, _LAST_DELTA_AT = 8, 16, 23


class OutOfOrder(LogError):  # noqa: N818
    """A whole batch and the one after it contradict each other."""


def checked(buffer: U8, data: bytes, at: int, size: int, where: str) -> BatchHeader:
    """Return a batch's header. Raises LogError: it is damaged, or of an old format."""
    header = _header(data, at, size, where)
    _check_whole(buffer, at, header, where)
    return header


def _whole(buffer: U8, data: bytes, at: int, where: str) -> Iterator[BatchHeader]:
    """Yield the headers of the undamaged batches from `at` on, as far as lengths lead from one to the next."""
    while (size := whole_batch_bytes(data, at)) >= HEADER_BYTES:
        with suppress(LogError):
            yield checked(buffer, data, at, size, where)
        at += size


def is_whole(data: bytes, offset: int, where: str) -> bool:
    """Return whether an answer's batches, the first of them undamaged, go beyond an offset."""
    size = whole_batch_bytes(data, 0)
    buffer = np.frombuffer(data, np.uint8)
    with suppress(LogError):
        return bool(size) and checked(buffer, data, 0, size, where).next_offset > offset
    return False


def check_order(buffer: U8, data: bytes, after: int, header: BatchHeader, where: str) -> None:
    """Raise OutOfOrder where a batch and the next one share offsets: no checksum covers the base offset of either.

    A next one that is damaged says nothing about this one; one that is cut off does, if it has a header.
    """
    following = int.from_bytes(data[after : after + _LENGTH_AT], "big")
    if following >= header.next_offset or len(data) - after < HEADER_BYTES:
        return
    size = whole_batch_bytes(data, after)
    try:
        checked(buffer, data, after, size, where) if size else parse_header(data, after, where)
    except LogError:
        return
    raise OutOfOrder(
        f"{where}: the record batch at offset {header.base_offset} goes up to {header.next_offset - 1}, and the next one "
        f"begins at {following}: one of the two offsets is damaged",
        remedy="The log is damaged; restore it from its source.",
    )


def ends_before(buffer: U8, data: bytes, after: int, position: int, where: str) -> bool:
    """Return whether a damaged batch ends before a position, whatever its header says: a whole one after it begins there."""
    later = next((h for h in _whole(buffer, data, after, where) if h.next_offset > position), None)
    return later is not None and later.base_offset <= position


def damaged(
    error: LogError, buffer: U8, data: bytes, at: int, size: int, position: int, where: str, topic: int
) -> UnreadableBatch:
    """Return the error for a damaged batch. It ends where the next whole one begins; its own header only says where it might."""
    later = _whole(buffer, data, at + size, where)
    begins = next((h.base_offset for h in later if h.base_offset > position), None)
    if begins is not None:
        return unreadable(error, where, topic, position, begins)
    last = int.from_bytes(data[at + _LAST_DELTA_AT : at + _LAST_DELTA_AT + 4], "big", signed=True)
    own = int.from_bytes(data[at : at + _LENGTH_AT], "big") + last + 1
    end = own if position < own < NUMBER_MAX else position + 1
    return unreadable(error, where, topic, position, end, end_guessed=True)


def _check_whole(buffer: U8, at: int, header: BatchHeader, where: str) -> None:
    if not checksum_matches(buffer, at, header):
        raise LogError(
            f"{where}: the record batch at offset {header.base_offset} is damaged: its checksum does not match",
            remedy="check the broker's disk and the network",
        )


def unreadable(
    error: LogError | MemoryError, where: str, topic: int, start: int, end: int, *, end_guessed: bool = False
) -> UnreadableBatch:
    """Return the error for a batch that can't be read, up to `end`."""
    if isinstance(error, LogError):
        return UnreadableBatch(
            error.message, topic=topic, start=start, end=end, end_guessed=end_guessed, remedy=error.remedy
        )
    return UnreadableBatch(
        f"{where}: there is no memory to decode the record batch at offset {start}",
        topic=topic, start=start, end=end, no_memory=True, remedy="give the worker more memory, or fewer lanes",
    )  # fmt: skip


def _header(data: bytes, at: int, size: int, where: str) -> BatchHeader:
    if size > _MAGIC_AT and 0 <= data[at + _MAGIC_AT] < MAGIC:
        raise LogError(
            f"{where}: records of message format {data[at + _MAGIC_AT]}, from before Kafka 0.11",
            remedy="Copy the topic with a current producer (its records then have format 2), or begin after them: "
            "kafka-consumer-groups.sh --reset-offsets.",
        )
    if size < HEADER_BYTES:
        raise LogError(
            f"{where}: a record batch of {size} bytes, less than a header's",
            remedy="The log is damaged; restore it from its source.",
        )
    return parse_header(data, at, where)
