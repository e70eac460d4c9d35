"""A lane that a worker owns, and the operator overrides that are looked for while it is halted."""

import asyncio
from dataclasses import dataclass, field

from adledger.pipeline.errors import LaneHalted, SinkError
from adledger.pipeline.halts import HaltReason, override_command
from adledger.pipeline.lanes.catch_up import CatchUp
from adledger.pipeline.lanes.delivery import NO_INTENT, SentIntent
from adledger.pipeline.lanes.lane import Lane
from adledger.pipeline.lanes.ports import Ports
from adledger.pipeline.lanes.state import CachedState
from adledger.pipeline.log.source import Assignment
from adledger.sinks.overrides import OverrideStore


@dataclass(frozen=True, slots=True)
class Remembered:
    """What a lane leaves to its next run in this process: its state, and the intent that it sent last."""

    cached: CachedState | None = None
    sent: SentIntent = NO_INTENT


NOTHING = Remembered()


@dataclass(slots=True)
class OwnedLane:
    """A lane that this worker owns. Each start makes a new `lane`; `earlier` is of an earlier assignment."""

    assignment: Assignment
    earlier: Remembered = NOTHING
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    lane: Lane | None = None
    task: asyncio.Task[None] | None = None

    def next_lane(self, ports: Ports, slots: asyncio.Semaphore, catch_up: CatchUp | None) -> Lane:
        """Return the lane to run now, with the cached state of the one before it or of an earlier assignment.

        Raises LaneHalted: the lane belongs to partitions that were added after this worker joined.
        """
        number, partitions = self.assignment.lane, ports.topology.partitions
        if number >= partitions:
            raise LaneHalted(
                f"lane {number}: partitions were added: there were {partitions} when this worker began. It continues "
                "with those, and reads nothing from the new ones",
                reason=HaltReason.PARTITIONS_ADDED,
                remedy="stop the producers until they know the new partitions, and every worker of the group; then "
                f"{override_command(HaltReason.PARTITIONS_ADDED, number)} (docs/partitions.md has the procedure)",
            )
        until = catch_up.until(number) if catch_up is not None else None
        before, self.earlier = self.remembered, NOTHING
        self.lane = Lane(ports, self.assignment, slots, until, before.cached, before.sent)
        return self.lane

    @property
    def remembered(self) -> Remembered:
        """What the last run left; before the first one, what an earlier assignment did."""
        return self.earlier if self.lane is None else Remembered(self.lane.cached, self.lane.sent)

    def drop(self) -> None:
        """Forget the lane and its state: it may be wrong."""
        self.lane, self.earlier = None, NOTHING

    def stop(self) -> None:
        """Let the lane finish its current batch and end; one that has not begun ends at once."""
        self.stopping.set()
        if self.lane is not None:
            self.lane.stop()
            if self.lane.starting and self.task is not None:
                self.task.cancel()

    async def stopped_within(self, seconds: float) -> bool:
        """Wait, and return whether `stop` was called within `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                return await self.stopping.wait()
        except TimeoutError:
            return False


class OverrideWatch:
    """Tells whether a lane has overrides that were not there at the first look."""

    def __init__(self, overrides: OverrideStore, lane: int) -> None:
        """Watch a lane; the caller takes the first look."""
        self._overrides, self._lane = overrides, lane
        self._known: int | None = None

    async def has_new(self) -> bool:
        """Whether there is a new override since the last look; if ClickHouse does not answer, there is none yet."""
        try:
            given = len(await self._overrides.of_lane(self._lane))
        except SinkError:
            return False
        known, self._known = self._known, given
        return known is not None and given > known
