"""What an operator may override: from what halted a lane to the one override that resolves it, without I/O.

An override names exactly what was found. The lane looks again before it applies one, so it can tell whether it still
matches. It becomes a batch of the ledger by the normal protocol, with an intent and a ledger row, but without records or
money; the offsets that it gives up are counted as `lost`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adledger.pipeline import halts
from adledger.pipeline.errors import LaneHalted
from adledger.pipeline.halts import HaltReason
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.log.epochs import ids_of, truncated
from adledger.pipeline.log.source import OffsetBounds
from adledger.sinks.overrides import NO_PARENT, LaneOverride, Leftover, OverrideKind, OverrideStore
from adledger.sinks.sink import OffsetRange

COMMANDS = {
    OverrideKind.SKIP: halts.SKIP,
    OverrideKind.GIVE_UP: halts.SKIP,
    OverrideKind.ADOPT: halts.RESOLVE,
    OverrideKind.CLEAR: halts.RESOLVE,
    OverrideKind.REPARTITION: halts.REPARTITION,
}
"""Kind -> the command of `adledger lane` that overrides it."""

NO_OFFSET = -1


class OverrideNeeded(LaneHalted):
    """A lane found what it must not guess about; `proposal` is the override that would resolve it (None: none would be right)."""

    def __init__(
        self, message: str, *, reason: HaltReason, remedy: str, proposal: LaneOverride | None
    ) -> None:
        super().__init__(message, reason=reason, remedy=remedy)
        self.proposal = proposal


@dataclass(frozen=True, slots=True)
class LanePosition:
    """A lane's position: its next batch, its epoch, and its offsets by topic."""

    lane: int
    batch_no: int
    epoch: str
    positions: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A lane whose users another lane took over, up to (and without) a batch."""

    lane: int
    before_batch_no: int


def skip_gap(at: LanePosition, bounds: Mapping[int, OffsetBounds]) -> LaneOverride:
    """Return the override that gives up what the log no longer holds or, if it was truncated, begins a new epoch.

    In the new epoch a truncated topic begins at its end: which records it lost is unknown.
    """
    cut_short = any(position > bounds[t].end for t, position in at.positions.items())
    ranges = []
    for t, position in sorted(at.positions.items()):
        start = min(position, bounds[t].end)
        ranges.append(OffsetRange(t, start, max(start, bounds[t].first)))
    epoch = truncated(at.epoch) if cut_short else at.epoch
    return LaneOverride(at.lane, at.batch_no, OverrideKind.SKIP, epoch, tuple(ranges))


def skip_changed(at: LanePosition, changed: Mapping[int, int]) -> LaneOverride:
    """Return the override that continues, in a new epoch, after records that replaced those of the ledger.

    `changed`: topic -> the first replaced offset. The new records there are given up: the ledger has counted those
    offsets, and some of the new records may be the same events, sent again.
    """
    ranges = tuple(
        OffsetRange(t, changed.get(t, position), position) for t, position in sorted(at.positions.items())
    )
    return LaneOverride(at.lane, at.batch_no, OverrideKind.SKIP, truncated(at.epoch), ranges)


def skip_to_log(at: LanePosition, then: str, now: str, bounds: Mapping[int, OffsetBounds]) -> LaneOverride:
    """Return the override that switches to recreated topics, each from its first offset; other topics keep theirs."""
    same = [a == b for a, b in zip(ids_of(then).split(","), ids_of(now).split(","), strict=False)]
    starts = {t: at.positions[t] if t < len(same) and same[t] else b.first for t, b in bounds.items()}
    return LaneOverride(at.lane, at.batch_no, OverrideKind.SKIP, now, _empty(starts))


def skip_batch(at: LanePosition, rows: Sequence[Leftover]) -> LaneOverride:
    """Return the override that gives up an intent, and the batch's rows, but no offsets: the lane reads them again."""
    return LaneOverride(
        at.lane, at.batch_no, OverrideKind.SKIP, at.epoch, _empty(at.positions), leftovers=tuple(rows)
    )


def give_up(at: LanePosition, ends: Mapping[int, int], rows: Sequence[Leftover]) -> LaneOverride:
    """Return the override that gives up offsets from the lane's position up to (without) `ends`, by topic, that an operator names.

    `rows` are the next batch's, if it was intended: they are removed.
    """
    ranges = tuple(OffsetRange(t, start, ends.get(t, start)) for t, start in sorted(at.positions.items()))
    return LaneOverride(at.lane, at.batch_no, OverrideKind.GIVE_UP, at.epoch, ranges, leftovers=tuple(rows))


def gives_up_at(override: LaneOverride, at: LanePosition) -> bool:
    """Whether an operator named a place for exactly this position of the lane."""
    starts = {r.topic: r.start for r in override.ranges}
    return (
        override.kind is OverrideKind.GIVE_UP
        and (override.lane, override.batch_no, override.epoch) == (at.lane, at.batch_no, at.epoch)
        and starts == dict(at.positions)
    )


def adopt(at: LanePosition) -> LaneOverride:
    """Return the override that trusts the ledger's end, whatever the group has committed."""
    return LaneOverride(at.lane, at.batch_no, OverrideKind.ADOPT, at.epoch, _empty(at.positions))


def clear(at: LanePosition, batch_no: int, leftovers: Sequence[Leftover]) -> LaneOverride:
    """Return the override that removes the rows of a batch beyond the ledger's end."""
    return LaneOverride(at.lane, batch_no, OverrideKind.CLEAR, at.epoch, (), leftovers=tuple(leftovers))


def repartition(
    at: LanePosition,
    epoch: str,
    parent: int = NO_PARENT,
    parent_bounds: Mapping[int, OffsetBounds] | None = None,
) -> LaneOverride:
    """Return the override that switches to more partitions at these offsets; a new lane begins after its parent.

    The parent has the new lane's users up to the offsets where its partition ends when this is written.
    """
    ends = tuple(b.end for _, b in sorted((parent_bounds or {}).items()))
    return LaneOverride(
        at.lane, at.batch_no, OverrideKind.REPARTITION, epoch, _empty(at.positions), parent, ends
    )


def parent_of(lane: int, partitions_before: int) -> int:
    """Return the lane that had a new lane's users before: murmur2(key) % (n P) % P = murmur2(key) % P."""
    return NO_PARENT if lane < partitions_before else lane % partitions_before


def override_intent(override: LaneOverride, clock: int, send_by: int) -> Intent:
    """Return the intent of the batch that an override becomes; it has no rows and does not move the watermark (ms)."""
    return Intent(
        epoch=override.epoch, lane=override.lane, batch_no=override.batch_no, ranges=override.ranges,
        cut_time=clock, cut_topic=0, cut_offset=NO_OFFSET, clock_before=clock, clock_after=clock,
        event_rows=0, dead_rows=0, judge_version=0, send_by=send_by, is_override=True,
    )  # fmt: skip


async def lineage(overrides: OverrideStore, lane: int) -> tuple[Ancestor, ...]:
    """Return the lanes that had this lane's users before it, oldest first; none for a lane of the first epoch."""
    for override in reversed(await overrides.of_lane(lane)):
        if override.kind is OverrideKind.REPARTITION and override.parent != NO_PARENT:
            entry = await overrides.entry_reaching(override.parent, override.parent_ends)
            if entry is None:  # beyond the ledger's retention, and so beyond every window
                return ()
            return (*await lineage(overrides, override.parent), Ancestor(override.parent, entry.batch_no + 1))
    return ()


def _empty(positions: Mapping[int, int]) -> tuple[OffsetRange, ...]:
    return tuple(OffsetRange(t, offset, offset) for t, offset in sorted(positions.items()))
