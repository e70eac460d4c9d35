"""What `adledger lane` writes: the state of lanes, and overrides in words."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adledger.pipeline.cli.output import err, out_table

if TYPE_CHECKING:
    from adledger.pipeline.control.owners import Owner, Owners
    from adledger.pipeline.lanes.inspect import LaneLook
    from adledger.pipeline.settings import Settings
    from adledger.sinks.overrides import LaneOverride

REBUILDING, HALTED = "rebuilding", "halted"


def as_its_owner_says(look: "LaneLook", owner: "Owner | None") -> "LaneLook":
    """Return a lane with its owner's reason to halt, if it has one that only shows while it works."""
    from adledger.pipeline.halts import HaltReason

    if look.trouble or owner is None or owner.phase != HALTED:
        return look
    reason = next((reason for reason in HaltReason if reason == owner.halt_reason), None)
    return replace(look, trouble=owner.detail, remedy=owner.remedy, halt_reason=reason)


def describe(settings: "Settings", override: "LaneOverride") -> str:
    """Return in words what an override does."""
    from adledger.sinks.overrides import NO_PARENT, OverrideKind

    ranges = [
        f"{_topic(settings, r.topic)} {r.start:,} to {r.end - 1:,}"
        for r in override.ranges
        if r.end > r.start
    ]
    begins = ", ".join(f"{_topic(settings, r.topic)} at {r.end:,}" for r in override.ranges)
    if override.kind is OverrideKind.CLEAR:
        return f"remove {_rows(override)}; the batch is then written again"
    if override.kind is OverrideKind.REPARTITION:
        parent = (
            "" if override.parent == NO_PARENT
            else f", with the window of lane {override.parent} once that has reached "
            + ", ".join(f"{end:,}" for end in override.parent_ends)
        )  # fmt: skip
        return f"switch to epoch {override.epoch}: {begins}{parent}"
    removed = f"; remove {_rows(override)}" if override.leftovers else ""
    lost = f"{override.lost:,} offsets lost ({'; '.join(ranges)})" if ranges else "no known offset is lost"
    return f"{lost}{removed}; continue at {begins}, epoch {override.epoch}"


def _rows(override: "LaneOverride") -> str:
    return ", ".join(f"{left.rows:,} rows of {left.table}" for left in override.leftovers)


def print_lanes(looks: Sequence["LaneLook"], owners: "Owners") -> None:
    """Print a line per lane, and on stderr what is wrong; lanes with the same message share one."""
    out_table(
        ("lane", "batch", "log holds", "ledger at", "lag", "intended", "owner", "phase", "state"),
        [
            (
                str(look.lane),
                look.batch_no,
                " ".join(f"{b.first}..{b.end}" for _, b in sorted(look.bounds.items())),
                " ".join(str(p) for _, p in sorted(look.positions.items())) or "-",
                look.lag,
                "-" if look.pending is None else f"batch {look.pending.batch_no}",
                "-" if (owner := owners.of(look.lane)) is None else owner.worker,
                _phase(owner),
                _state(look, owners),
            )
            for look in looks
        ],
    )
    for line in group_lines(owners):
        err(line)
    messages = [(look.lane, f"{look.trouble}\n  remedy: {look.remedy}") for look in looks if look.trouble]
    messages += [
        (look.lane, f"lane {look.lane}: {owner.phase or 'unknown'}: {owner.detail}")
        for look in looks
        if not look.trouble and (owner := owners.of(look.lane)) is not None and owner.detail
        and (owner.phase != REBUILDING or owner.detail not in _phase(owner))
    ]  # fmt: skip
    for line in merged(messages):
        err(line)


def _state(look: "LaneLook", owners: "Owners") -> str:
    if look.trouble:
        return "OVERRIDDEN" if look.overridden else "HALTED"
    return "NO WORKER" if look.lag and owners.of(look.lane) is None else "ok"


def group_lines(owners: "Owners") -> list[str]:
    """Return notes about the whole group: it has no members, or it is rebalancing."""
    from adledger.pipeline.control.owners import REBALANCING

    if not owners.workers:
        return ["no worker has the group's lanes: start one with adledger run"]
    if owners.state in REBALANCING:
        return [f"the group is rebalancing ({owners.state}): try again in a few seconds"]
    return []


def merged(messages: Sequence[tuple[int, str]]) -> list[str]:
    """Return lanes' messages; those that differ only in the lane's number become one that names all of these lanes."""
    alike: dict[str, list[tuple[int, str]]] = {}
    for number, text in messages:
        alike.setdefault(text.replace(f"lane {number}:", "lane N:"), []).append((number, text))
    return [
        lanes[0][1]
        if len(lanes) == 1
        else text.replace("lane N:", f"lanes {', '.join(str(number) for number, _ in lanes)}:")
        for text, lanes in alike.items()
    ]


def _phase(owner: "Owner | None") -> str:
    """Return the phase of a lane at its owner; for a rebuild, with its progress."""
    if owner is None:
        return "-"
    if owner.phase == REBUILDING and owner.detail.endswith(" ids"):
        return f"{owner.phase}, {owner.detail}"
    return owner.phase or "unknown"


def lane_json(settings: "Settings", look: "LaneLook", owner: "Owner | None") -> dict[str, Any]:
    """Return a lane for --json."""
    return {
        "lane": look.lane,
        "owner": {
            "worker": owner.worker,
            "pages": owner.pages or None,
            "phase": owner.phase or None,
            "since": owner.since or None,
            "detail": owner.detail or None,
        }
        if owner
        else None,
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
        "halt_reason": look.halt_reason,
        "remedy": look.remedy or None,
        "command": look.command or None,
        "overridden": look.overridden,
    }


def override_json(settings: "Settings", override: "LaneOverride") -> dict[str, Any]:
    """Return an override for --json."""
    return {
        "lane": override.lane,
        "batch_no": override.batch_no,
        "kind": str(override.kind),
        "epoch": override.epoch,
        "ranges": {_topic(settings, r.topic): [r.start, r.end] for r in override.ranges},
        "lost": override.lost,
        "parent": override.parent if override.parent >= 0 else None,
        "parent_ends": list(override.parent_ends),
        "rows_removed": {left.table: left.rows for left in override.leftovers},
        "reason": override.reason,
        "author": override.author,
    }


def _topic(settings: "Settings", topic: int) -> str:
    return settings.topics[topic] if topic < len(settings.topics) else f"topic {topic}"
