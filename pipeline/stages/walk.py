"""Walk: finds each record's key and value in fetched record batches, which stay bytes.

A batch that can't be decoded is one row, for all offsets that its header covers. Its `value` is what its dead letter
keeps: the batch's bytes, up to a bound. Its `key` is a line with their number and their hash.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import numpy as np

from adledger.pipeline.kernels.walk import NOT_READABLE, walk_batches
from adledger.pipeline.records.batch_format import RECORD_BYTES_MIN
from adledger.pipeline.records.columns import U8, RecordRefs
from adledger.pipeline.records.encoded import READ_AHEAD_BYTES, EncodedBatch, Fetched
from adledger.schemas.wire import DEAD_LETTER_BYTES_MAX


def walk(fetched: Fetched) -> RecordRefs:
    """Return the records of a fetch at or after its position, in offset order; only undecodable batches are copied."""
    if not fetched.batches:
        return RecordRefs.empty()
    addresses: dict[int, int] = {}
    rows, room = [], 0
    for batch in fetched.batches:
        key = id(batch.buffer)
        address = addresses.get(key)
        if address is None:
            address = addresses[key] = batch.buffer.ctypes.data
        possible = batch.readable and batch.count * RECORD_BYTES_MIN <= batch.size
        room += max(1, batch.count) if possible else 1
        rows.append((
            address + batch.start, batch.size, batch.count if possible else NOT_READABLE,
            batch.base_offset, batch.last_offset_delta, batch.base_timestamp, batch.append_time,
        ))  # fmt: skip
    offset, log_time, value_addr, key_addr = (np.empty(room, np.int64) for _ in range(4))
    value_len, key_len, span = np.empty(room, np.int32), np.empty(room, np.int32), np.empty(room, np.uint32)
    n = walk_batches(
        np.array(rows, np.int64),
        fetched.position,
        offset,
        log_time,
        value_addr,
        value_len,
        key_addr,
        key_len,
        span,
    )
    holders: dict[int, Any] = {id(batch.buffer): batch.buffer for batch in fetched.batches}
    topic = np.full(n, fetched.topic, np.uint8)
    refs = RecordRefs(
        topic, offset[:n], log_time[:n], value_addr[:n], value_len[:n], key_addr[:n], key_len[:n], span[:n],
        tuple(holders.values()),
    )  # fmt: skip
    return refs if not span[:n].any() else _with_dead_batches(refs, fetched.batches)


def dead_batch(batch: EncodedBatch) -> tuple[bytes, bytes]:
    """Return key and value of the dead letter of a batch that can't be decoded."""
    whole = batch.whole
    said = f"record batch of {len(whole)} bytes, sha256 {sha256(whole.data).hexdigest()}"
    return said.encode(), whole[:DEAD_LETTER_BYTES_MAX].tobytes()


def _with_dead_batches(refs: RecordRefs, batches: Sequence[EncodedBatch]) -> RecordRefs:
    """Return refs in which rows of whole batches hold their dead letters' key and value; decodable records stay in place."""
    rows = np.flatnonzero(refs.span)
    kept = [dead_batch(batches[number]) for number in refs.value_addr[rows].tolist()]
    joined = b"".join(key + value for key, value in kept) + bytes(READ_AHEAD_BYTES)
    memory: U8 = np.frombuffer(joined, np.uint8)
    refs.key_len[rows] = [len(key) for key, _ in kept]
    refs.value_len[rows] = [len(value) for _, value in kept]
    begins = (
        memory.ctypes.data + np.concatenate(([0], np.cumsum(refs.key_len[rows] + refs.value_len[rows])))[:-1]
    )
    refs.key_addr[rows] = begins
    refs.value_addr[rows] = begins + refs.key_len[rows]
    refs.holders = (*refs.holders, memory)
    return refs
