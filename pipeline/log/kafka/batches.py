"""From the bytes of a fetch to encoded batches: complete, checked, decompressed, and committed.

A broker sends a partition's record batches in sequence, the last one possibly cut off. With isolation `read_committed`
it also names the aborted transactions among them (producer id, first offset): a producer's transactional batches are
left out from there until its abort marker. Markers (control batches) and batches that compaction emptied bring no
records, but move the next offset.

Producers are not trusted. A batch with a correct checksum whose bytes contradict its header is the producer's fault: it
is passed on as unreadable and becomes a dead letter. Anything that the bytes alone do not decide (a wrong checksum, no
memory) is an error, never a dead letter.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.kafka.codecs import U8, Arena, UndecodableError
from adledger.pipeline.log.kafka.damage import (
    OutOfOrder,
    check_order,
    checked,
    damaged,
    ends_before,
    unreadable,
)
from adledger.pipeline.log.kafka.progress import whole_batch_bytes
from adledger.pipeline.log.leader_epochs import EpochRun
from adledger.pipeline.records.batch_format import (
    HEADER_BYTES,
    read_varint,
)
from adledger.pipeline.records.encoded import NO_APPEND_TIME, READ_AHEAD_BYTES, EncodedBatch
from adledger.pipeline.records.record_batch import (
    BatchHeader,
    base_time,
    is_readable,
)
from adledger.schemas.wire import BATCH_BYTES_MAX

_CODEC_MASK = 0x07

DECODED_BYTES_MAX = 64 << 20
"""A fetch yields no further batches once the decoded ones take this much memory: the rest is fetched again."""
RECORD_REF_BYTES = 64
"""Memory per record in addition to its bytes, at most: its row of references."""
_NOTHING: U8 = np.zeros(READ_AHEAD_BYTES, np.uint8)
_ABORT = b"\x00\x00"
"""The type in a marker's key, after its version (both i16): 0 abort, 1 commit."""


@dataclass(frozen=True, slots=True)
class DecodedBatches:
    """Batches with records for us, in offset order, and the position after all that was read.

    `epochs` are the leader epochs of all batches that were read, with or without records for us.
    """

    batches: tuple[EncodedBatch, ...]
    next_offset: int
    epochs: tuple[EpochRun, ...] = ()


LogTime = Literal["append", "record"]
"""Which time of a record is its log time: the broker's append time, or the record's own."""


def decode_batches(
    data: bytes, position: int, aborted: Iterable[tuple[int, int]], log_time: LogTime, where: str,
    room_bytes_max: int = BATCH_BYTES_MAX, topic: int = 0,
) -> DecodedBatches:  # fmt: skip
    """Decode one partition's bytes from a fetch at `position`; batches that end before it are skipped.

    `aborted` are (producer id, first offset); `where` names the partition ("ad.clicks-7"). Batches beyond
    DECODED_BYTES_MAX are left for the next fetch, and so is one that can't be read. Raises UnreadableBatch where the first
    can't: a checksum that does not match, a format older than Kafka 0.11's, an impossible header, offsets that reach into
    the batch after it, no append time where that is the log time; or there is no memory, or the batch needs more than
    `room_bytes_max` decompressed.
    """
    buffer = np.frombuffer(data, np.uint8)
    transactions = _Aborted(aborted)
    arena = Arena(len(data), room_bytes_max)
    batches = []
    epochs = []
    at, next_offset, taken = 0, position, 0
    while taken < DECODED_BYTES_MAX and (size := whole_batch_bytes(data, at)):
        try:
            header = checked(buffer, data, at, size, where)
        except LogError as error:
            if next_offset > position:
                break
            if ends_before(buffer, data, at + size, position, where):
                at += size
                continue
            raise damaged(error, buffer, data, at, size, position, where, topic) from error
        try:
            check_order(buffer, data, at + size, header, where)
            emptied = header.count == 0 and header.size_bytes == HEADER_BYTES  # by compaction
            if transactions.wants(header, data, at, where) and header.next_offset > position and not emptied:
                batches.append(_encoded(buffer, at, header, arena, _append_time(header, log_time, where)))
                taken += batches[-1].size + (header.count * RECORD_REF_BYTES if batches[-1].readable else 0)
        except (LogError, MemoryError) as error:
            if next_offset > position:
                break
            if isinstance(error, OutOfOrder):
                raise damaged(error, buffer, data, at, size, position, where, topic) from error
            raise unreadable(error, where, topic, position, max(header.next_offset, position + 1)) from error
        epochs.append(EpochRun(header.base_offset, header.next_offset, header.leader_epoch))
        next_offset = max(next_offset, header.next_offset)
        at += size
    return DecodedBatches(tuple(batches), next_offset, tuple(epochs))


class _Aborted:
    """Decides which batches belong to aborted transactions, batch by batch in offset order."""

    def __init__(self, aborted: Iterable[tuple[int, int]]) -> None:
        self._coming = sorted(((first, producer) for producer, first in aborted), reverse=True)
        self._open: set[int] = set()

    def wants(self, header: BatchHeader, data: bytes, at: int, where: str) -> bool:
        """Return whether the batch's records are for us."""
        while self._coming and self._coming[-1][0] < header.next_offset:
            self._open.add(self._coming.pop()[1])
        if header.is_control:
            if _is_abort(data, at, where):
                self._open.discard(header.producer_id)
            return False
        return not (header.is_transactional and header.producer_id in self._open)


def _is_abort(data: bytes, at: int, where: str) -> bool:
    """Return whether a control batch, which is never compressed, is an abort marker.

    Raises LogError where it is not a marker: brokers accept no control batches from clients, so they wrote it.
    """
    at += HEADER_BYTES
    try:
        _, at = read_varint(data, at)  # length
        at += 1  # attributes
        for _ in range(3):  # time delta, offset delta, length of the key
            _, at = read_varint(data, at)
    except ValueError as error:
        raise LogError(
            f"{where}: a transaction marker can't be read: {error}",
            remedy="The log is damaged; restore it from its source.",
        ) from error
    return data[at + 2 : at + 4] == _ABORT


def _append_time(header: BatchHeader, log_time: LogTime, where: str) -> int:
    if log_time == "record":
        return NO_APPEND_TIME
    if header.append_time == NO_APPEND_TIME:
        raise LogError(
            f"{where}: the record batch at offset {header.base_offset} carries its producer's time, and log_time = append",
            remedy="Set message.timestamp.type=LogAppendTime (adledger topics check); records written before that can "
            "only be read with log_time = record, from a separate topic.",
        )
    return header.append_time


def _encoded(buffer: U8, at: int, header: BatchHeader, arena: Arena, append_time: int) -> EncodedBatch:
    start, size = at + HEADER_BYTES, header.size_bytes - HEADER_BYTES
    memory, readable = buffer, True
    codec = header.attributes & _CODEC_MASK
    if codec:
        try:
            memory, start, size = arena.decompress(buffer.data[start : start + size], codec)
        except UndecodableError:
            memory, start, size, readable = _NOTHING, 0, 0, False
    elif size > BATCH_BYTES_MAX:
        memory, start, size, readable = _NOTHING, 0, 0, False
    elif start + size + READ_AHEAD_BYTES > len(buffer):
        arena.room(size)[:size] = buffer.data[start : start + size]
        memory, start = arena.take(size)
    return EncodedBatch(
        buffer=memory,
        start=start,
        size=size,
        count=header.count,
        base_offset=header.base_offset,
        base_timestamp=base_time(header),
        append_time=append_time,
        last_offset_delta=header.last_offset_delta,
        whole=buffer[at : at + header.size_bytes],
        readable=readable and is_readable(header, size),
    )
