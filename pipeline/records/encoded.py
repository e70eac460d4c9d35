"""Encoded record batches (Kafka's v2 format, decompressed, CRC checked), as a log returns them to a lane."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

U8 = npt.NDArray[np.uint8]

READ_AHEAD_BYTES = 64
"""Readable bytes after the last record of every records buffer, at least: kernels load 8-64 bytes at a time."""

NO_APPEND_TIME = -1


@dataclass(frozen=True, slots=True)
class EncodedBatch:
    """One record batch: `buffer[start:start + size]` are its records (v2 encoding, after the 61-byte header).

    `append_time` is the one log time (ms) of all records, or `NO_APPEND_TIME`: then a record's own timestamp
    (`base_timestamp` + delta) is its log time. `last_offset_delta` is the header's; `whole` are all bytes of the batch as
    the log has them, including the header. `readable` False: the records can't be decompressed, or are too many.
    """

    buffer: U8
    start: int
    size: int
    count: int
    base_offset: int
    base_timestamp: int
    append_time: int = NO_APPEND_TIME
    last_offset_delta: int = field(kw_only=True)
    whole: U8 = field(kw_only=True)
    readable: bool = field(default=True, kw_only=True)

    @property
    def next_offset(self) -> int:
        """The offset after the batch's last, by its header."""
        return self.base_offset + self.last_offset_delta + 1


@dataclass(frozen=True, slots=True)
class Fetched:
    """The result of one fetch from one topic's partition.

    `batches` may begin before `position`: the caller leaves out records below it.
    `next_offset` is the position after this fetch, past control records and gaps.
    `end_offset` is the log's end as of this fetch; the topic is *drained* when next_offset >= end_offset.
    """

    topic: int
    position: int
    next_offset: int
    end_offset: int
    batches: Sequence[EncodedBatch] = field(default=())

    @property
    def drained(self) -> bool:
        """Whether the log had nothing after this fetch at the time."""
        return self.next_offset >= self.end_offset
