"""Where a lane goes on: the ledger's end, the committed intent, and the checks that both and the log agree.

Nothing here guesses: what does not fit stops the lane, and says what was found.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import LaneStopped
from pipeline.lanes.intent import Intent
from pipeline.lanes.ports import Ports
from pipeline.log.source import Committed, OffsetBounds
from sinks.sink import LedgerEntry, OffsetRange

FIRST_BATCH = 1


@dataclass(frozen=True, slots=True)
class Start:
    """Where a lane begins: offsets by topic, the next batch's number, the clock (ms), and an intent in doubt."""

    positions: Mapping[int, int]
    batch_no: int
    clock: int
    pending: Intent | None


async def find_start(ports: Ports, lane: int) -> Start:
    """Return where the lane goes on. Raises LaneStopped, LogError, SinkError."""
    while True:
        committed = await ports.source.committed(lane)
        try:
            return await _find_start(ports, lane, _highest(ports, lane, committed))
        except LaneStopped:
            # Whoever lost the lane while it looked sees some of it as it was and some as it is now: no reason to
            # alarm anybody. Nothing is inserted without a commit before it, so where the commits have not moved,
            # what was found is so.
            if await ports.source.committed(lane) == committed:
                raise


async def _find_start(ports: Ports, lane: int, intent: Intent | None) -> Start:
    entry = await ports.sink.ledger_end(lane)
    bounds = await ports.source.bounds(lane)
    start = _agree(lane, entry, intent, bounds)
    if start.pending is not None and start.pending.epoch != ports.topology.epoch:
        _stop_epoch(lane, start.pending.epoch, ports.topology.epoch)
    if entry is not None and entry.epoch != ports.topology.epoch:
        _stop_epoch(lane, entry.epoch, ports.topology.epoch)
    for topic, position in start.positions.items():
        if not bounds[topic].first <= position <= bounds[topic].end:
            raise LaneStopped(
                f"lane {lane}: offset {position} of {ports.topology.topics[topic]} comes next, the log holds "
                f"{bounds[topic].first} to {bounds[topic].end - 1}",
                remedy="restore the log; records that are gone can only be given up by a person, never skipped over",
            )
    await _check_beyond(ports, lane, start)
    return start


def _highest(ports: Ports, lane: int, committed: Mapping[int, Committed]) -> Intent | None:
    """Return the intent with the highest batch number among the topics' partitions."""
    found = [
        Intent.parse(c.metadata, f"lane {lane}, {ports.topology.topics[t]}") for t, c in committed.items()
    ]
    for intent in found:
        if intent.lane != lane:
            raise LaneStopped(
                f"lane {lane}: the committed intent is of lane {intent.lane}",
                remedy="offsets were committed by hand, or copied between partitions: restore the group's offsets",
            )
    return max(found, key=lambda i: (i.batch_no, i.send_by), default=None)


def _agree(
    lane: int, entry: LedgerEntry | None, intent: Intent | None, bounds: Mapping[int, OffsetBounds]
) -> Start:
    if entry is None and intent is None:
        return Start({t: b.first for t, b in bounds.items()}, FIRST_BATCH, 0, None)
    ends = {r.topic: r.end for r in entry.ranges} if entry else None
    done = entry.batch_no if entry else FIRST_BATCH - 1
    if intent is None or intent.batch_no not in (done, done + 1):
        raise LaneStopped(
            f"lane {lane}: the ledger ends at batch {done}, the group's committed intent is of batch "
            f"{intent.batch_no if intent else 'none'}",
            remedy="this database and this group do not belong together: name the pair that does (--database, "
            "--group), or begin with a new database and a new group",
        )
    if intent.batch_no == done and entry is not None and ends is not None:
        if intent.ranges != entry.ranges:
            raise LaneStopped(
                f"lane {lane}: batch {done} is {_span(entry.ranges)} in the ledger, {_span(intent.ranges)} in the "
                "group's committed intent",
                remedy="this database and this group do not belong together: name the pair that does",
            )
        return Start(ends, done + 1, entry.clock_after, None)
    starts = {r.topic: r.start for r in intent.ranges}
    if (
        ends is not None
        and entry is not None
        and (starts != ends or intent.clock_before != entry.clock_after)
    ):
        raise LaneStopped(
            f"lane {lane}: batch {intent.batch_no} begins at {starts}, the ledger ends at {ends}",
            remedy="compare the ledger with the group's committed offsets; one of them was altered",
        )
    return Start(starts, intent.batch_no, intent.clock_before, intent)


async def _check_beyond(ports: Ports, lane: int, start: Start) -> None:
    """Refuse rows of batches that no ledger row and no intent speaks of."""
    allowed = {start.batch_no} if start.pending else set[int]()
    for table, batches in (await ports.sink.last_batches(lane, start.batch_no)).items():
        if beyond := sorted(set(batches) - allowed):
            raise LaneStopped(
                f"lane {lane}: {table} holds rows of batch {beyond[0]}, the next batch is {start.batch_no} and was "
                f"{'intended' if start.pending else 'not intended yet'}",
                remedy="the log's offsets were reset, or another group writes into this database",
            )


def _span(ranges: Sequence[OffsetRange]) -> str:
    return ", ".join(f"{r.start} to {r.end - 1} of topic {r.topic}" for r in ranges)


def _stop_epoch(lane: int, then: str, now: str) -> None:
    raise LaneStopped(
        f"lane {lane}: the ledger was written from another log (epoch {then}), this one is {now}",
        remedy="a topic was made anew, or its partitions changed: name the log that the ledger belongs to, or another "
        "database and group",
    )
