"""Tables that grow and shrink with the contents of their window: the memory of the windowed rules."""

from typing import Any

import numpy as np

from adledger.pipeline.kernels import rules_rates, rules_tables
from adledger.pipeline.kernels.slots import Slots, SlotSecret
from adledger.pipeline.records.columns import I64, U8, U32, U64

CAPACITY_MIN = 1 << 10
LOAD_MAX = 0.7
"""The largest share of slots in use; at the limit the table is rebuilt without expired entries."""
LOAD_AFTER_SWEEP_MAX = 0.4
"""A table that would be fuller than this is rebuilt at twice the size, so that sweeps stay rare."""
SWEEP_MS_MAX = 1 << 30
"""Clocks are kept modulo 2^32 ms: after this much log time (12 days) a table is swept, whatever its load."""


class SlotTable:
    """Slots of `stride` words by key (adledger.pipeline.kernels.rules_tables), the newest clock in each.

    `pair_mask`: what of a slot's last word is the second part of its key; 0 for none.
    """

    def __init__(self, stride: int, secret: SlotSecret, pair_mask: int = 0) -> None:
        self._secret = secret
        self._stride = stride
        self._pair_mask = np.uint64(pair_mask)
        self.words: U64 = np.zeros(stride * CAPACITY_MIN, np.uint64)
        self.taken = 0
        self._swept_at = 0

    @property
    def capacity(self) -> int:
        """Slots of the table."""
        return len(self.words) // self._stride

    @property
    def slots(self) -> Slots:
        """What takes a key to its slot."""
        return self._secret.slots(self.capacity)

    @property
    def size_bytes(self) -> int:
        """Bytes of memory."""
        return self.words.nbytes

    def reserve(self, n: int, clock: int, keep_ms: int) -> None:
        """Make room for n more slots; what is older than `keep_ms` at `clock` (ms) may be dropped, and is when space is needed."""
        if self.taken == 0:
            self._swept_at = clock
        old = clock - self._swept_at > SWEEP_MS_MAX
        if not old and self.taken + n <= LOAD_MAX * self.capacity:
            return
        if clock - self._swept_at >= 1 << 31:  # nothing in it is younger: its ages would overflow
            live = 0
        else:
            live = int(rules_tables.count_live(self.words, self._stride, np.uint64(clock), keep_ms))
        words = np.zeros(self._stride * _capacity(live + n), np.uint64)
        if live:
            rules_tables.sweep(
                self.words, self._stride, self._pair_mask, np.uint64(clock), keep_ms, words,
                self._secret.slots(len(words) // self._stride),
            )  # fmt: skip
        self.words, self.taken, self._swept_at = words, live, clock


class SlidingCounts:
    """How many events of each key and source lie in a sliding window: exact, 20 bytes an event and 23 to 92 a key in it."""

    def __init__(self, secret: SlotSecret) -> None:
        self._secret = secret
        self._words: U64 = np.zeros(rules_rates.COUNT_STRIDE * CAPACITY_MIN, np.uint64)
        self._taken = 0
        self._fifo_keys: U64 = np.zeros(CAPACITY_MIN, np.uint64)
        self._fifo_sources: U32 = np.zeros(CAPACITY_MIN, np.uint32)
        self._fifo_clocks: I64 = np.zeros(CAPACITY_MIN, np.int64)
        self._fifo: I64 = np.zeros(2, np.int64)

    @property
    def size_bytes(self) -> int:
        """Bytes of memory."""
        fifo = self._fifo_keys.nbytes + self._fifo_sources.nbytes + self._fifo_clocks.nbytes
        return self._words.nbytes + fifo

    @property
    def events(self) -> int:
        """Events that are remembered."""
        return int(self._fifo[1] - self._fifo[0])

    def count(
        self, keys: U64, sources: U32, clocks: I64, counted: U8, window_ms: int, count_max: int, bit: int, hits: U64,
    ) -> None:  # fmt: skip
        """Set `bit` of hits on the counted rows that have `count_max` or more of their key before them in the window.

        What is counted is a key and its source together: sources whose keys are equal are counted apart.
        """
        n = int(np.count_nonzero(counted))
        if not n:
            return
        self._reserve(n, int(clocks[0]), window_ms)
        self._taken += rules_rates.count_in_window(
            self._words, self._slots(), self._fifo_keys, self._fifo_sources, self._fifo_clocks, self._fifo,
            keys, sources, clocks, counted, window_ms, count_max, np.uint64(1 << bit), hits,
        )  # fmt: skip

    def _slots(self) -> Slots:
        return self._secret.slots(len(self._words) // rules_rates.COUNT_STRIDE)

    def _reserve(self, n: int, clock: int, window_ms: int) -> None:
        rules_rates.expire(
            self._words, self._slots(), self._fifo_keys, self._fifo_sources, self._fifo_clocks, self._fifo, clock,
            window_ms,
        )  # fmt: skip
        wanted = self.events + n
        shrink = 8 * max(wanted, CAPACITY_MIN) < len(self._fifo_keys)
        if wanted > len(self._fifo_keys) or shrink:
            self._resize_fifo(1 << (2 * max(wanted, CAPACITY_MIN // 2) - 1).bit_length())
        if self._taken + n > LOAD_MAX * (len(self._words) // rules_rates.COUNT_STRIDE) or shrink:
            counting = int(np.count_nonzero(self._words[1 :: rules_rates.COUNT_STRIDE] & rules_tables.LOW))
            words = np.zeros(rules_rates.COUNT_STRIDE * _capacity(counting + n), np.uint64)
            slots = self._secret.slots(len(words) // rules_rates.COUNT_STRIDE)
            self._taken = int(rules_rates.keep_counted(self._words, words, slots))
            self._words = words

    def _resize_fifo(self, capacity: int) -> None:
        places = np.arange(self._fifo[0], self._fifo[1]) & (len(self._fifo_keys) - 1)
        self._fifo_keys = _moved(self._fifo_keys, places, capacity)
        self._fifo_sources = _moved(self._fifo_sources, places, capacity)
        self._fifo_clocks = _moved(self._fifo_clocks, places, capacity)
        self._fifo = np.array([0, len(places)], np.int64)


def _moved(values: Any, places: I64, capacity: int) -> Any:
    moved = np.zeros(capacity, values.dtype)
    moved[: len(places)] = values[places]
    return moved


def _capacity(slots: int) -> int:
    capacity = CAPACITY_MIN
    while slots > LOAD_AFTER_SWEEP_MAX * capacity:
        capacity *= 2
    return capacity
