"""Merge: the records of a lane's topics in one order, and where a batch is cut.

The order is (time, topic, offset), where a record's *time* is the running maximum of its topic's log times, starting
from the watermark before the batch; it is the watermark at that record. So the order of a batch depends only on the
records in its ranges and on `clock_before`, both of which the ledger keeps.

A batch is cut at a position in that order, inclusively: the smallest position among the last fetched records of the
topics that are not drained to their end, or earlier at a limit or at the end of the log day.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from adledger.pipeline.records.columns import I64, RecordRefs

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Pending:
    """Fetched records of one topic that are in no batch yet, in offset order; `drained`: the log has nothing after them."""

    refs: RecordRefs
    drained: bool


@dataclass(frozen=True, slots=True)
class CutPosition:
    """A position in the lane's order: time (ms), topic index, offset."""

    time: int
    topic: int
    offset: int


@dataclass(frozen=True, slots=True)
class OrderedRecords:
    """Records in the lane's order, with the watermark (ms) at each."""

    refs: RecordRefs
    clock: I64

    @classmethod
    def none(cls) -> "OrderedRecords":
        """Return no records."""
        empty = RecordRefs.empty()
        return cls(empty, empty.offset)


@dataclass(frozen=True, slots=True)
class Cut:
    """A batch's records, `taken[t]` of topic t's pending; `position` is the last one's."""

    taken: tuple[int, ...]
    records: OrderedRecords
    position: CutPosition


def cut(pending: Sequence[Pending], clock_before: int, rows_max: int, bytes_max: int) -> Cut | None:
    """Return the next batch, or None while nothing can be cut: a topic that may bring earlier records has none here."""
    times = [_times(p.refs, clock_before) for p in pending]
    counts = _cuttable(pending, times)
    if counts is None or not any(counts):
        return None
    first = min(int(t[0]) for t, n in zip(times, counts, strict=True) if n)
    day_end = (first // DAY_MS + 1) * DAY_MS
    counts = [min(n, int(np.searchsorted(t, day_end))) for t, n in zip(times, counts, strict=True)]
    refs = RecordRefs.concat([p.refs.take(slice(0, n)) for p, n in zip(pending, counts, strict=True) if n])
    clock = np.concatenate([t[:n] for t, n in zip(times, counts, strict=True)])
    # Topics are concatenated, each ascending: a stable sort by time merges the runs, ties by topic, offset.
    order = np.argsort(clock, kind="stable")[:rows_max]
    size = np.cumsum(np.maximum(refs.value_len[order], 0), dtype=np.int64)
    order = order[: max(1, int(np.searchsorted(size, bytes_max, side="right")))]
    refs, clock = refs.take(order), clock[order]
    taken = tuple(int(n) for n in np.bincount(refs.topic, minlength=len(pending)))
    last = CutPosition(int(clock[-1]), int(refs.topic[-1]), int(refs.offset[-1]))
    return Cut(taken, OrderedRecords(refs, clock), last)


def merge_all(parts: Sequence[RecordRefs], clock_before: int) -> OrderedRecords:
    """Return the records of known ranges in the lane's order, to recompute a batch."""
    refs = RecordRefs.concat([p for p in parts if len(p)])
    clock = np.concatenate([_times(p, clock_before) for p in parts]) if parts else np.zeros(0, np.int64)
    order = np.argsort(clock, kind="stable")
    return OrderedRecords(refs.take(order), clock[order])


def _times(refs: RecordRefs, clock_before: int) -> I64:
    times: I64 = np.maximum.accumulate(np.maximum(refs.log_time, clock_before))
    return times


def _cuttable(pending: Sequence[Pending], times: Sequence[I64]) -> list[int] | None:
    """Return how many records of each topic are at or before the smallest last position of the topics not drained."""
    bounds = []
    for topic, p in enumerate(pending):
        if p.drained:
            continue
        if not len(p.refs):
            return None
        bounds.append((int(times[topic][-1]), topic))
    if not bounds:
        return [len(p.refs) for p in pending]
    time, topic = min(bounds)
    return [
        int(np.searchsorted(t, time, side="right" if i <= topic else "left")) for i, t in enumerate(times)
    ]
