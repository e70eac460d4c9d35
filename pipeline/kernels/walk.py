"""Walk the records of v2 record batches: compiled (`walk_batches`), and its plain twin (`walk_plain`).

Both accept and refuse the same bytes. A batch is whole when each of its `count` records ends where its length says,
within the batch; offsets increase and stay within the range of the batch's header; times and lengths are in range; and
nothing is left over. Record headers are skipped by the record's own length.
"""

import numpy as np

from adledger.pipeline.kernels.intrinsics import load8
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.records.batch_format import NUMBER_MAX, read_varint
from adledger.pipeline.records.encoded import NO_APPEND_TIME, EncodedBatch

VARINT_BYTES_MAX = 10

ADDRESS, SIZE, COUNT, BASE_OFFSET, LAST_DELTA, BASE_TIMESTAMP, APPEND_TIME = range(7)
"""Columns of the batch table for `walk_batches`, i64[n, 7]; a batch whose count is NOT_READABLE is not examined."""
NOT_READABLE = -1


@inline_kernel
def _varint(p, end):
    """Return the zigzag varint at p and the address after it, which is 0 when the varint does not end before `end`."""
    byte = load8(p) if p < end else np.uint64(0x80)
    rest = byte & np.uint64(0x7F)
    shift = np.uint64(7)
    p += 1
    read = 1
    while byte >= np.uint64(0x80):
        if p >= end or read == VARINT_BYTES_MAX:
            return np.int64(0), np.int64(0)
        byte = load8(p)
        rest |= (byte & np.uint64(0x7F)) << shift
        shift += np.uint64(7)
        p += 1
        read += 1
    return np.int64(rest >> np.uint64(1)) ^ -np.int64(rest & np.uint64(1)), p


@kernel
def walk_batches(table, position, offset, log_time, value_addr, value_len, key_addr, key_len, span):
    """Write where each record at or after `position` is; columns as in RecordRefs, with room for max(1, count) each.

    A batch that is not whole becomes one row: `span` offsets from `offset` on, with the batch's index in the table as
    `value_addr`. Returns how many rows were written.
    """
    n = 0
    for b in range(len(table)):
        first = n
        n, whole = _walk_one(
            table[b], position, n, offset, log_time, value_addr, value_len, key_addr, key_len, span
        )
        if whole:
            continue
        n = first + 1
        append_time = table[b, APPEND_TIME]
        offset[first] = max(table[b, BASE_OFFSET], position)
        log_time[first] = table[b, BASE_TIMESTAMP] if append_time == NO_APPEND_TIME else append_time
        value_addr[first] = b
        value_len[first] = key_len[first] = -1
        key_addr[first] = 0
        span[first] = table[b, BASE_OFFSET] + table[b, LAST_DELTA] + 1 - offset[first]
    return n


@inline_kernel
def _walk_one(  # noqa: PLR0911 - each return is a way for a batch not to be whole
    batch, position, n, offset, log_time, value_addr, value_len, key_addr, key_len, span
):  # fmt: skip
    """Write the rows of one batch from row n on; return (rows written in all, whether the batch is whole)."""
    p = batch[ADDRESS]
    end = p + batch[SIZE]
    delta_before = np.int64(-1)
    if batch[COUNT] < 0:
        return n, False
    for _ in range(batch[COUNT]):
        length, p = _varint(p, end)
        if p == 0 or length < 1 or length > end - p:
            return n, False
        record_end = p + length
        time_delta, p = _varint(p + 1, record_end)  # skips a byte of attributes, which Kafka does not use
        if p == 0 or time_delta >= NUMBER_MAX or time_delta <= -NUMBER_MAX:
            return n, False
        delta, p = _varint(p, record_end)
        if p == 0 or delta <= delta_before or delta > batch[LAST_DELTA]:
            return n, False
        k_len, p = _varint(p, record_end)
        if p == 0 or k_len < -1 or k_len > record_end - p:
            return n, False
        k_addr = p
        p += max(k_len, 0)
        v_len, p = _varint(p, record_end)
        if p == 0 or v_len < -1 or v_len > record_end - p:
            return n, False
        v_addr = p
        p = record_end
        delta_before = delta
        if batch[BASE_OFFSET] + delta >= position:
            offset[n] = batch[BASE_OFFSET] + delta
            append_time = batch[APPEND_TIME]
            log_time[n] = batch[BASE_TIMESTAMP] + time_delta if append_time == NO_APPEND_TIME else append_time
            value_addr[n] = v_addr
            value_len[n] = v_len
            key_addr[n] = k_addr
            key_len[n] = k_len
            span[n] = 0
            n += 1
    return n, p == end


def walk_plain(batch: EncodedBatch) -> list[tuple[int, int, bytes | None, bytes | None]]:
    """Return (offset, log time, key, value) of each record of a batch. Raises ValueError where it is not whole."""
    if not batch.readable:
        raise ValueError("it can't be decompressed, or has more bytes or records than a batch may have")
    data = batch.buffer[batch.start : batch.start + batch.size].tobytes()
    records, at, delta_before = [], 0, -1
    for _ in range(batch.count):
        length, at = read_varint(data, at)
        if not 1 <= length <= len(data) - at:
            raise ValueError("a record's length is impossible")
        end = at + length
        time_delta, at = read_varint(data[:end], at + 1)
        delta, at = read_varint(data[:end], at)
        if abs(time_delta) >= NUMBER_MAX or not delta_before < delta <= batch.last_offset_delta:
            raise ValueError("times are out of range, or offsets do not rise within what the header covers")
        delta_before = delta
        key, at = _read_bytes(data, at, end)
        value, at = _read_bytes(data, at, end)
        at = end
        time = batch.base_timestamp + time_delta if batch.append_time == NO_APPEND_TIME else batch.append_time
        records.append((batch.base_offset + delta, time, key, value))
    if at != len(data):
        raise ValueError("bytes are left over behind the last record")
    return records


def _read_bytes(data: bytes, at: int, end: int) -> tuple[bytes | None, int]:
    """Return the bytes (None for null) whose varint length is at `at`, and where the next field begins."""
    length, at = read_varint(data[:end], at)
    if not -1 <= length <= end - at:
        raise ValueError("a key or value runs over its record")
    return (None, at) if length < 0 else (data[at : at + length], at + length)
