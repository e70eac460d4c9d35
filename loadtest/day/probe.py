"""What a sample can't show: how much a lookup in the dedupe table costs at the whole day's size.

A sample's lane holds a sixtieth of the ids that a lane of the whole day holds. Its table is small enough to be near the
caches; the whole day's is gigabytes, and each lookup goes to memory. So the lookup is timed separately at both sizes.
"""

import time
from dataclasses import dataclass

import numpy as np

from adledger.pipeline.stages.dedupe import DedupeState

WINDOW_MS = 24 * 3_600_000
FILL_ROWS = 1_000_000
TIMED_EVENTS = 1_000_000


@dataclass(frozen=True, slots=True)
class Probe:
    """CPU of deduplication (us an event) in a table of `ids` ids, of the sample's lane and of the whole day's."""

    sample_ids: int
    sample_us: float
    whole_ids: int
    whole_us: float

    @property
    def extra_us(self) -> float:
        """The extra cost of an event in the whole day."""
        return max(0.0, self.whole_us - self.sample_us)


def probe(sample_ids: int, whole_ids: int, batch_rows: int) -> Probe:
    """Fill a table of each size, and time events of batches in it. Takes the memory of one whole lane's table."""
    return Probe(sample_ids, dedupe_us(sample_ids, batch_rows), whole_ids, dedupe_us(whole_ids, batch_rows))


def dedupe_us(ids: int, batch_rows: int) -> float:
    """Return the CPU (us) of an event whose id is new, in a table that holds `ids`."""
    state, random = DedupeState(WINDOW_MS), np.random.default_rng(1)
    state.reserve(ids)

    def apply(rows: int) -> float:
        keys = random.integers(1, 2**63, rows, np.uint64)
        prints, clocks, live = np.ones(rows, np.uint32), np.full(rows, WINDOW_MS), np.ones(rows, np.bool_)
        begin = time.thread_time()
        state.apply(keys, keys >> np.uint64(31), prints, clocks, live)
        return time.thread_time() - begin

    for first in range(0, ids, FILL_ROWS):
        apply(min(FILL_ROWS, ids - first))
    timed = min(TIMED_EVENTS, max(batch_rows, ids // 8))  # too few to let the table grow
    batches = max(1, timed // batch_rows)
    return sum(apply(batch_rows) for _ in range(batches)) / (batches * batch_rows) * 1e6
