"""What a person may order a lane that stands still to do: pure, from what the lane found to the one order that fits it.

An order names exactly what was found, so that the lane, which looks again before it carries one out, can tell that
it still fits. It becomes a batch of the ledger by the normal protocol: intent, ledger row; with no records, no money,
and the offsets given up counted as `lost`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adledger.pipeline.errors import LaneStopped
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.log.epochs import ids_of, truncated
from adledger.pipeline.log.source import OffsetBounds
from adledger.sinks.orders import NO_PARENT, LaneOrder, Leftover, OrderKind, OrderStore
from adledger.sinks.sink import OffsetRange

COMMANDS = {
    OrderKind.SKIP: "skip",
    OrderKind.ADOPT: "resolve",
    OrderKind.CLEAR: "resolve",
    OrderKind.BARRIER: "barrier",
}
"""Kind -> the command of `adledger lane` that orders it."""

NO_OFFSET = -1


class StandsStill(LaneStopped):
    """A lane found what it must not guess about; `proposal` is the order that would let it go on (None: there is none)."""

    def __init__(self, message: str, *, remedy: str, proposal: LaneOrder | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.proposal = proposal


@dataclass(frozen=True, slots=True)
class Place:
    """Where a lane stands: the batch that comes next, its epoch, and its offsets by topic."""

    lane: int
    batch_no: int
    epoch: str
    positions: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Ancestor:
    """A lane whose users a lane took over, with the first of its batches that is not part of the past."""

    lane: int
    before_batch_no: int


def skip_gap(place: Place, bounds: Mapping[int, OffsetBounds]) -> LaneOrder:
    """Return the order that gives up what the log no longer holds, or, where it was truncated, begins a new epoch.

    In the new epoch a truncated topic begins at its end: which records stood there before can't be known.
    """
    cut_short = any(position > bounds[t].end for t, position in place.positions.items())
    ranges = []
    for t, position in sorted(place.positions.items()):
        start = min(position, bounds[t].end)
        ranges.append(OffsetRange(t, start, max(start, bounds[t].first)))
    epoch = truncated(place.epoch) if cut_short else place.epoch
    return LaneOrder(place.lane, place.batch_no, OrderKind.SKIP, epoch, tuple(ranges))


def skip_changed(place: Place, changed: Mapping[int, int]) -> LaneOrder:
    """Return the order that goes on behind records that came in the place of others, in a new epoch.

    `changed`: topic -> where they begin. What stands there now is given up: what the ledger has of those offsets was
    counted, and whether some of it stands there again can't be known.
    """
    ranges = tuple(
        OffsetRange(t, changed.get(t, position), position) for t, position in sorted(place.positions.items())
    )
    return LaneOrder(place.lane, place.batch_no, OrderKind.SKIP, truncated(place.epoch), ranges)


def skip_to_log(place: Place, then: str, now: str, bounds: Mapping[int, OffsetBounds]) -> LaneOrder:
    """Return the order that goes over to topics that were made anew, each from its first offset; the others go on."""
    same = [a == b for a, b in zip(ids_of(then).split(","), ids_of(now).split(","), strict=False)]
    starts = {t: place.positions[t] if t < len(same) and same[t] else b.first for t, b in bounds.items()}
    return LaneOrder(place.lane, place.batch_no, OrderKind.SKIP, now, _empty(starts))


def adopt(place: Place) -> LaneOrder:
    """Return the order that trusts the ledger's end, whatever the group has committed."""
    return LaneOrder(place.lane, place.batch_no, OrderKind.ADOPT, place.epoch, _empty(place.positions))


def clear(place: Place, batch_no: int, leftovers: Sequence[Leftover]) -> LaneOrder:
    """Return the order that removes the rows of a batch beyond the ledger's end."""
    return LaneOrder(place.lane, batch_no, OrderKind.CLEAR, place.epoch, (), leftovers=tuple(leftovers))


def barrier(
    place: Place, epoch: str, parent: int = NO_PARENT, parent_bounds: Mapping[int, OffsetBounds] | None = None
) -> LaneOrder:
    """Return the order that goes over to more partitions: at its offsets, and a new lane only after its parent.

    The parent has the new lane's users up to the offsets where its partition ends when this is ordered.
    """
    ends = tuple(b.end for _, b in sorted((parent_bounds or {}).items()))
    return LaneOrder(
        place.lane, place.batch_no, OrderKind.BARRIER, epoch, _empty(place.positions), parent, ends
    )


def parent_of(lane: int, partitions_before: int) -> int:
    """Return the lane that had a new lane's users before: murmur2(key) % (n P) % P = murmur2(key) % P."""
    return NO_PARENT if lane < partitions_before else lane % partitions_before


def order_intent(order: LaneOrder, clock: int, send_by: int) -> Intent:
    """Return the intent of the batch that an order becomes; it moves no clock (ms) and has no rows."""
    return Intent(
        epoch=order.epoch, lane=order.lane, batch_no=order.batch_no, ranges=order.ranges,
        cut_time=clock, cut_topic=0, cut_offset=NO_OFFSET, clock_before=clock, clock_after=clock,
        event_rows=0, dead_rows=0, judge_version=0, send_by=send_by, ordered=True,
    )  # fmt: skip


async def lineage(orders: OrderStore, lane: int) -> tuple[Ancestor, ...]:
    """Return the lanes that had this lane's users before it, oldest first; none for a lane of the first epoch."""
    for order in reversed(await orders.orders(lane)):
        if order.kind is OrderKind.BARRIER and order.parent != NO_PARENT:
            entry = await orders.entry_reaching(order.parent, order.parent_ends)
            if entry is None:  # beyond the ledger's retention, and so beyond every window
                return ()
            return (*await lineage(orders, order.parent), Ancestor(order.parent, entry.batch_no + 1))
    return ()


def _empty(positions: Mapping[int, int]) -> tuple[OffsetRange, ...]:
    return tuple(OffsetRange(t, offset, offset) for t, offset in sorted(positions.items()))
