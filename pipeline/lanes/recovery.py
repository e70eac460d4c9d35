"""Where a lane goes on: the ledger's end, the committed intent, and the checks that both and the log agree.

Nothing here guesses: what does not fit stops the lane, and says what was found. It goes on when it fits again, or when
a person has ordered what to do (adledger.pipeline.lanes.overrides), and the override fits exactly what is found.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NoReturn, Protocol

from adledger.pipeline.errors import LaneHalted
from adledger.pipeline.lanes import overrides
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.log_identity import Known, changed_since, denied_epochs, known_epochs
from adledger.pipeline.lanes.overrides import COMMANDS, LanePosition, OverrideNeeded
from adledger.pipeline.log.epochs import ids_of, log_of, partitions_of
from adledger.pipeline.log.source import Committed, OffsetBounds, Topology
from adledger.sinks.overrides import NO_PARENT, LaneOverride, OverrideKind, Overrides
from adledger.sinks.sink import LedgerEntry, OffsetRange

FIRST_BATCH = 1
CLOCK_LOOK_SECONDS = 1.0


class Outside(Known, Protocol):
    """What is looked at: the log, ClickHouse, and what people ordered."""

    @property
    def overrides(self) -> Overrides:
        """What people ordered."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a lane begins: offsets by topic, the next batch's number, the clock (ms), and an intent in doubt.

    `epoch` None: the log's own. `awaits`: the repartition override of a new lane, whose parent must be there first.
    `leader_epochs`: topic -> the leader epoch before its position, where the ledger has one that the log does not deny.
    """

    positions: Mapping[int, int]
    batch_no: int
    clock: int
    pending: Intent | None
    epoch: str | None = None
    awaits: LaneOverride | None = None
    leader_epochs: Mapping[int, int] = field(default_factory=dict)

    def after(self, parent: LedgerEntry) -> "Start":
        """Return the start of a new lane whose parent has reached its end: it goes on with the parent's clock."""
        assert self.pending is not None, "a repartition is pending until it is in the ledger"
        clock = parent.clock_after
        pending = replace(self.pending, cut_time=clock, clock_before=clock, clock_after=clock)
        return replace(self, clock=clock, pending=pending, awaits=None)


@dataclass(frozen=True, slots=True)
class Seen:
    """What a lane's start depends on."""

    lane: int
    entry: LedgerEntry | None
    committed: Mapping[int, Committed]
    bounds: Mapping[int, OffsetBounds]

    @property
    def next_batch(self) -> int:
        """The batch after the ledger's last."""
        return self.entry.batch_no + 1 if self.entry else FIRST_BATCH

    @property
    def positions(self) -> dict[int, int]:
        """Where the ledger ends; without one, where the log begins."""
        if self.entry is not None:
            return {r.topic: r.end for r in self.entry.ranges}
        return {t: b.first for t, b in self.bounds.items()}

    def position(self, topology: Topology) -> LanePosition:
        """Return where the lane stands by the ledger."""
        epoch = self.entry.epoch if self.entry else topology.epoch
        return LanePosition(self.lane, self.next_batch, epoch, self.positions)


async def find_start(ports: Outside, lane: int) -> Start:
    """Return where the lane goes on. Raises LaneHalted, LogError, SinkError."""
    while True:
        committed = await ports.source.committed(lane)
        seen = Seen(lane, await ports.sink.ledger_end(lane), committed, await ports.source.bounds(lane))
        try:
            return await diagnose(ports, seen)
        except LaneHalted as stopped:
            # Whoever lost the lane while it looked sees some of it as it was and some as it is now: no reason to
            # alarm anybody. Nothing is inserted without a commit before it, so where the commits have not moved,
            # what was found is so.
            if await ports.source.committed(lane) != committed:
                continue
            override = await _fitting(ports, stopped)
            if override is None:
                raise
        if override.kind is OverrideKind.CLEAR:
            await carry_out_clear(ports, override)
        else:
            return _begin(seen, override)


async def diagnose(ports: Outside, seen: Seen) -> Start:
    """Return where a lane goes on, or raise OverrideNeeded with the override that would let it."""
    at = seen.position(ports.topology)
    intent = _highest(ports, seen, at)
    done = at.batch_no - 1
    pending = intent if intent is not None and intent.batch_no == at.batch_no else None
    if pending is None or not pending.is_override:
        await _check_log(ports, seen, intent)
    elif log_of(pending.epoch) != ports.topology.epoch:
        await _other_log(ports, seen, pending.epoch)
    if intent is None and seen.entry is None:
        start = Start(seen.positions, FIRST_BATCH, 0, None)
    elif intent is None or intent.batch_no not in (done, done + 1):
        raise _adoptable(
            at,
            f"the ledger ends at batch {done}, the group's committed intent is of batch "
            f"{intent.batch_no if intent else 'none'}",
        )
    elif pending is None:
        assert seen.entry is not None, "batch 0 is never intended"
        if intent.ranges != seen.entry.ranges:
            raise _adoptable(
                at,
                f"batch {done} is {_span(seen.entry.ranges)} in the ledger, {_span(intent.ranges)} in the "
                "group's committed intent",
            )
        start = Start(seen.positions, at.batch_no, seen.entry.clock_after, None)
    else:
        start = _pending(seen, at, pending)
    if start.pending is None or not start.pending.is_override:
        _check_bounds(ports, seen, at, start)
        start = replace(start, leader_epochs=await _check_records(ports, seen, at, start))
    await _check_beyond(ports, at, start)
    epoch = start.pending.epoch if start.pending else at.epoch
    return start if epoch == ports.topology.epoch else replace(start, epoch=epoch)


def _highest(ports: Outside, seen: Seen, at: LanePosition) -> Intent | None:
    """Return the intent with the highest batch number among the topics' partitions."""
    found = []
    for t, c in seen.committed.items():
        try:
            intent = Intent.parse(c.metadata, f"lane {seen.lane}, {ports.topology.topics[t]}")
        except LaneHalted as error:
            raise OverrideNeeded(
                error.message, remedy=f"{error.remedy}; {_command(OverrideKind.ADOPT, seen.lane)}", proposal=overrides.adopt(at)
            ) from None  # fmt: skip
        if intent.lane != seen.lane:
            raise _adoptable(at, f"the committed intent is of lane {intent.lane}")
        found.append(intent)
    return max(found, key=lambda i: (i.batch_no, i.send_by), default=None)


async def _check_log(ports: Outside, seen: Seen, intent: Intent | None) -> None:
    """Refuse a log that is not the one that the ledger was written from."""
    now = ports.topology.epoch
    epochs = [e.epoch for e in (seen.entry, intent) if e is not None]
    if not epochs:  # a lane's first batch: what the other lanes came from
        epochs = list(await ports.overrides.epochs())
    others = [epoch for epoch in epochs if log_of(epoch) != now]
    if others:
        same_topics = [e for e in others if ids_of(e) == ids_of(now)]
        await _other_log(ports, seen, max(same_topics or others, key=partitions_of))


async def _other_log(ports: Outside, seen: Seen, then: str) -> NoReturn:
    now = ports.topology.epoch
    at = seen.position(ports.topology)
    message = f"lane {seen.lane}: the ledger was written from another log (epoch {then}), this one is {now}"
    before, here = partitions_of(then), ports.topology.partitions
    if before == here:
        raise OverrideNeeded(
            f"{message}: a topic was made anew",
            remedy="name the log that the ledger belongs to; or give up what the ledger does not have of the old "
            f"topic, how much can't be known: {_command(OverrideKind.SKIP, seen.lane)}",
            proposal=overrides.skip_to_log(at, then, now, seen.bounds),
        )
    if ids_of(then) == ids_of(now) and here % before == 0:
        parent = overrides.parent_of(seen.lane, before) if seen.entry is None else NO_PARENT
        bounds = await ports.source.bounds(parent) if parent != NO_PARENT else None
        raise OverrideNeeded(
            f"{message}: partitions were added",
            remedy="stop the producers until they know of the new partitions, then "
            + _command(OverrideKind.REPARTITION),
            proposal=overrides.repartition(at, now, parent, bounds),
        )
    raise OverrideNeeded(
        f"{message}: {before} partitions became {here}",
        remedy="only a multiple of the old number of partitions keeps each user's window: name the log that the ledger "
        "belongs to, or another database and group",
    )


def _pending(seen: Seen, at: LanePosition, pending: Intent) -> Start:
    starts = {r.topic: r.start for r in pending.ranges}
    follows = pending.is_override or starts == seen.positions
    if seen.entry is not None and not (follows and pending.clock_before == seen.entry.clock_after):
        raise _adoptable(
            at, f"batch {pending.batch_no} begins at {starts}, the ledger ends at {seen.positions}"
        )
    return Start(starts, pending.batch_no, pending.clock_before, pending)


def _check_bounds(ports: Outside, seen: Seen, at: LanePosition, start: Start) -> None:
    for topic, position in start.positions.items():
        held = seen.bounds[topic]
        if held.first <= position <= held.end:
            continue
        message = (
            f"lane {seen.lane}: offset {position} of {ports.topology.topics[topic]} comes next, the log holds "
            f"{held.first} to {held.end - 1}"
        )
        raise OverrideNeeded(
            message,
            remedy=f"restore the log; or give up what is gone: {_command(OverrideKind.SKIP, seen.lane)}",
            proposal=overrides.skip_gap(replace(at, positions=start.positions), seen.bounds),
        )


async def _check_records(ports: Outside, seen: Seen, at: LanePosition, start: Start) -> Mapping[int, int]:
    """Refuse a log whose records are others than those that the ledger has at their offsets.

    Returns topic -> the ledger's last leader epoch, where the log has the same. Where it has not, and yet the same
    records, the epoch is dropped.
    """
    if seen.entry is None:
        return {}
    denied = await denied_epochs(ports, seen.entry)
    changed = await changed_since(ports, seen.entry, denied)
    if not changed:
        return {t: epoch for t, epoch in known_epochs(seen.entry).items() if t not in denied}
    spans = (
        f"{ports.topology.topics[t]} from offset {since} to {start.positions[t] - 1}"
        for t, since in changed.items()
    )
    raise OverrideNeeded(
        f"lane {seen.lane}: the log was truncated and has grown again: other records than the ledger has stand in "
        + ", ".join(spans),
        remedy="restore the log; or go on behind them and give up what stands there now: "
        + _command(OverrideKind.SKIP, seen.lane),
        proposal=overrides.skip_changed(replace(at, positions=start.positions), changed),
    )


async def _check_beyond(ports: Outside, at: LanePosition, start: Start) -> None:
    """Refuse rows of batches that no ledger row and no intent speaks of."""
    allowed = {start.batch_no} if start.pending else set[int]()
    for table, batches in (await ports.sink.last_batches(at.lane, start.batch_no)).items():
        if beyond := sorted(set(batches) - allowed):
            found = await ports.overrides.leftovers(at.lane, beyond[0])
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
        remedy="where this database and this group do not belong together, name the pair that does (--database, "
        "--group); where commits were lost or reset, go on from the ledger: "
        + _command(OverrideKind.ADOPT, at.lane),
        proposal=overrides.adopt(at),
    )


async def _fitting(ports: Outside, stopped: LaneHalted) -> LaneOverride | None:
    """Return the newest override that fits what stopped the lane."""
    wanted = stopped.proposal if isinstance(stopped, OverrideNeeded) else None
    if wanted is None:
        return None
    given = await ports.overrides.of_lane(wanted.lane)
    return next((override for override in reversed(given) if override.fits(wanted)), None)


def _begin(seen: Seen, override: LaneOverride) -> Start:
    """Return the start that carries an override out: its batch is in doubt from the beginning, so doubt settles it."""
    clock = seen.entry.clock_after if seen.entry else 0
    pending = overrides.override_intent(override, clock, 0)
    starts = {r.topic: r.start for r in override.ranges}
    awaits = override if override.parent != NO_PARENT else None
    return Start(starts, override.batch_no, clock, pending, override.epoch, awaits)


async def carry_out_clear(ports: Outside, override: LaneOverride) -> None:
    """Remove what the override names, when nothing of it can arrive any more. Raises SinkError."""
    send_by = max(left.send_by for left in override.leftovers)
    while await ports.sink.server_time() <= send_by:  # noqa: ASYNC110 - another machine's clock
        await asyncio.sleep(CLOCK_LOOK_SECONDS)
    await ports.sink.quiesce(override.lane)
    await ports.overrides.clear(override.lane, override.batch_no, send_by)


def _command(kind: OverrideKind, lane: int | None = None) -> str:
    which = "" if lane is None else f" {lane}"
    return f"adledger lane {COMMANDS[kind]}{which} --reason TEXT --dry-run"


def _span(ranges: Sequence[OffsetRange]) -> str:
    return ", ".join(f"{r.start} to {r.end - 1} of topic {r.topic}" for r in ranges)
