"""The offsets at which a lane goes on: `adledger lane skip N --to TOPIC=OFFSET`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adledger.pipeline.errors import AdledgerError, UsageError

if TYPE_CHECKING:
    from adledger.pipeline.control.owners import Owner
    from adledger.pipeline.lanes.inspect import LaneLook
    from adledger.pipeline.lanes.overrides import LanePosition

GIVEN_UP_IN = frozenset({"", "halted", "waiting"})
"""Phases of an owner in which offsets may be given up: it is halted, may soon be, or is unknown."""


def position_to_leave(look: "LaneLook", owner: "Owner | None") -> "LanePosition":
    """Return a lane's position. Raises AdledgerError if the lane works, or if another reason halts it, which comes first."""
    if look.next is None:
        raise AdledgerError(
            f"lane {look.lane} is halted for another reason, which comes first: {look.trouble}",
            remedy=look.remedy,
        )
    if owner is not None and owner.phase not in GIVEN_UP_IN:
        raise AdledgerError(
            f"lane {look.lane} is not halted: it is {owner.phase} at {owner.worker}",
            remedy="nothing to do; stop its worker first if offsets must be given up nevertheless",
        )
    return look.next


def offsets_to(look: "LaneLook", at: "LanePosition", to: Sequence[str]) -> dict[int, int]:
    """Return topic index -> the offset at which to go on. Raises UsageError."""
    found: dict[int, int] = {}
    for text in to:
        name, _, offset = text.rpartition("=")
        topic = look.topics.index(name) if name in look.topics else None
        if topic is None or not (offset.isdecimal() or offset == "end"):
            raise UsageError(
                f"--to {text}: not TOPIC=OFFSET",
                remedy=f"name one of {', '.join(look.topics)}, and an offset or `end`",
            )
        here, bounds = at.positions[topic], look.bounds[topic]
        found[topic] = bounds.end if offset == "end" else int(offset)
        if not here <= found[topic] <= bounds.end:
            raise UsageError(
                f"--to {text}: lane {look.lane} is at offset {here} of {name}, and the log ends at {bounds.end}",
                remedy=f"name an offset from {here} to {bounds.end}",
            )
    if all(offset == at.positions[topic] for topic, offset in found.items()):
        raise UsageError(
            f"--to {' --to '.join(to)}: lane {look.lane} is there already, so nothing would be given up",
            remedy="name a later offset: see adledger lane status",
        )
    return found
