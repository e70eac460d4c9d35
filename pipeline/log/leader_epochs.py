"""Which leader appended what was read: the leader epoch before each offset, so that a fetch can name it.

Kafka numbers a partition's leaders, and every record batch carries the epoch of the one that appended it. A fetch that
names the epoch of the batch before its position lets the broker object where its own log has another past (KIP-320,
KIP-595): after an unclean election other records may stand where these were read. A lane does not only read on: it
reads the batch in doubt again, then from that batch's end, in the middle of what it has read. So the epochs of all that
was read are remembered, and looked up by position.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

NO_EPOCH = -1
CHANGES_MAX = 64
"""Changes of the leader that are remembered of one partition, the newest; before them the epoch is not known."""


@dataclass(frozen=True, slots=True)
class EpochRun:
    """Record batches of one leader epoch that follow on one another: offsets [start, end)."""

    start: int
    end: int
    epoch: int


class LeaderEpochs:
    """The leader epochs of what was read of one partition, without a gap, up to the last fetch."""

    def __init__(self, position: int = 0, epoch: int = NO_EPOCH) -> None:
        """Know of what stands before one position, or of nothing."""
        self._end = position
        known = epoch != NO_EPOCH
        self._starts = [position - 1] if known else []  # epoch i is of the offsets behind starts[i]
        self._epochs = [epoch] if known else []

    def before(self, position: int) -> int:
        """Return the leader epoch of the record batch before a position; NO_EPOCH where that was not read."""
        at = bisect_left(self._starts, position)
        return self._epochs[at - 1] if at and position <= self._end else NO_EPOCH

    def read(self, position: int, runs: Sequence[EpochRun]) -> None:
        """Remember what a fetch at a position brought, in the place of what was read from there on before.

        Offsets without a batch, as compaction leaves them, count to the batch before them.
        """
        if not runs:
            return
        if self.before(position) == NO_EPOCH:
            self._starts, self._epochs = [], []
        kept = bisect_left(self._starts, min(position, runs[0].start))
        del self._starts[kept:], self._epochs[kept:]
        for run in runs:
            if not self._epochs or self._epochs[-1] != run.epoch:
                self._starts.append(run.start)
                self._epochs.append(run.epoch)
        del self._starts[:-CHANGES_MAX], self._epochs[:-CHANGES_MAX]
        self._end = runs[-1].end
