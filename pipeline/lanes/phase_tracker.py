"""Which phase a lane is in: told of when it changes, however often it is entered."""

from adledger.pipeline.lanes.emit import Emit
from adledger.pipeline.lanes.events import Phase, PhaseChanged


class PhaseTracker:
    """The phase of one run of a lane, which begins by reading its state back."""

    def __init__(self, lane: int, emit: Emit) -> None:
        self._lane, self._emit = lane, emit
        self.current = PhaseChanged(lane, Phase.REBUILDING)
        emit(self.current)

    def enter(self, phase: Phase, detail: str = "") -> None:
        """Be in a phase from now on."""
        self.resume(PhaseChanged(self._lane, phase, detail))

    def resume(self, before: PhaseChanged) -> None:
        """Be in the phase of before again."""
        if before != self.current:
            self.current = before
            self._emit(before)
