"""Decode: record bytes into columns, and each record's status.

The fast path (adledger.pipeline.kernels.decode) decodes plain records, and reads most others a second time; the
slow path (adledger.pipeline.stages.slow_path) handles the rest, one record at a time.
"""

import ctypes
from collections.abc import Iterable

import numpy as np
import orjson

from adledger.pipeline.kernels import decode as kernels
from adledger.pipeline.kernels.memo import new_memo
from adledger.pipeline.kernels.second_reading import UNSURE
from adledger.pipeline.records.columns import I32, I64, Decoded, EventColumns, RecordRefs
from adledger.pipeline.stages.slow_path import DecodeContext, PlainEvent, decode_plain, truncated
from adledger.schemas.event_columns import EVENT_DTYPES
from adledger.schemas.wire import PAGE_URL_BYTES_MAX, USER_AGENT_BYTES_MAX, Malformed

__all__ = ["DecodeContext", "decode", "pages", "user_agents"]


def decode(refs: RecordRefs, context: DecodeContext) -> Decoded:
    """Decode n records, in order. Never raises for what a record holds: see `Decoded.status`.

    A row that represents a whole batch is UNDECODABLE_BATCH, whatever bytes are kept of it.
    """
    n = len(refs)
    assert refs.topic.max(initial=0) < len(context.kinds), (
        "a record of a topic that the context does not know"
    )
    decoded = Decoded(
        refs=refs,
        columns=EventColumns.zeros(n),
        status=np.empty(n, np.uint8),
        ua_at=np.full(n, -1, np.int32),
        ua_len=np.full(n, -1, np.int32),
        page_at=np.full(n, -1, np.int32),
        page_len=np.full(n, -1, np.int32),
        slow_texts={},
    )
    kernels.decode(
        _records(refs),
        kernels.Context(
            np.uint64(context.lane),
            np.uint64(context.partitions),
            np.array(context.kinds, np.int64),
            np.uint64(context.default_currency),
        ),
        new_memo(len(context.kinds)),
        decoded.status,
        kernels.Places(decoded.ua_at, decoded.ua_len, decoded.page_at, decoded.page_len),
        kernels.Columns(*(getattr(decoded.columns, name) for name in EVENT_DTYPES)),
    )
    decoded.status[refs.span != 0] = Malformed.UNDECODABLE_BATCH
    _decode_slowly(decoded, np.flatnonzero(decoded.status == UNSURE), context)
    return decoded


def _records(refs: RecordRefs) -> kernels.RecordColumns:
    """Return columns as the array type that the kernel is compiled for."""
    columns = {name: getattr(refs, name) for name in kernels.RecordColumns._fields}
    if refs.span.any():
        columns["value_len"] = np.where(refs.span != 0, np.int32(-1), refs.value_len)
    return kernels.RecordColumns(*(np.require(column, None, ["C", "W"]) for column in columns.values()))


def _decode_slowly(decoded: Decoded, rows: I64, context: DecodeContext) -> None:
    """Decode rows on the slow path and write the results."""
    refs = decoded.refs.take(rows)
    done: list[int] = []
    events: list[PlainEvent] = []
    for row, topic, log_time, value_addr, value_len, key_addr, key_len in zip(
        rows.tolist(),
        refs.topic.tolist(),
        refs.log_time.tolist(),
        refs.value_addr.tolist(),
        refs.value_len.tolist(),
        refs.key_addr.tolist(),
        refs.key_len.tolist(),
        strict=True,
    ):
        value, key = bytes_at(value_addr, value_len), bytes_at(key_addr, key_len)
        event = decode_plain(value, key, context.kinds[topic], log_time, context)
        if isinstance(event, Malformed):
            decoded.status[row] = event
        else:
            decoded.status[row] = Malformed.OK
            done.append(row)
            events.append(event)
            decoded.slow_texts[row] = (event.user_agent, event.page_url)
    if done:
        for name, values in zip(EVENT_DTYPES, zip(*events, strict=True), strict=False):
            getattr(decoded.columns, name)[done] = values


def user_agents(decoded: Decoded, rows: Iterable[int]) -> list[bytes]:
    """Return the user agents (UTF-8), truncated where they are too long, of decodable rows; valid while the refs' holders live."""
    found = _texts(decoded, rows, 0, decoded.ua_at, decoded.ua_len)
    return [truncated(text, USER_AGENT_BYTES_MAX) for text in found]


def pages(decoded: Decoded, rows: Iterable[int]) -> list[bytes]:
    """Return the page URLs (UTF-8), truncated where they are too long, of decodable rows; valid while the refs' holders live."""
    found = _texts(decoded, rows, 1, decoded.page_at, decoded.page_len)
    return [truncated(text, PAGE_URL_BYTES_MAX) for text in found]


def _texts(decoded: Decoded, rows: Iterable[int], which: int, at: I32, length: I32) -> list[bytes]:
    # Convert to lists at once: taking single elements out of arrays costs more than the strings themselves.
    chosen = np.fromiter(rows, np.int64)
    begins = at[chosen]
    addresses = decoded.refs.value_addr[chosen] + begins
    return [
        decoded.slow_texts[row][which] if begin < 0 else _unescaped(ctypes.string_at(address, size))
        for row, begin, address, size in zip(
            chosen.tolist(), begins.tolist(), addresses.tolist(), length[chosen].tolist(), strict=True
        )
    ]


def _unescaped(raw: bytes) -> bytes:
    """Return the text (UTF-8) of a JSON string's bytes between its quotes."""
    if b"\\" not in raw:
        return raw
    text: str = orjson.loads(b'"' + raw + b'"')
    return text.encode()


def bytes_at(address: int, length: int) -> bytes | None:
    """Return the bytes at an address that refs hold; None for a length of -1 (null)."""
    return None if length < 0 else ctypes.string_at(address, length)
