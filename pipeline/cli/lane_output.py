"""What `adledger lane` writes: lanes as they stand, and orders in words."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pipeline.cli.output import err, out_table

if TYPE_CHECKING:
    from pipeline.lanes.inspect import LaneLook
    from pipeline.settings import Settings
    from sinks.orders import LaneOrder


def told(settings: "Settings", order: "LaneOrder") -> str:
    """Return in words what an order does."""
    from sinks.orders import NO_PARENT, OrderKind

    ranges = [
        f"{_topic(settings, r.topic)} {r.start:,} to {r.end - 1:,}" for r in order.ranges if r.end > r.start
    ]
    begins = ", ".join(f"{_topic(settings, r.topic)} at {r.end:,}" for r in order.ranges)
    if order.kind is OrderKind.CLEAR:
        rows = ", ".join(f"{left.rows:,} rows of {left.table}" for left in order.leftovers)
        return f"remove {rows}; the batch is then written again"
    if order.kind is OrderKind.BARRIER:
        parent = (
            "" if order.parent == NO_PARENT
            else f", with the window of lane {order.parent} when that has reached "
            + ", ".join(f"{end:,}" for end in order.parent_ends)
        )  # fmt: skip
        return f"go over to epoch {order.epoch}: {begins}{parent}"
    lost = f"{order.lost:,} offsets lost ({'; '.join(ranges)})" if ranges else "no known offset is lost"
    return f"{lost}; go on with {begins}, epoch {order.epoch}"


def print_lanes(looks: Sequence["LaneLook"]) -> None:
    """Print a line a lane, and below what is wrong."""
    out_table(
        ("lane", "batch", "log holds", "ledger at", "lag", "under way", "state"),
        [
            (
                str(look.lane),
                look.batch_no,
                " ".join(f"{b.first}..{b.end}" for _, b in sorted(look.bounds.items())),
                " ".join(str(p) for _, p in sorted(look.positions.items())) or "-",
                look.lag,
                "-" if look.pending is None else f"batch {look.pending.batch_no}",
                "ok" if not look.trouble else "ordered" if look.ordered else "STANDS STILL",
            )
            for look in looks
        ],
    )
    for look in looks:
        if look.trouble:
            err(f"{look.trouble}\n  remedy: {look.remedy}")


def lane_json(settings: "Settings", look: "LaneLook") -> dict[str, Any]:
    """Return a lane for --json."""
    return {
        "lane": look.lane,
        "batch_no": look.batch_no,
        "clock_ms": look.clock,
        "positions": {_topic(settings, t): p for t, p in look.positions.items()},
        "log": {_topic(settings, t): {"first": b.first, "end": b.end} for t, b in look.bounds.items()},
        "lag_records": look.lag,
        "intended_batch_no": look.pending.batch_no if look.pending else None,
        "intended_rows": {"events": look.pending.event_rows, "dead_letters": look.pending.dead_rows}
        if look.pending
        else None,
        "rows_beyond": dict(look.rows),
        "trouble": look.trouble or None,
        "remedy": look.remedy or None,
        "command": look.command or None,
        "ordered": look.ordered,
    }


def order_json(settings: "Settings", order: "LaneOrder") -> dict[str, Any]:
    """Return an order for --json."""
    return {
        "lane": order.lane,
        "batch_no": order.batch_no,
        "kind": str(order.kind),
        "epoch": order.epoch,
        "ranges": {_topic(settings, r.topic): [r.start, r.end] for r in order.ranges},
        "lost": order.lost,
        "parent": order.parent if order.parent >= 0 else None,
        "parent_ends": list(order.parent_ends),
        "rows_removed": {left.table: left.rows for left in order.leftovers},
        "reason": order.reason,
        "author": order.author,
    }


def _topic(settings: "Settings", topic: int) -> str:
    return settings.topics[topic] if topic < len(settings.topics) else f"topic {topic}"
