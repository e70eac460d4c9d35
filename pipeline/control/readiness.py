"""Whether a worker is ready: it has joined, and none of its lanes is stalled."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from adledger.pipeline.lanes.emit import Event
from adledger.pipeline.lanes.events import BatchDone, Halted, LaneReleased, Phase, PhaseChanged

STALL_SECONDS = 60.0
"""A lane that has work and has completed no batch for this long is stalled."""

AT_WORK = (Phase.RUNNING, Phase.IDLE)


@dataclass(frozen=True, slots=True)
class LaneActivity:
    """What a lane is doing, and since when (seconds since the epoch)."""

    lane: int
    phase: Phase
    since: float
    detail: str = ""
    progressed_at: float = 0.0  # when it last completed a batch, or entered its phase
    halt_reason: str = ""  # HaltReason
    remedy: str = ""  # what lets it continue


class Readiness:
    """Remembers each lane's phase. `clock` returns seconds since the epoch."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lanes: dict[int, LaneActivity] = {}

    def emit(self, event: Event) -> None:
        """Follow an event."""
        match event:
            case PhaseChanged(lane, phase, detail):
                self._enter(lane, phase, detail)
            case BatchDone(entry):
                self._progressed(entry.lane)
            case Halted(lane, _, remedy, reason) if lane in self._lanes:
                self._lanes[lane] = replace(self._lanes[lane], halt_reason=reason or "", remedy=remedy)
            case LaneReleased(lane):
                self._lanes.pop(lane, None)

    def _enter(self, lane: int, phase: Phase, detail: str) -> None:
        """Remember the phase, and when it was first reported."""
        before = self._lanes.get(lane)
        if before is not None and before.phase is phase:
            if before.detail != detail:
                self._lanes[lane] = replace(before, detail=detail)
            return
        now = self._clock()
        self._lanes[lane] = LaneActivity(lane, phase, now, detail, now)

    def _progressed(self, lane: int) -> None:
        before = self._lanes.get(lane)
        if before is not None:
            self._lanes[lane] = replace(before, progressed_at=self._clock())

    def lanes(self) -> list[LaneActivity]:
        """Return what each lane of this worker is doing, by number."""
        return [self._lanes[lane] for lane in sorted(self._lanes)]

    def stalled(self) -> list[LaneActivity]:
        """Return the lanes that have work and make no progress."""
        now = self._clock()
        return [
            lane
            for lane in self.lanes()
            if lane.phase not in AT_WORK
            or (lane.phase is Phase.RUNNING and now - lane.progressed_at > STALL_SECONDS)
        ]
