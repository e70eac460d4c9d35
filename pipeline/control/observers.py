"""One observer that tells several."""

from collections.abc import Mapping, Sequence

from adledger.pipeline.lanes.ports import Observer, Phase
from adledger.schemas.classes import Reason
from adledger.sinks.sink import LedgerEntry


class Observers:
    """Tells every one of some observers, in their order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def phase(self, lane: int, phase: Phase, detail: str = "") -> None:
        """Tell all."""
        for observer in self._observers:
            observer.phase(lane, phase, detail)

    def stage(self, stage: str, seconds: float) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.stage(stage, seconds)

    def inserted(self, table: str, outcome: str) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.inserted(table, outcome)

    def fetched(self, lane: int, topic: str, size: int, lag: int) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.fetched(lane, topic, size, lag)

    def not_evaluated(self, events: Mapping[Reason, int]) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.not_evaluated(events)

    def alert(self, kind: str) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.alert(kind)

    def batch_done(self, entry: LedgerEntry, dedupe_entries: int) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.batch_done(entry, dedupe_entries)

    def forget(self, lane: int) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.forget(lane)
