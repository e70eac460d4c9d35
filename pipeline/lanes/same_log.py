"""Whether the log is still the one that a lane's ledger was written from: it is known by its records.

A log that was truncated (an unclean leader election, a disk restored from a copy) and then grew again holds other
records at offsets that the ledger has: no offset tells. So the last event of each topic that `events` has is compared
with the record at its offset: log time and id. A record there is appended once and never changed, so where the last one
is the same, all before it are.
"""

from collections.abc import Mapping
from typing import Protocol

from pipeline.errors import OffsetOutOfRange
from pipeline.log.source import OffsetBounds, Source, Topology
from pipeline.stages.columns import RecordRefs
from pipeline.stages.decode import DecodeContext, decode
from pipeline.stages.walk import walk
from schemas.wire import Malformed
from sinks.sink import LastEvent, Sink

KNOWN_BY_AGE_MS_MAX = 24 * 3_600_000
"""An event so far (lane clock) behind the lane is not looked for: a topic that was silent for longer is not compared."""
LOOKS_BACK_MAX = 64
"""Batches that are looked at for the place where the log changed; then all that it holds counts as changed."""
ONE_BATCH_BYTES = 1
WAIT_MS = 200


class Known(Protocol):
    """What is looked at."""

    @property
    def source(self) -> Source:
        """The log."""

    @property
    def sink(self) -> Sink:
        """ClickHouse."""

    @property
    def topology(self) -> Topology:
        """The log's topics and partitions."""


async def changed_since(
    known: Known, lane: int, batch_no: int, clock: int, bounds: Mapping[int, OffsetBounds]
) -> dict[int, int]:
    """Return topic -> the first offset that may hold another record than the ledger's; {}: the log is the same.

    `batch_no` and `clock` (ms) are where the ledger ends. Raises LogError, SinkError.
    """
    found = {}
    for topic in bounds:
        since = await _changed_since(known, lane, topic, batch_no, clock)
        if since is not None:
            found[topic] = since
    return found


async def _changed_since(known: Known, lane: int, topic: int, batch_no: int, clock: int) -> int | None:
    clock_from = max(0, clock - KNOWN_BY_AGE_MS_MAX)
    for looks in range(LOOKS_BACK_MAX):
        event = await known.sink.last_event(lane, topic, batch_no, clock_from)
        first = (await known.source.bounds(lane))[topic].first
        if event is None or event.offset < first:  # retention took it: there is nothing to compare with
            return first if looks else None
        try:
            record = await _record_at(known, lane, topic, event.offset)
        except OffsetOutOfRange:
            if (await known.source.bounds(lane))[topic].first > event.offset:  # retention took it just now
                return first if looks else None
            raise
        if _same(record, event, DecodeContext(lane, known.topology.partitions, known.topology.kinds, 0)):
            return event.offset + 1 if looks else None
        batch_no = event.batch_no
    return first


async def _record_at(known: Known, lane: int, topic: int, offset: int) -> RecordRefs:
    """Return the record at an offset; none where the log has none there (a transaction's marker)."""
    where = f"{known.topology.topics[topic]}-{lane}"
    while True:
        [fetched] = await known.source.fetch(lane, {topic: offset}, ONE_BATCH_BYTES, WAIT_MS)
        if fetched.next_offset > offset or fetched.drained:
            refs = walk(fetched, where)
            return refs.take(refs.offset == offset)


def _same(record: RecordRefs, event: LastEvent, context: DecodeContext) -> bool:
    if not len(record) or int(record.log_time[0]) != event.log_time:
        return False
    decoded = decode(record, context)
    # What this release can't decode, the one that wrote the event could: its time is the same.
    return bool(decoded.status[0] != Malformed.OK or int(decoded.columns.id_hash[0]) == event.id_hash)
