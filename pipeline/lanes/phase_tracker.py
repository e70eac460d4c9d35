"""A lane's phase, reported only when it changes."""

from adledger.pipeline.lanes.emit import Emit
from adledger.pipeline.lanes.events import Phase, PhaseChanged


class PhaseTracker:
    """The phase of one run of a lane, which begins with a rebuild."""

    def __init__(self, lane: int, emit: Emit) -> None:
        self._lane, self._emit = lane, emit
        self.current = PhaseChanged(lane, Phase.REBUILDING)
        emit(self.current)

    def enter(self, phase: Phase, detail: str = "") -> None:
        """Enter a phase."""
        self.resume(PhaseChanged(self._lane, phase, detail))

    def resume(self, before: PhaseChanged) -> None:
        """Return to an earlier phase."""
        if before != self.current:
            self.current = before
            self._emit(before)
