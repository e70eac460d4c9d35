"""What is wrong with a lane at its start: the ledger's end, the committed intent and the log must agree.

Nothing here guesses. The first disagreement halts the lane, and the error says what was found, how to fix it, and which
operator override would resolve it (adledger.pipeline.lanes.overrides).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from adledger.pipeline.errors import LaneHalted
from adledger.pipeline.halts import HaltReason, override_command
from adledger.pipeline.lanes import overrides
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.log_identity import changed_since, denied_epochs, known_epochs
from adledger.pipeline.lanes.overrides import LanePosition, OverrideNeeded
from adledger.pipeline.lanes.snapshot import FIRST_BATCH, LaneEnvironment, LaneSnapshot, Start
from adledger.pipeline.log.epochs import ids_of, log_of, partitions_of
from adledger.sinks.overrides import NO_PARENT, LaneOverride
from adledger.sinks.sink import OffsetRange


async def diagnose(environment: LaneEnvironment, snapshot: LaneSnapshot) -> Start:
    """Return where a lane begins. Raises LaneHalted, mostly with the override that would let it; LogError, SinkError."""
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
        await _check_bounds(environment, snapshot, at, start)
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
            if error.reason is HaltReason.NEWER_INTENT:
                raise
            raise OverrideNeeded(
                error.message, reason=error.reason, proposal=overrides.adopt(at),
                remedy=f"{error.remedy}; then continue from the ledger: {override_command(error.reason, snapshot.lane)}",
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
    if ids_of(then) == ids_of(now) and here % before == 0:
        parent = overrides.parent_of(snapshot.lane, before) if snapshot.entry is None else NO_PARENT
        bounds = await environment.source.bounds(parent) if parent != NO_PARENT else None
        raise OverrideNeeded(
            f"{message}: partitions were added",
            reason=HaltReason.PARTITIONS_ADDED,
            remedy="stop the producers until they know the new partitions, then "
            + override_command(HaltReason.PARTITIONS_ADDED, snapshot.lane),
            proposal=overrides.repartition(at, now, parent, bounds),
        )
    proposal = overrides.skip_to_log(at, then, now, snapshot.bounds)
    if before == here:
        reason, what = HaltReason.TOPIC_RECREATED, "a topic was recreated"
        lost = "give up the unread records of the old topic (how many is unknown)"
    else:
        reason, what = HaltReason.PARTITIONS_UNRELATED, f"{before} partitions became {here}"
        lost = (
            "only a multiple of the old number of partitions keeps each user's window: add partitions up to one; or go on "
            "without (what is sent again after the switch may be billed again)"
        )
    raise OverrideNeeded(
        f"{message}: {what}",
        reason=reason,
        remedy="name the log that the ledger belongs to, or another database and group; or "
        f"{lost}: {override_command(reason, snapshot.lane)}",
        proposal=proposal,
    )


def _pending(snapshot: LaneSnapshot, at: LanePosition, pending: Intent) -> Start:
    starts = {r.topic: r.start for r in pending.ranges}
    follows = pending.is_override or starts == snapshot.positions
    if snapshot.entry is not None and not (follows and pending.clock_before == snapshot.entry.clock_after):
        raise _adoptable(
            at, f"batch {pending.batch_no} begins at {starts}, the ledger ends at {snapshot.positions}"
        )
    return Start(starts, pending.batch_no, pending.clock_before, pending)


async def _check_bounds(
    environment: LaneEnvironment, snapshot: LaneSnapshot, at: LanePosition, start: Start
) -> None:
    """Refuse a log that lacks the next offset, or a part of a batch in doubt.

    Right after an election the log's end may lag behind, so the lane restarts a few times before it halts.
    """
    ends = {r.topic: r.end for r in start.pending.ranges} if start.pending else {}
    for topic, position in start.positions.items():
        bounds, end = snapshot.bounds[topic], ends.get(topic, position)
        if bounds.first <= position and end <= bounds.end:
            continue
        here = replace(at, positions=start.positions)
        proposal = overrides.skip_gap(here, snapshot.bounds)
        if position < bounds.first:
            reason, lost = HaltReason.OFFSETS_GONE, "give up what is gone"
        elif position > bounds.end:
            reason, lost = HaltReason.LOG_TRUNCATED, "continue at the log's end"
        else:
            reason, lost = HaltReason.BATCH_TRUNCATED, "give up the batch, and read on where the ledger ends"
            proposal = overrides.skip_batch(here, ())
        what = f"offset {position} of {environment.topology.topics[topic]} comes next"
        if reason is HaltReason.BATCH_TRUNCATED:
            what += f", batch {at.batch_no} in doubt goes up to {end - 1}"
        raise OverrideNeeded(
            f"lane {snapshot.lane}: {what}, the log holds {bounds.first} to {bounds.end - 1}",
            reason=reason,
            remedy=f"restore the log; or {lost}: {override_command(reason, snapshot.lane)}",
            proposal=await _without_rows(environment, start, proposal),
        )


async def _without_rows(environment: LaneEnvironment, start: Start, proposal: LaneOverride) -> LaneOverride:
    """Return an override that also removes the rows of the batch in doubt, which it replaces."""
    if start.pending is None:
        return proposal
    found = await environment.overrides.leftovers(proposal.lane, proposal.batch_no)
    return replace(proposal, leftovers=tuple(found))


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
        reason=HaltReason.RECORDS_REPLACED,
        remedy="restore the log; or continue after them, and give up the records that are now in their place: "
        + override_command(HaltReason.RECORDS_REPLACED, snapshot.lane),
        proposal=await _without_rows(
            environment, start, overrides.skip_changed(replace(at, positions=start.positions), changed)
        ),
    )


async def _check_beyond(environment: LaneEnvironment, at: LanePosition, start: Start) -> None:
    """Refuse rows of batches that have neither a ledger row nor an intent."""
    allowed = {start.batch_no} if start.pending else set[int]()
    for table, batches in (await environment.sink.last_batches(at.lane, start.batch_no)).items():
        if beyond := sorted(set(batches) - allowed):
            found = await environment.overrides.leftovers(at.lane, beyond[0])
            if not found and not any((await environment.sink.batch_rows(at.lane, beyond[0])).values()):
                continue  # removed since
            raise OverrideNeeded(
                f"lane {at.lane}: {table} holds rows of batch {beyond[0]}, the next batch is {start.batch_no} and was "
                f"{'intended' if start.pending else 'not intended yet'}",
                reason=HaltReason.ROWS_UNEXPLAINED,
                remedy="the log's offsets were reset, or another group writes into this database: stop that one; then "
                f"let the rows be written again: {override_command(HaltReason.ROWS_UNEXPLAINED, at.lane)}",
                proposal=overrides.clear(at, beyond[0], found) if found else None,
            )


def _adoptable(at: LanePosition, what: str) -> OverrideNeeded:
    return OverrideNeeded(
        f"lane {at.lane}: {what}",
        reason=HaltReason.COMMITS_DISAGREE,
        remedy="if this database and this group do not belong together, name the pair that does (--database, "
        "--group); if commits were lost or reset, continue from the ledger: "
        + override_command(HaltReason.COMMITS_DISAGREE, at.lane),
        proposal=overrides.adopt(at),
    )


def _span(ranges: Sequence[OffsetRange]) -> str:
    return ", ".join(f"{r.start} to {r.end - 1} of topic {r.topic}" for r in ranges)
