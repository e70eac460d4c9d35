"""Walk: from fetched record batches, still bytes, to where each record's key and value lie."""

from typing import Any

import numpy as np

from adledger.pipeline.errors import LogError
from adledger.pipeline.kernels.walk import walk_batches
from adledger.pipeline.records.batch_format import RECORD_BYTES_MIN
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.records.encoded import EncodedBatch, Fetched


def walk(fetched: Fetched, where: str = "") -> RecordRefs:
    """Return the records of a fetch at or after its position, in offset order; nothing is copied.

    `where` names the topic's partition ("ad.clicks-7") for the error. Raises LogError when a batch's bytes are
    not the records it says it has: its checksum was good, so whoever wrote it is broken.
    """
    if not fetched.batches:
        return RecordRefs.empty()
    addresses: dict[int, int] = {}
    rows = []
    for batch in fetched.batches:
        if batch.count * RECORD_BYTES_MIN > batch.size:
            raise _broken(fetched, batch, where)
        key = id(batch.buffer)
        address = addresses.get(key)
        if address is None:
            address = addresses[key] = batch.buffer.ctypes.data
        rows.append((
            address + batch.start, batch.size, batch.count,
            batch.base_offset, batch.base_timestamp, batch.append_time,
        ))  # fmt: skip
    table = np.array(rows, np.int64)
    room = sum(batch.count for batch in fetched.batches)
    offset, log_time, value_addr, key_addr = (np.empty(room, np.int64) for _ in range(4))
    value_len, key_len = np.empty(room, np.int32), np.empty(room, np.int32)
    n, broken = walk_batches(
        table, fetched.position, offset, log_time, value_addr, value_len, key_addr, key_len
    )
    if broken >= 0:
        raise _broken(fetched, fetched.batches[broken], where)
    holders: dict[int, Any] = {id(batch.buffer): batch.buffer for batch in fetched.batches}
    topic = np.full(n, fetched.topic, np.uint8)
    return RecordRefs(
        topic, offset[:n], log_time[:n], value_addr[:n], value_len[:n], key_addr[:n], key_len[:n],
        tuple(holders.values()),
    )  # fmt: skip


def _broken(fetched: Fetched, batch: EncodedBatch, where: str) -> LogError:
    return LogError(
        f"{where or f'topic {fetched.topic}'}: the record batch at offset {batch.base_offset} does not hold the "
        f"{batch.count} records that it says it has",
        remedy="The log is damaged or its writer is broken; restore the partition from its source.",
    )
