"""The `ad.rollups` message: the rollup rows of one done batch, as columns. Pure.

A batch is one message, or several *parts* where it has more than `PART_ROWS_MAX` rows, which keeps every message
below Kafka's default limit of 1 MiB whatever is in it. The record's key is the lane in decimal ASCII, so that a
lane's messages stay in order. A message may arrive twice: drop repeats by (epoch, lane, batch number, part); a repeat
carries the same rows in the same parts. A batch without rollup rows (an idle lane's watermark, or only malformed
records) is one message without rows: it advances the lane's watermark.

Bytes of the value, little-endian:

| bytes | what |
| --- | --- |
| 4 | `ADRU` |
| 1 | version: 1 |
| 1 | e, length of the epoch |
| 2 | lane |
| 8 | batch number |
| 8 | watermark behind the batch, ms since the epoch |
| 2 | part, from 0 |
| 2 | parts, at least 1 |
| 4 | n, rows of this part, at most 40,000 |
| e | epoch, UTF-8: which log the batch is of |
| rest | one zstd frame that holds the columns one after the other, 24 n bytes |

The columns are those of `rollup_minute`, in this order: publisher_id u32, minute u32 (seconds since the epoch),
event_type_code u8, class_code u8, currency_code u16, records u32, money_nanos i64; numbers as in schemas/. Rows are
sorted by minute, then publisher, type, class, currency, records, money; two rows may have the same key, where some events
came after their period had closed. A column wider than a byte is stored as byte planes: the
lowest byte of all n values, then the next byte of all, up to the highest; publisher_id is the difference from the row
before (modulo 2^32, the first from 0). Both halve the size.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import cramjam
import numpy as np

from adledger.schemas.classes import Class
from adledger.schemas.wire import FUTURE_MS_MAX, EventType

Rollup = Mapping[str, Any]
"""Column name -> array, the columns of COLUMNS."""

COLUMNS: Final = {
    "publisher_id": "<u4",
    "minute": "<u4",
    "event_type_code": "u1",
    "class_code": "u1",
    "currency_code": "<u2",
    "records": "<u4",
    "money_nanos": "<i8",
}
ROW_BYTES: Final = sum(np.dtype(d).itemsize for d in COLUMNS.values())

PART_ROWS_MAX: Final = 40_000
"""Rows of a part: 960,000 bytes if nothing can be compressed. Fixed: with another number a repeat would be split differently."""

EPOCH_BYTES_MAX: Final = 255
VERSION: Final = 1
ZSTD_LEVEL: Final = 1

_ORDER = (
    "minute", "publisher_id", "event_type_code", "class_code", "currency_code", "records", "money_nanos",
)  # fmt: skip
_MAGIC = b"ADRU"
_HEADER = struct.Struct("<4sBBHQqHHI")
_CLOCK_MS_MAX = 2**32 * 1000


class RollupsMessageError(ValueError):
    """Bytes that are not a rollups message of a version known here; says what is wrong."""


@dataclass(frozen=True, slots=True)
class RollupsMessage:
    """One part of a batch's rollup rows. (epoch, lane, batch_no, part) is its identity."""

    epoch: str
    lane: int
    batch_no: int
    clock_after: int  # watermark behind the batch (ms)
    part: int
    parts: int
    rollup: Rollup

    @property
    def rows(self) -> int:
        """Rows of this part."""
        return len(self.rollup["records"])


def record_key(lane: int) -> bytes:
    """Return the key of a lane's records."""
    return b"%d" % lane


def split(
    epoch: str, lane: int, batch_no: int, clock_after: int, rollup: Mapping[str, Any]
) -> list[RollupsMessage]:
    """Return a batch's messages, at least one: the rows sorted, so that a repeat has the same parts.

    `rollup` has the columns of COLUMNS in any order of rows; other columns are ignored.
    """
    order = np.lexsort([rollup[name] for name in reversed(_ORDER)])
    columns = {name: np.asarray(rollup[name], dtype)[order] for name, dtype in COLUMNS.items()}
    parts = max(1, -(-len(order) // PART_ROWS_MAX))
    return [
        RollupsMessage(
            epoch, lane, batch_no, clock_after, part, parts,
            {name: v[part * PART_ROWS_MAX : (part + 1) * PART_ROWS_MAX] for name, v in columns.items()},
        )
        for part in range(parts)
    ]  # fmt: skip


def encode(message: RollupsMessage) -> bytes:
    """Return the bytes of a message."""
    epoch = message.epoch.encode()
    assert len(epoch) <= EPOCH_BYTES_MAX, f"an epoch of {len(epoch)} bytes"
    assert message.rows <= PART_ROWS_MAX, f"a part of {message.rows} rows"
    header = _HEADER.pack(
        _MAGIC, VERSION, len(epoch), message.lane, message.batch_no, message.clock_after,
        message.part, message.parts, message.rows,
    )  # fmt: skip
    columns = b"".join(
        _planes(name, np.asarray(message.rollup[name], dtype)) for name, dtype in COLUMNS.items()
    )
    return header + epoch + bytes(cramjam.zstd.compress(columns, level=ZSTD_LEVEL))


def decode(data: bytes) -> RollupsMessage:
    """Return the message of some bytes. Raises RollupsMessageError."""
    if len(data) < _HEADER.size:
        raise RollupsMessageError(f"{len(data)} bytes, a header has {_HEADER.size}")
    magic, version, epoch_bytes, lane, batch_no, clock, part, parts, rows = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise RollupsMessageError(f"begins with {magic!r}, a rollups message with {_MAGIC!r}")
    if version != VERSION:
        raise RollupsMessageError(f"version {version}, this release knows {VERSION}")
    if part >= parts:
        raise RollupsMessageError(f"part {part} of {parts}")
    if rows > PART_ROWS_MAX:
        raise RollupsMessageError(f"{rows} rows, a part has at most {PART_ROWS_MAX}")
    if not 0 <= clock < _CLOCK_MS_MAX:
        raise RollupsMessageError(f"a watermark of {clock} ms")
    begin = _HEADER.size + epoch_bytes
    try:
        epoch = data[_HEADER.size : begin].decode()
    except UnicodeDecodeError as error:
        raise RollupsMessageError(f"the epoch is not UTF-8: {error}") from None
    if len(data) < begin:
        raise RollupsMessageError(f"ends within the epoch, after {len(data)} bytes")
    rollup = _columns(_inflate(data[begin:], rows * ROW_BYTES), rows)
    _check_rows(rollup, clock)
    return RollupsMessage(epoch, lane, batch_no, clock, part, parts, rollup)


def _planes(name: str, values: Any) -> bytes:
    if name == "publisher_id":
        values = np.diff(values, prepend=values.dtype.type(0))
    planes: bytes = values.view("u1").reshape(len(values), values.dtype.itemsize).T.tobytes()
    return planes


def _inflate(frame: bytes, size: int) -> bytearray:
    columns = bytearray(size + 1)  # one byte more, so that a frame with too much is noticed
    try:
        found = cramjam.zstd.decompress_into(frame, columns)
    except cramjam.DecompressionError as error:
        raise RollupsMessageError(f"the columns can't be decompressed: {error}") from None
    if found != size:
        raise RollupsMessageError(f"columns of {found} bytes, its rows have {size}")
    return columns


def _columns(data: bytearray, rows: int) -> Rollup:
    columns, at = {}, 0
    for name, dtype in COLUMNS.items():
        width = np.dtype(dtype).itemsize
        planes = np.frombuffer(data, np.uint8, width * rows, at).reshape(width, rows)
        columns[name] = np.ascontiguousarray(planes.T).view(dtype).reshape(rows)
        at += width * rows
    columns["publisher_id"] = np.cumsum(columns["publisher_id"], dtype="<u4")
    return columns


def _check_rows(rollup: Rollup, clock: int) -> None:
    """Raise RollupsMessageError for rows that no batch can have: later code relies on them."""
    minute, kind, code = rollup["minute"], rollup["event_type_code"], rollup["class_code"]
    if not len(minute):
        return
    if (minute % 60).any() or np.any(minute[1:] < minute[:-1]):
        raise RollupsMessageError("minutes that are not whole, or not in order")
    if int(minute[-1]) * 1000 > clock + FUTURE_MS_MAX:
        raise RollupsMessageError(f"minute {minute[-1]} is beyond what an event may be at watermark {clock}")
    if not np.isin(kind, list(EventType)).all():
        raise RollupsMessageError("an unknown event type")
    if not np.isin(code, [Class.BILLABLE, Class.DUPLICATE, Class.GIVT, Class.SIVT, Class.EXPIRED]).all():
        raise RollupsMessageError("a class that no event has")
    if not rollup["records"].all():
        raise RollupsMessageError("a row without records")
