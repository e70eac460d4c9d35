"""Encode records as v2 record batches: compiled (`encode_records`), and its plain twin (`encode_plain`)."""

import numpy as np

from adledger.pipeline.kernels.intrinsics import copy_bytes
from adledger.pipeline.kernels.jit import inline_kernel, kernel
from adledger.pipeline.records.batch_format import HEADER_BYTES, varint

NULL = -1
"""In `key_ends` and `value_ends`: null; the next record's bytes begin where the last ones ended."""

RECORD_OVERHEAD_MAX = 32
"""Bytes of a record besides its key and value, at most: lengths 5 + 5 + 5, time 10, offset 5, 2 single bytes."""


@inline_kernel
def _zigzag(value):
    return np.uint64(value << 1) ^ np.uint64(value >> 63)


@inline_kernel
def _varint_size(value):
    rest = _zigzag(value) >> np.uint64(7)
    size = 1
    while rest:
        size += 1
        rest >>= np.uint64(7)
    return size


@inline_kernel
def _put_varint(out, at, value):
    rest = _zigzag(value)
    while rest >= np.uint64(0x80):
        out[at] = np.uint8(rest & np.uint64(0x7F)) | np.uint8(0x80)
        rest >>= np.uint64(7)
        at += 1
    out[at] = np.uint8(rest)
    return at + 1


@inline_kernel
def _put_bytes(out, at, length, source):
    """Write a length (-1 for null) and that many bytes from the address `source`; return where the next field goes."""
    at = _put_varint(out, at, length)
    copy_bytes(out.ctypes.data + at, source, max(length, 0))
    return at + max(length, 0)


@kernel
def encode_records(
    values, value_ends, keys, key_ends, log_times, row, value_at, key_at, bytes_max, records_max, out
):  # fmt: skip
    """Encode rows from `row` on into one batch, its records at out[HEADER_BYTES:], until a limit or the end.

    values, keys: u8; value_ends, key_ends: i64[n], where each row's bytes end (NULL for none); log_times:
    i64[n], ms; value_at, key_at: where the row's bytes begin; out: u8, room for `bytes_max` or for one record.
    A batch has at least one record, however large.
    Returns (next row, its value_at, its key_at, bytes of the batch with its header, largest log time).
    """
    base_time = log_times[row]
    max_time = base_time
    at = np.int64(HEADER_BYTES)
    first = row
    while row < len(log_times) and row - first < records_max:
        value_len = np.int64(NULL) if value_ends[row] == NULL else value_ends[row] - value_at
        key_len = np.int64(NULL) if key_ends[row] == NULL else key_ends[row] - key_at
        time_delta = log_times[row] - base_time
        length = (
            2 + _varint_size(time_delta) + _varint_size(row - first)
            + _varint_size(key_len) + max(key_len, 0) + _varint_size(value_len) + max(value_len, 0)
        )  # fmt: skip
        if row > first and at + _varint_size(length) + length > bytes_max:
            break
        at = _put_varint(out, at, length)
        out[at] = 0  # attributes
        at = _put_varint(out, at + 1, time_delta)
        at = _put_varint(out, at, row - first)
        at = _put_bytes(out, at, key_len, keys.ctypes.data + key_at)
        at = _put_bytes(out, at, value_len, values.ctypes.data + value_at)
        out[at] = 0  # no headers
        at += 1
        value_at += max(value_len, 0)
        key_at += max(key_len, 0)
        max_time = max(max_time, log_times[row])
        row += 1
    return row, value_at, key_at, at, max_time


def encode_plain(records: list[tuple[int, bytes | None, bytes | None]]) -> bytes:
    """Return the records of one batch, without its header, from (log time, key, value); nulls are allowed."""
    out = bytearray()
    for delta, (log_time, key, value) in enumerate(records):
        body = (
            b"\0" + varint(log_time - records[0][0]) + varint(delta) + _framed(key) + _framed(value) + b"\0"
        )
        out += varint(len(body)) + body
    return bytes(out)


def _framed(data: bytes | None) -> bytes:
    return varint(NULL) if data is None else varint(len(data)) + data
