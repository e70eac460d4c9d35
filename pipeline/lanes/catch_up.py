"""Whether a group has caught up: every lane's ledger has reached the end that the log had at the start."""

import asyncio
from collections.abc import Iterable, Mapping

from adledger.pipeline.log.epochs import log_of
from adledger.pipeline.log.source import OffsetBounds, Source, Topology
from adledger.sinks.sink import LedgerEntry, Sink


class CatchUp:
    """The log's ends at the start, and the lanes that have not reached them yet."""

    def __init__(self, epoch: str, bounds: Mapping[int, Mapping[int, OffsetBounds]]) -> None:
        """`bounds`: lane -> topic -> offsets at the start."""
        self._epoch = epoch
        self._bounds = bounds
        self.missing = set(bounds)

    @classmethod
    async def of(cls, source: Source, topology: Topology) -> "CatchUp":
        """Read where every lane of the log ends now. Raises LogError."""
        lanes = range(topology.partitions)
        bounds = await asyncio.gather(*(source.bounds(lane) for lane in lanes))
        return cls(topology.epoch, dict(zip(lanes, bounds, strict=True)))

    def until(self, lane: int) -> dict[int, int]:
        """Return topic -> the end that a lane must reach."""
        return {topic: bounds.end for topic, bounds in self._bounds[lane].items()}

    def reached(self, lane: int) -> None:
        """Count a lane as done: it has reached its end, or never will."""
        self.missing.discard(lane)

    async def look(self, sink: Sink, lanes: Iterable[int]) -> None:
        """Read the ledger for lanes that other workers own. Raises SinkError."""
        for lane in self.missing.intersection(lanes):
            if covers(await sink.ledger_end(lane), self._epoch, self._bounds[lane]):
                self.reached(lane)


def covers(entry: LedgerEntry | None, epoch: str, bounds: Mapping[int, OffsetBounds]) -> bool:
    """Return whether a lane whose ledger ends with `entry` has reached the ends of `bounds` (topic -> offsets)."""
    if entry is None:
        return all(b.first == b.end for b in bounds.values())
    ends = {r.topic: r.end for r in entry.ranges}
    return log_of(entry.epoch) == epoch and all(ends.get(topic, 0) >= b.end for topic, b in bounds.items())
