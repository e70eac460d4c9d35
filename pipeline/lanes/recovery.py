"""Where a lane begins: after the ledger's end, at the committed intent, or by an operator override.

A lane that is halted continues when what was found agrees again, or when an operator has written an override
(adledger.pipeline.lanes.overrides) that matches exactly what was found. What only shows while records are read or computed
is not found here: then an override names the lane's next batch and position, and the place to go on at.
"""

import asyncio

from adledger.pipeline.errors import LaneHalted
from adledger.pipeline.lanes import overrides
from adledger.pipeline.lanes.diagnosis import diagnose
from adledger.pipeline.lanes.overrides import OverrideNeeded
from adledger.pipeline.lanes.snapshot import LaneEnvironment, LaneSnapshot, Start
from adledger.sinks.overrides import NO_PARENT, LaneOverride, OverrideKind

CLOCK_POLL_SECONDS = 1.0


async def find_start(environment: LaneEnvironment, lane: int) -> Start:
    """Return where the lane begins. Raises LaneHalted, LogError, SinkError."""
    while True:
        snapshot = await LaneSnapshot.take(environment, lane)
        try:
            start = await diagnose(environment, snapshot)
            given_up = await _given_up(environment, snapshot, start)
            return start if given_up is None else _begin(snapshot, given_up)
        except LaneHalted as halted:
            # A worker that lost the lane while it looked sees a mix of old and new, which is no reason to alarm an
            # operator. Nothing is inserted without a commit before it, so what was found is true if the commits
            # have not moved.
            if await environment.source.committed(lane) != snapshot.committed:
                continue
            override = await _matching_override(environment, halted)
            if override is None:
                raise
        if override.kind is OverrideKind.CLEAR:
            await apply_clear(environment, override)
        else:
            return _begin(snapshot, override)


async def _given_up(
    environment: LaneEnvironment, snapshot: LaneSnapshot, start: Start
) -> LaneOverride | None:
    """Return the newest override that gives up what comes next, up to a place that an operator named."""
    if start.pending is not None and start.pending.is_override:
        return None
    at = snapshot.position(environment.topology)
    stored = await environment.overrides.of_lane(at.lane)
    return next((o for o in reversed(stored) if overrides.gives_up_at(o, at)), None)


async def _matching_override(environment: LaneEnvironment, halted: LaneHalted) -> LaneOverride | None:
    """Return the newest override that matches what halted the lane."""
    wanted = halted.proposal if isinstance(halted, OverrideNeeded) else None
    if wanted is None:
        return None
    stored = await environment.overrides.of_lane(wanted.lane)
    return next((override for override in reversed(stored) if override.fits(wanted)), None)


def _begin(snapshot: LaneSnapshot, override: LaneOverride) -> Start:
    """Return the start that applies an override: its batch is in doubt from the beginning, so doubt settles it."""
    clock = snapshot.entry.clock_after if snapshot.entry else 0
    pending = overrides.override_intent(override, clock, 0)
    starts = {r.topic: r.start for r in override.ranges}
    awaits = override if override.parent != NO_PARENT else None
    return Start(starts, override.batch_no, clock, pending, override.epoch, awaits)


async def apply_clear(environment: LaneEnvironment, override: LaneOverride) -> None:
    """Remove the rows that the override names, once no more of them can arrive. Raises SinkError."""
    send_by = max(left.send_by for left in override.leftovers)
    while await environment.sink.server_time() <= send_by:  # noqa: ASYNC110 - another machine's clock
        await asyncio.sleep(CLOCK_POLL_SECONDS)
    await environment.sink.quiesce(override.lane)
    await environment.overrides.clear(override.lane, override.batch_no, send_by)
