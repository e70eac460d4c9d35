"""Which leader appended the records that were read: the leader epoch before each offset, for fetches to state.

Kafka numbers a partition's leaders, and every record batch carries the epoch of the one that appended it. A fetch that
states the epoch of the batch before its position lets the broker detect that its own log has diverged (KIP-320,
KIP-595): after an unclean election, the same offsets may hold other records. A lane does not only read forward: it reads
a batch in doubt again, then continues at that batch's end, which is in the middle of what it has read. So this module
remembers the epochs of everything that was read and looks them up by position.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

NO_EPOCH = -1
CHANGES_MAX = 64
"""Leader changes remembered per partition, the newest ones; before them the epoch is unknown."""


@dataclass(frozen=True, slots=True)
class EpochRun:
    """Consecutive record batches of one leader epoch: offsets [start, end)."""

    start: int
    end: int
    epoch: int


class LeaderEpochs:
    """The leader epochs of the contiguous offsets that were read from one partition, up to the last fetch."""

    def __init__(self, position: int = 0, epoch: int = NO_EPOCH) -> None:
        """Begin with the epoch before one position, or with nothing."""
        self._end = position
        known = epoch != NO_EPOCH
        self._starts = [position - 1] if known else []  # epoch i is of the offsets behind starts[i]
        self._epochs = [epoch] if known else []

    def before(self, position: int) -> int:
        """Return the leader epoch of the record batch before a position; NO_EPOCH where that was not read."""
        at = bisect_left(self._starts, position)
        return self._epochs[at - 1] if at and position <= self._end else NO_EPOCH

    def read(self, position: int, runs: Sequence[EpochRun]) -> None:
        """Record the result of a fetch at a position; it replaces everything known from there on.

        Offsets without a batch, as compaction leaves them, belong to the batch before them.
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
