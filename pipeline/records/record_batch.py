"""Headers and checksums of Kafka's v2 record batches; `adledger.pipeline.records.batch_format` describes the format."""

import struct
from dataclasses import dataclass

import google_crc32c
import numpy as np
import numpy.typing as npt

from adledger.pipeline.errors import LogError
from adledger.pipeline.records.batch_format import HEADER_BYTES, LENGTH_FIELD_END, MAGIC, NUMBER_MAX
from adledger.pipeline.records.encoded import NO_APPEND_TIME, EncodedBatch
from adledger.schemas.wire import BATCH_BYTES_MAX, BATCH_RECORDS_MAX

U8 = npt.NDArray[np.uint8]

_HEADER = struct.Struct(">qiibIhiqqqhii")
_CRC_AT = 17
_ATTRIBUTES_AT = 21
_CRC = struct.Struct(">I")

_CODEC_MASK = 0x07
_APPEND_TIME_BIT = 0x08
_TRANSACTIONAL_BIT = 0x10
_CONTROL_BIT = 0x20
_CODECS = ("none", "gzip", "snappy", "lz4", "zstd")

_NO_PRODUCER = -1


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """The header of one record batch. Times are ms since the epoch, `size_bytes` includes the header."""

    base_offset: int
    size_bytes: int
    crc: int
    attributes: int
    last_offset_delta: int
    base_timestamp: int
    max_timestamp: int
    count: int
    producer_id: int
    leader_epoch: int  # of the leader that appended it: it increases with each leader

    @property
    def next_offset(self) -> int:
        """The offset after the batch's last record."""
        return self.base_offset + self.last_offset_delta + 1

    @property
    def codec(self) -> str:
        """The compression of its records: none, gzip, snappy, lz4 or zstd."""
        code = self.attributes & _CODEC_MASK
        return _CODECS[code] if code < len(_CODECS) else f"unknown ({code})"

    @property
    def is_control(self) -> bool:
        """Whether it has transaction markers instead of records."""
        return bool(self.attributes & _CONTROL_BIT)

    @property
    def is_transactional(self) -> bool:
        """Whether it is part of a transaction of `producer_id`."""
        return bool(self.attributes & _TRANSACTIONAL_BIT)

    @property
    def append_time(self) -> int:
        """The broker's append time of all its records, or `NO_APPEND_TIME`."""
        return self.max_timestamp if self.attributes & _APPEND_TIME_BIT else NO_APPEND_TIME


def parse_header(buffer: U8 | bytes, at: int, where: str) -> BatchHeader:
    """Return the header at `buffer[at : at + HEADER_BYTES]`, which must be in the buffer.

    Raises LogError, with a message that begins with `where`, when a field that brokers check or write themselves does not
    fit a v2 batch. Fields that they accept from producers (count, base timestamp) may be anything: see `is_readable`.
    """
    base, length, epoch, magic, crc, attributes, last, base_ts, max_ts, producer, _, _, count = (
        _HEADER.unpack_from(buffer.data if isinstance(buffer, np.ndarray) else buffer, at)
    )
    if magic != MAGIC:
        raise LogError(
            f"{where}: no record batch of version {MAGIC} (magic is {magic})",
            remedy="The log is damaged or was written in an older format; restore it from its source.",
        )
    size = length + LENGTH_FIELD_END
    log_time = max_ts if attributes & _APPEND_TIME_BIT else 0
    if not (size >= HEADER_BYTES and last >= 0 and 0 <= base < NUMBER_MAX and abs(log_time) < NUMBER_MAX):
        raise LogError(
            f"{where}: a record batch's header is impossible (base offset {base}, {size} bytes, "
            f"last offset delta {last}, log time {log_time})",
            remedy="The log is damaged; restore it from its source.",
        )
    return BatchHeader(base, size, crc, attributes, last, base_ts, max_ts, count, producer, epoch)


def checksum_matches(buffer: U8, at: int, header: BatchHeader) -> bool:
    """Return whether the batch at `at`, all of which must be in the buffer, matches its checksum."""
    checked = buffer[at + _ATTRIBUTES_AT : at + header.size_bytes]
    return bool(google_crc32c.value(checked) == header.crc)


def write_header(
    buffer: U8, size: int, *, base_offset: int, last_offset_delta: int, base_timestamp: int,
    max_timestamp: int, count: int, append_time: int = NO_APPEND_TIME,
) -> None:  # fmt: skip
    """Write the header before the records at `buffer[HEADER_BYTES:size]`, with the checksum over both.

    `append_time`, where given, becomes the log time of all records, as on a topic with LogAppendTime.
    """
    stamped = append_time != NO_APPEND_TIME
    _HEADER.pack_into(
        buffer.data, 0, base_offset, size - LENGTH_FIELD_END, 0, MAGIC, 0, _APPEND_TIME_BIT if stamped else 0,
        last_offset_delta, base_timestamp, append_time if stamped else max_timestamp,
        _NO_PRODUCER, -1, -1, count,
    )  # fmt: skip
    _CRC.pack_into(buffer.data, _CRC_AT, google_crc32c.value(buffer[_ATTRIBUTES_AT:size]))


def encoded_batch(buffer: U8, at: int, header: BatchHeader, where: str) -> EncodedBatch:
    """Return the uncompressed batch at `at`, whose checksum was verified, as lanes need it.

    Raises LogError for a compressed one: decompress it first.
    """
    if header.attributes & _CODEC_MASK:
        raise LogError(
            f"{where}: the record batch at offset {header.base_offset} is compressed with {header.codec}",
            remedy="A files: log holds uncompressed batches; import the source again with `adledger import`.",
        )
    return EncodedBatch(
        buffer=buffer,
        start=at + HEADER_BYTES,
        size=header.size_bytes - HEADER_BYTES,
        count=header.count,
        base_offset=header.base_offset,
        base_timestamp=base_time(header),
        append_time=header.append_time,
        last_offset_delta=header.last_offset_delta,
        whole=buffer[at : at + header.size_bytes],
        readable=is_readable(header, header.size_bytes - HEADER_BYTES),
    )


def is_readable(header: BatchHeader, size: int) -> bool:
    """Whether records of `size` bytes, decompressed, can match a header, and do not exceed the limits of a batch.

    The base timestamp is ignored where the broker's append time replaces it.
    """
    timed = header.append_time != NO_APPEND_TIME or abs(header.base_timestamp) < NUMBER_MAX
    counted = 0 <= header.count <= min(header.last_offset_delta + 1, BATCH_RECORDS_MAX)
    return counted and timed and size <= BATCH_BYTES_MAX


def base_time(header: BatchHeader) -> int:
    """Return the base timestamp, limited to the range of log times: the log time of an unreadable batch."""
    return max(1 - NUMBER_MAX, min(header.base_timestamp, NUMBER_MAX - 1))
