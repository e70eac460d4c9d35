"""What is wrong with a lane at its start: the ledger's end, the committed intent and the log must agree.

Nothing here guesses. The first disagreement halts the lane, and the error says what was found, how to fix it, and which
operator override would resolve it (adledger.pipeline.lanes.overrides).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from adledger.pipeline.errors import LaneHalted
from adledger.pipeline.lanes import overrides
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.log_identity import changed_since, denied_epochs, known_epochs
from adledger.pipeline.lanes.overrides import COMMANDS, LanePosition, OverrideNeeded
from adledger.pipeline.lanes.snapshot import FIRST_BATCH, LaneEnvironment, LaneSnapshot, Start
from adledger.pipeline.log.epochs import ids_of, log_of, partitions_of
from adledger.sinks.overrides import NO_PARENT, OverrideKind
from adledger.sinks.sink import OffsetRange


async def diagnose(environment: LaneEnvironment, snapshot: LaneSnapshot) -> Start:
    """Return where a lane begins. Raises OverrideNeeded, with the override that would let it; LogError, SinkError."""
    at = snapshot.position(environment.topology)
    intent = _highest(environment, snapshot, at)
    done = at.batch_no - 1
    pending = intent if intent is not None and intent.batch_no == at.batch_no else None
    if pending is None or not pending.is_override:
        await _check_log(environment, snapshot, intent)
    elif log_of(pending.epoch) != environment.topology.epoch:
        await _other_log(environment, snapshot, pending.epoch)
    if intent is None and snapshot.entry is None:
        start = Start(snapshot.positions, FIRST_BATCH, 0, None)
    elif intent is None or intent.batch_no not in (done, done + 1):
        raise _adoptable(
            at,
            f"the ledger ends at batch {done}, the group's committed intent is of batch "
            f"{intent.batch_no if intent else 'none'}",
        )
    elif pending is None:
        assert snapshot.entry is not None, "batch 0 is never intended"
        if intent.ranges != snapshot.entry.ranges:
            raise _adoptable(
                at,
                f"batch {done} is {_span(snapshot.entry.ranges)} in the ledger, {_span(intent.ranges)} in the "
                "group's committed intent",
            )
        start = Start(snapshot.positions, at.batch_no, snapshot.entry.clock_after, None)
    else:
        start = _pending(snapshot, at, pending)
    if start.pending is None or not start.pending.is_override:
        _check_bounds(environment, snapshot, at, start)
        start = replace(start, leader_epochs=await _check_records(environment, snapshot, at, start))
    await _check_beyond(environment, at, start)
    epoch = start.pending.epoch if start.pending else at.epoch
    return start if epoch == environment.topology.epoch else replace(start, epoch=epoch)


def _highest(environment: LaneEnvironment, snapshot: LaneSnapshot, at: LanePosition) -> Intent | None:
    """Return the intent with the highest batch number among the topics' partitions."""
    found = []
    for t, c in snapshot.committed.items():
        try:
            intent = Intent.parse(c.metadata, f"lane {snapshot.lane}, {environment.topology.topics[t]}")
        except LaneHalted as error:
            raise OverrideNeeded(
                error.message, remedy=f"{error.remedy}; {_command(OverrideKind.ADOPT, snapshot.lane)}", proposal=overrides.adopt(at)
            ) from None  # fmt: skip
        if intent.lane != snapshot.lane:
            raise _adoptable(at, f"the committed intent is of lane {intent.lane}")
        found.append(intent)
    return max(found, key=lambda i: (i.batch_no, i.send_by), default=None)


async def _check_log(environment: LaneEnvironment, snapshot: LaneSnapshot, intent: Intent | None) -> None:
    """Refuse a log other than the one that the ledger was written from."""
    now = environment.topology.epoch
    epochs = [e.epoch for e in (snapshot.entry, intent) if e is not None]
    if not epochs:  # a lane's first batch: the other lanes' epochs
        epochs = list(await environment.overrides.epochs())
    others = [epoch for epoch in epochs if log_of(epoch) != now]
    if others:
        same_topics = [e for e in others if ids_of(e) == ids_of(now)]
        await _other_log(environment, snapshot, max(same_topics or others, key=partitions_of))


async def _other_log(environment: LaneEnvironment, snapshot: LaneSnapshot, then: str) -> NoReturn:
    now = environment.topology.epoch
    at = snapshot.position(environment.topology)
    message = (
        f"lane {snapshot.lane}: the ledger was written from another log (epoch {then}), this log is {now}"
    )
    before, here = partitions_of(then), environment.topology.partitions
    if before == here:
        raise OverrideNeeded(
            f"{message}: a topic was recreated",
            remedy="name the log that the ledger belongs to; or give up the unread records of the old topic (how many is "
            f"unknown): {_command(OverrideKind.SKIP, snapshot.lane)}",
            proposal=overrides.skip_to_log(at, then, now, snapshot.bounds),
        )
    if ids_of(then) == ids_of(now) and here % before == 0:
        parent = overrides.parent_of(snapshot.lane, before) if snapshot.entry is None else NO_PARENT
        bounds = await environment.source.bounds(parent) if parent != NO_PARENT else None
        raise OverrideNeeded(
            f"{message}: partitions were added",
            remedy="stop the producers until they know the new partitions, then "
            + _command(OverrideKind.REPARTITION),
            proposal=overrides.repartition(at, now, parent, bounds),
        )
    raise OverrideNeeded(
        f"{message}: {before} partitions became {here}",
        remedy="only a multiple of the old number of partitions keeps each user's window: name the log that the ledger "
        "belongs to, or another database and group",
    )


def _pending(snapshot: LaneSnapshot, at: LanePosition, pending: Intent) -> Start:
    starts = {r.topic: r.start for r in pending.ranges}
    follows = pending.is_override or starts == snapshot.positions
    if snapshot.entry is not None and not (follows and pending.clock_before == snapshot.entry.clock_after):
        raise _adoptable(
            at, f"batch {pending.batch_no} begins at {starts}, the ledger ends at {snapshot.positions}"
        )
    return Start(starts, pending.batch_no, pending.clock_before, pending)


def _check_bounds(
    environment: LaneEnvironment, snapshot: LaneSnapshot, at: LanePosition, start: Start
) -> None:
    for topic, position in start.positions.items():
        bounds = snapshot.bounds[topic]
        if bounds.first <= position <= bounds.end:
            continue
        message = (
            f"lane {snapshot.lane}: offset {position} of {environment.topology.topics[topic]} comes next, the log holds "
            f"{bounds.first} to {bounds.end - 1}"
        )
        raise OverrideNeeded(
            message,
            remedy=f"restore the log; or give up what is gone: {_command(OverrideKind.SKIP, snapshot.lane)}",
            proposal=overrides.skip_gap(replace(at, positions=start.positions), snapshot.bounds),
        )


async def _check_records(
    environment: LaneEnvironment, snapshot: LaneSnapshot, at: LanePosition, start: Start
) -> Mapping[int, int]:
    """Refuse a log that holds other records at offsets that the ledger has.

    Returns topic -> the ledger's last leader epoch, if the log has the same one. If it has another, and yet the same
    records, the epoch is dropped.
    """
    if snapshot.entry is None:
        return {}
    denied = await denied_epochs(environment, snapshot.entry)
    changed = await changed_since(environment, snapshot.entry, denied)
    if not changed:
        return {t: epoch for t, epoch in known_epochs(snapshot.entry).items() if t not in denied}
    spans = (
        f"{environment.topology.topics[t]} from offset {since} to {start.positions[t] - 1}"
        for t, since in changed.items()
    )
    raise OverrideNeeded(
        f"lane {snapshot.lane}: the log was truncated and has grown again: it holds other records than the ledger in "
        + ", ".join(spans),
        remedy="restore the log; or continue after them, and give up the records that are now in their place: "
        + _command(OverrideKind.SKIP, snapshot.lane),
        proposal=overrides.skip_changed(replace(at, positions=start.positions), changed),
    )


async def _check_beyond(environment: LaneEnvironment, at: LanePosition, start: Start) -> None:
    """Refuse rows of batches that have neither a ledger row nor an intent."""
    allowed = {start.batch_no} if start.pending else set[int]()
    for table, batches in (await environment.sink.last_batches(at.lane, start.batch_no)).items():
        if beyond := sorted(set(batches) - allowed):
            found = await environment.overrides.leftovers(at.lane, beyond[0])
            raise OverrideNeeded(
                f"lane {at.lane}: {table} holds rows of batch {beyond[0]}, the next batch is {start.batch_no} and was "
                f"{'intended' if start.pending else 'not intended yet'}",
                remedy="the log's offsets were reset, or another group writes into this database: stop that one; then "
                f"let the rows be written again: {_command(OverrideKind.CLEAR, at.lane)}",
                proposal=overrides.clear(at, beyond[0], found) if found else None,
            )


def _adoptable(at: LanePosition, what: str) -> OverrideNeeded:
    return OverrideNeeded(
        f"lane {at.lane}: {what}",
        remedy="if this database and this group do not belong together, name the pair that does (--database, "
        "--group); if commits were lost or reset, continue from the ledger: "
        + _command(OverrideKind.ADOPT, at.lane),
        proposal=overrides.adopt(at),
    )


def _command(kind: OverrideKind, lane: int | None = None) -> str:
    which = "" if lane is None else f" {lane}"
    return f"adledger lane {COMMANDS[kind]}{which} --reason TEXT --dry-run"


def _span(ranges: Sequence[OffsetRange]) -> str:
    return ", ".join(f"{r.start} to {r.end - 1} of topic {r.topic}" for r in ranges)
