"""The columns that stages pass on. One row is one record, in the lane's order.

`RecordRefs`  where each record's bytes are (made by walk, ordered by merge)
`EventColumns` the fields that decode found in them
`Decoded`     both, with each record's status and the strings behind its hashes
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from adledger.pipeline.records.encoded import READ_AHEAD_BYTES
from adledger.schemas.event_columns import EVENT_DTYPES

Array = npt.NDArray[np.generic]
U8 = npt.NDArray[np.uint8]
U16 = npt.NDArray[np.uint16]
U32 = npt.NDArray[np.uint32]
U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(slots=True)
class EventColumns:
    """Decoded events, column by column; dtypes in `EVENT_DTYPES`. Rows of malformed records are zero."""

    event_type_code: U8
    event_time: I64
    publisher_id: U32
    site_id: U32
    campaign_id: U32
    creative_id: U32
    advertiser_id: U32
    placement_id: U32
    id_hash: U64
    user_hash: U64
    ua_hash: U64
    page_hash: U64
    impression_hash: U64
    ip_hi: U64
    ip_lo: U64
    price_micros: U32
    currency_code: U16
    country_code: U16
    width_px: U16
    height_px: U16
    flags: U16

    def __len__(self) -> int:
        return len(self.event_time)

    @classmethod
    def zeros(cls, n: int) -> Self:
        """Return n rows of zeros."""
        return cls(**{name: np.zeros(n, dtype) for name, dtype in EVENT_DTYPES.items()})

    def take(self, rows: Array) -> Self:
        """Return the rows that an index array or a mask selects."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@dataclass(slots=True)
class RecordRefs:
    """Where n records are in memory, in order. Addresses stay valid while `holders` lives.

    `value_len` / `key_len` are -1 for null. `span` is 0 for a record; a row may also represent a whole record batch that
    can't be decoded: `span` is then the number of offsets, from `offset` on, that the batch covers.
    At least `READ_AHEAD_BYTES` bytes after each record are readable.
    """

    topic: U8  # index into Topology.topics
    offset: I64
    log_time: I64  # ms; the broker's append time, or the record's own where log_time = record
    value_addr: I64
    value_len: I32
    key_addr: I64
    key_len: I32
    span: U32
    holders: tuple[object, ...]

    def __len__(self) -> int:
        return len(self.offset)

    @classmethod
    def of(
        cls,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        *,
        topics: Sequence[int] | None = None,
        offsets: Sequence[int] | None = None,
        log_times: Sequence[int] | None = None,
    ) -> Self:
        """Copy records into a new buffer. Topics default to 0, offsets to 0, 1, 2 ..., log times to 0."""
        n = len(values)
        buffer = np.frombuffer(
            b"".join(v or b"" for v in (*values, *keys)) + bytes(READ_AHEAD_BYTES), np.uint8
        )
        lengths = np.array([-1 if v is None else len(v) for v in (*values, *keys)], np.int32)
        ends = np.cumsum(np.maximum(lengths, 0), dtype=np.int64)
        addresses = buffer.ctypes.data + ends - np.maximum(lengths, 0)
        return cls(
            topic=np.array(topics if topics is not None else [0] * n, np.uint8),
            offset=np.array(offsets if offsets is not None else range(n), np.int64),
            log_time=np.array(log_times if log_times is not None else [0] * n, np.int64),
            value_addr=addresses[:n],
            value_len=lengths[:n],
            key_addr=addresses[n:],
            key_len=lengths[n:],
            span=np.zeros(n, np.uint32),
            holders=(buffer,),
        )

    @property
    def records(self) -> U32:
        """How many records each row counts as: one, or the number of offsets that its batch covers."""
        return np.maximum(self.span, np.uint32(1))

    @classmethod
    def empty(cls) -> Self:
        """Return no records."""
        i8, i4 = np.zeros(0, np.int64), np.zeros(0, np.int32)
        return cls(np.zeros(0, np.uint8), i8, i8, i8, i4, i8, i4, np.zeros(0, np.uint32), ())

    def take(self, rows: Array | slice) -> Self:
        """Return the rows that an index array, a mask or a slice selects."""
        return type(self)(
            self.topic[rows], self.offset[rows], self.log_time[rows], self.value_addr[rows],
            self.value_len[rows], self.key_addr[rows], self.key_len[rows], self.span[rows], self.holders,
        )  # fmt: skip

    @classmethod
    def concat(cls, parts: Sequence["RecordRefs"]) -> "RecordRefs":
        """Return the rows of all parts, one after the other."""
        if not parts:
            return cls.empty()
        if len(parts) == 1:
            return parts[0]
        columns: list[Any] = [np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls)[:-1]]
        columns.append(tuple(holder for part in parts for holder in part.holders))
        return cls(*columns)


@dataclass(slots=True)
class Decoded:
    """Records after decode: n rows; `status` is adledger.schemas.wire.Malformed (0 = decodable).

    `ua_at`/`ua_len`, `page_at`/`page_len` say where the JSON string behind ua_hash and page_hash is (with its escapes;
    adledger.pipeline.stages.decode.user_agents and pages return the text), as an offset from the record's value.
    Rows that the slow path decoded have the texts in `slow_texts` (row -> (user agent, page)) instead and -1 here.
    """

    refs: RecordRefs
    columns: EventColumns
    status: U8
    ua_at: I32
    ua_len: I32
    page_at: I32
    page_len: I32
    slow_texts: dict[int, tuple[bytes, bytes]]
