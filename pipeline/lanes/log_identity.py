"""Whether the log is still the one that a lane's ledger was written from, decided by its records.

A log that was truncated (an unclean leader election, a disk restored from a copy) and then grew again holds other
records at offsets that the ledger has, which offsets alone can't show. So each topic's last record in the tables is
compared, by log time and id, with the record at its offset; after it, up to the ledger's end, the log must have none. A
record is appended once and never changes: if the last one is the same, so are all before it.

First the broker checks the ledger's leader epoch. If it denies that epoch, the records decide, and the comparison goes
further: to topics without recent records, and to offsets at which the ledger has no record.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from adledger.pipeline.errors import LaneHalted, LogRewritten, OffsetOutOfRange, UnreadableBatch
from adledger.pipeline.halts import HaltReason, override_command
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.log.leader_epochs import NO_EPOCH
from adledger.pipeline.log.source import Source, Topology
from adledger.pipeline.records.columns import I64, RecordRefs
from adledger.pipeline.stages.decode import DecodeContext, decode
from adledger.pipeline.stages.walk import walk
from adledger.schemas.wire import Malformed
from adledger.sinks.sink import LastRecord, LedgerEntry, OffsetRange, Sink, StoredEvents

KNOWN_BY_AGE_MS_MAX = 24 * 3_600_000
"""How far behind the lane's watermark a record is looked for: a topic without records since is not compared."""
LOOKS_BACK_MAX = 64
"""How many batches are compared to find where the log changed; beyond it, everything in the log counts as changed."""
FEW_BYTES = 1
"""Returns one record batch, however large."""
WAIT_MS = 200


class LogEnvironment(Protocol):
    """The log and ClickHouse."""

    @property
    def source(self) -> Source:
        """The log."""

    @property
    def sink(self) -> Sink:
        """ClickHouse."""

    @property
    def topology(self) -> Topology:
        """The log's topics and partitions."""


def known_epochs(entry: LedgerEntry) -> dict[int, int]:
    """Return topic -> the leader epoch of the record batch before the ledger's end, if the ledger has it."""
    return {
        r.topic: epoch
        for r, epoch in zip(entry.ranges, entry.leader_epochs, strict=False)
        if epoch != NO_EPOCH
    }


async def denied_epochs(environment: LogEnvironment, entry: LedgerEntry) -> dict[int, int]:
    """Return topic -> the offset from which the broker denies that the ledger's last leader epoch reaches its end.

    A broker answers that before it reads: what it can't read it has not denied. Raises LogError.
    """
    denied: dict[int, int] = {}
    unreadable: set[int] = set()
    ends = {r.topic: r.end for r in entry.ranges}
    while epochs := {t: e for t, e in known_epochs(entry).items() if t not in denied.keys() | unreadable}:
        environment.source.resume(entry.lane, ends, epochs)
        try:
            await environment.source.fetch(entry.lane, {t: ends[t] for t in epochs}, FEW_BYTES, 0)
        except LogRewritten as rewritten:
            denied |= rewritten.since
        except UnreadableBatch as error:
            if error.no_memory:
                raise
            unreadable.add(error.topic)
        else:
            break
    return denied


async def changed_since(
    environment: LogEnvironment, entry: LedgerEntry, denied: Mapping[int, int]
) -> dict[int, int]:
    """Return topic -> the first offset before the ledger's end that may hold another record than the ledger's.

    `entry` is the lane's last; {}: the log is the same. `denied` as `denied_epochs` found. A damaged record says nothing
    about others, so the broker's word decides: its topic counts as the same, or as changed from where the broker denies
    its epoch. Raises LogError, SinkError.
    """
    environment.source.resume(entry.lane, {}, {})
    found = {}
    for r in entry.ranges:
        try:
            since = await _changed_since(environment, entry, r, denied.get(r.topic))
        except UnreadableBatch as error:
            if error.no_memory:
                raise
            since = await _denied_from(environment, entry.lane, r, denied.get(r.topic))
        if since is not None:
            found[r.topic] = since
    return found


def same_times(refs: RecordRefs, stored: StoredEvents) -> bool:
    """Whether n records, in any order, match a batch's stored event rows: as many, with the same log times."""
    order = np.lexsort((refs.offset, refs.topic))
    return len(order) == len(stored.offset) and np.array_equal(refs.log_time[order], stored.log_time)


def as_intended(intent: Intent, refs: RecordRefs, clock: I64, leader_epochs: Sequence[int]) -> bool:
    """Whether a batch's records, read again, match its intent: their number, their cut, their leader epochs."""
    if len(refs) != intent.event_rows + intent.dead_rows:
        return False
    cut = (intent.cut_time, intent.cut_topic, intent.cut_offset)
    if len(refs) and (int(clock[-1]), int(refs.topic[-1]), int(refs.offset[-1])) != cut:
        return False
    both = zip(intent.leader_epochs, leader_epochs, strict=False)
    return all(NO_EPOCH in pair or pair[0] == pair[1] for pair in both)


def of_other_records(intent: Intent, table: str) -> LaneHalted:
    """Return the error for rows of a batch in doubt that the log's records don't match, or can't be compared with."""
    return LaneHalted(
        f"lane {intent.lane}: {table} has rows of batch {intent.batch_no} of other records than the log has now, or of "
        "records that can't be read: it was truncated and has grown again, or is damaged",
        reason=HaltReason.ROWS_UNVERIFIED,
        remedy="restore the log; or have the batch written again from the log: "
        + override_command(HaltReason.ROWS_UNVERIFIED, intent.lane),
    )


def refuse_other_records(intent: Intent, there: Mapping[str, int]) -> None:
    """Raise if a batch in doubt has rows (table -> how many) of records that the log no longer has.

    LogRewritten if it is in the ledger, so that the lane starts again and compares the log with it; else LaneHalted.
    """
    if there["ledger"]:
        raise LogRewritten(
            f"batch {intent.batch_no} is in the ledger, and the log has other records now than those it was intended of",
            since={},
            remedy="Nothing to do yet: the lane compares the log with the ledger, and stops where they disagree.",
        )
    if tables := [table for table, rows in there.items() if rows]:
        raise of_other_records(intent, tables[0])


async def _changed_since(
    environment: LogEnvironment, entry: LedgerEntry, r: OffsetRange, denied: int | None
) -> int | None:
    lane, topic, before, until = entry.lane, r.topic, entry.batch_no + 1, r.end
    clock_from = max(0, entry.clock_after - KNOWN_BY_AGE_MS_MAX) if denied is None else 0
    context = DecodeContext(lane, environment.topology.partitions, environment.topology.kinds, 0)
    for looks in range(LOOKS_BACK_MAX):
        record = await environment.sink.last_record(lane, topic, before, clock_from)
        if record is None or await _is_gone(environment, lane, topic, record.offset):
            first = await _first(environment, lane, topic)
            return first if looks else await _first_record(environment, lane, topic, denied, first, until)
        try:
            found = await _records(
                environment, lane, topic, record.offset, until if not looks else record.offset + 1
            )
        except OffsetOutOfRange:
            if not await _is_gone(environment, lane, topic, record.offset):
                raise
            continue  # retention has just removed it
        if _same(found, record, context):
            return record.offset + 1 if looks else None
        before = record.batch_no
    return await _first(environment, lane, topic)


async def _first_record(
    environment: LogEnvironment, lane: int, topic: int, denied: int | None, first: int, until: int
) -> int | None:
    """Return the offset of the first record between a denied offset and the ledger's end, where the tables have none."""
    if denied is None or first >= until:
        return None
    found = await _records(environment, lane, topic, max(denied, first), until)
    return int(found.offset[0]) if len(found) else None


async def _denied_from(
    environment: LogEnvironment, lane: int, r: OffsetRange, denied: int | None
) -> int | None:
    """Return the first offset in the log from which the epoch of the ledger's end is denied, if it is before that end."""
    if denied is None:
        return None
    since = max(denied, await _first(environment, lane, r.topic))
    return since if since < r.end else None


async def _first(environment: LogEnvironment, lane: int, topic: int) -> int:
    return (await environment.source.bounds(lane))[topic].first


async def _is_gone(environment: LogEnvironment, lane: int, topic: int, offset: int) -> bool:
    return offset < await _first(environment, lane, topic)


async def _records(environment: LogEnvironment, lane: int, topic: int, offset: int, until: int) -> RecordRefs:
    """Return the records of a topic from `offset` up to (without) `until`."""
    parts = []
    position, drained = offset, False
    while position < until and not drained:
        [fetched] = await environment.source.fetch(lane, {topic: position}, FEW_BYTES, WAIT_MS)
        refs = walk(fetched)
        parts.append(refs.take(refs.offset < until))
        position, drained = fetched.next_offset, fetched.drained
    return RecordRefs.concat(parts)


def _same(found: RecordRefs, record: LastRecord, context: DecodeContext) -> bool:
    """Whether `found` is this record alone, with nothing after it that the ledger lacks."""
    if found.offset.tolist() != [record.offset] or int(found.log_time[0]) != record.log_time:
        return False
    if record.id_hash is None:
        return True
    decoded = decode(found, context)
    # Another release may have decoded what this one can't: the equal time must do.
    return bool(decoded.status[0] != Malformed.OK or int(decoded.columns.id_hash[0]) == record.id_hash)
