"""Dedupe: the first of its key within the window counts; a later one is a duplicate.

State depends only on the lane's earlier events: the key, fingerprint and watermark of each first.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

from adledger.pipeline.kernels import dedupe as kernels
from adledger.pipeline.kernels.slots import KNOWN_SECRET, Slots, SlotSecret
from adledger.pipeline.records.columns import I64, U8, U32, U64, Bool
from adledger.pipeline.stages.merge import DAY_MS

CAPACITY_MIN = 1 << 12
LOAD_MAX = 0.6
"""The largest share of used slots; at the limit the table is rebuilt without expired entries."""
CLOCK_SPAN_MS = 2**31 - 2
"""Clocks are kept as 31-bit offsets from the base (24 days); beyond that the base moves up."""


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Which rows are duplicates, and which of those have a payload other than the first's (u8, 0 or 1)."""

    duplicate: U8
    conflict: U8


class DedupeState:
    """The ids of the window. Memory: 20 bytes a slot, 33 to 80 bytes an id."""

    def __init__(self, window_ms: int, secret: SlotSecret = KNOWN_SECRET) -> None:
        """Begin empty. `secret` only decides in which slots entries are."""
        if not 0 < window_ms < CLOCK_SPAN_MS // 2:
            raise ValueError(f"window_ms must be in 1..{CLOCK_SPAN_MS // 2 - 1}, not {window_ms}")
        self.window_ms = window_ms
        self._secret = secret
        self._table, self._publishers = _empty(CAPACITY_MIN)
        self._taken = 0
        self._base = 0

    @property
    def capacity(self) -> int:
        """Slots of the table."""
        return len(self._table) // 2

    @property
    def taken(self) -> int:
        """Used slots: ids in the window, and expired ones that are not dropped yet."""
        return self._taken

    @property
    def size_bytes(self) -> int:
        """Bytes of memory that the table takes."""
        return self._table.nbytes + self._publishers.nbytes

    @property
    def slots(self) -> Slots:
        """Where keys go now."""
        return self._secret.slots(self.capacity)

    def probes(self, keys: U64, sources: U64) -> int:
        """Return how many slots looking up n events reads, in all: at best one each."""
        return int(kernels.probes(self._table, self._publishers, self.slots, keys, sources))

    def apply(self, keys: U64, sources: U64, fingerprints: U32, clocks: I64, live: Bool) -> Duplicates:
        """Classify n rows in lane order and enter the firsts. `clocks` is the watermark (ms), never decreasing."""
        n = len(keys)
        out = Duplicates(np.zeros(n, np.uint8), np.zeros(n, np.uint8))
        if n:
            self._reserve(n, int(clocks[0]), int(clocks[-1]))
            self._taken += kernels.dedupe(
                self._table, self._publishers, self.slots, self._base, self.window_ms,
                keys, sources, fingerprints, clocks, live, out.duplicate, out.conflict,
            )  # fmt: skip
        return out

    def reserve(self, n: int) -> None:
        """Make room for n entries before the first arrives: growing step by step would move them repeatedly."""
        capacity = _capacity_for(n)
        if self._taken == 0 and capacity > self.capacity:
            self._table, self._publishers = _empty(capacity)

    def load(self, keys: U64, sources: U64, fingerprints: U32, clocks: I64) -> None:
        """Enter firsts read back from `events`, in any order; they span at most one window."""
        if len(keys):
            self._reserve(len(keys), int(clocks.min()), int(clocks.max()))
            self._taken += kernels.load(
                self._table, self._publishers, self.slots, self._base, keys, sources, fingerprints, clocks
            )

    def entries(self, clock: int) -> dict[tuple[int, int], tuple[int, int]]:
        """Return (key, source) -> (fingerprint, clock ms) of the entries within the window at `clock`, for comparison."""
        words = self._table.reshape(-1, 2)
        taken = words[:, 1] != 0
        words, publishers = words[taken], self._publishers[taken].astype(np.uint64)
        clocks = (words[:, 1] >> np.uint64(32) & np.uint64(0x7FFFFFFF)).astype(np.int64) - 1 + self._base
        sources = publishers << np.uint64(1) | words[:, 1] >> np.uint64(63)
        keep = clock - clocks <= self.window_ms
        prints = words[:, 1] & np.uint64(0xFFFFFFFF)
        return {
            (int(k), int(s)): (int(f), int(c))
            for k, s, f, c in zip(words[keep, 0], sources[keep], prints[keep], clocks[keep], strict=True)
        }

    def _reserve(self, n: int, clock_first: int, clock_last: int) -> None:
        """Make room for n more entries up to `clock_last`; drops entries that are expired at `clock_first`."""
        if self._taken == 0:
            # Blocks are read back in any order: a later one may begin up to a window earlier.
            self._base = clock_first - self.window_ms - DAY_MS
        fits = self._taken + n <= LOAD_MAX * self.capacity
        if fits and clock_last - self._base < CLOCK_SPAN_MS:
            return
        base = max(self._base, clock_first - self.window_ms - DAY_MS)
        if clock_last - base >= CLOCK_SPAN_MS:
            raise ValueError(
                f"one batch spans {clock_last - clock_first} ms of log time; cut it at the log day"
            )
        oldest = base - self._base + 1
        live = kernels.count_live(self._table, oldest) if self._taken else 0
        capacity = _capacity_for(live + n)
        table, publishers = _empty(capacity)
        if live:
            slots = self._secret.slots(capacity)
            kernels.rehash(self._table, self._publishers, oldest, base - self._base, table, publishers, slots)
        self._table, self._publishers, self._taken, self._base = table, publishers, live, base


def _empty(capacity: int) -> tuple[U64, U32]:
    return np.zeros(2 * capacity, np.uint64), np.zeros(capacity, np.uint32)


def _capacity_for(n: int) -> int:
    capacity = CAPACITY_MIN
    while n > LOAD_MAX * capacity * 0.75:
        capacity *= 2
    return capacity


class PlainDedupe:
    """The plain twin: a dictionary."""

    def __init__(self, window_ms: int) -> None:
        self.window_ms = window_ms
        self._firsts: dict[tuple[int, int], tuple[int, int]] = {}

    def apply(self, keys: U64, sources: U64, fingerprints: U32, clocks: I64, live: Bool) -> Duplicates:
        """Classify rows one by one."""
        out = Duplicates(np.zeros(len(keys), np.uint8), np.zeros(len(keys), np.uint8))
        for i in range(len(keys)):
            if not live[i]:
                continue
            key, fingerprint, clock = (int(keys[i]), int(sources[i])), int(fingerprints[i]), int(clocks[i])
            first = self._firsts.get(key)
            if first is not None and clock - first[1] <= self.window_ms:
                out.duplicate[i] = 1
                out.conflict[i] = first[0] != fingerprint
            else:
                self._firsts[key] = (fingerprint, clock)
        return out

    def entries(self, clock: int) -> dict[tuple[int, int], tuple[int, int]]:
        """Return (key, source) -> (fingerprint, clock ms) of the entries within the window at `clock`."""
        return {k: v for k, v in self._firsts.items() if clock - v[1] <= self.window_ms}


class SeenHashes:
    """Which dimension strings this lane wrote recently: a bounded set, emptied when half full (a second write is harmless)."""

    def __init__(self, capacity: int = 1 << 17, secret: SlotSecret = KNOWN_SECRET) -> None:
        self._slots = secret.slots(capacity)
        self._table = np.zeros(capacity, np.uint64)
        self._taken = 0

    @classmethod
    def of(cls, capacity: int, secret: SlotSecret = KNOWN_SECRET) -> Self:
        """Return an empty set of at least `capacity` slots (rounded up to a power of two)."""
        return cls(1 << max(4, (capacity - 1).bit_length()), secret)

    def unseen(self, hashes: U64, live: Bool) -> I64:
        """Return one row (ascending) for each hash not seen recently, and remember it. hashes u64[n], live bool[n]."""
        parts: list[I64] = []
        start = 0
        while start < len(hashes):
            if self._taken * 2 >= len(self._table):
                self._table[:] = 0
                self._taken = 0
            rows = np.empty(len(hashes) - start, np.int64)
            found, looked = kernels.unseen(self._table, self._slots, hashes[start:], live[start:], rows)
            parts.append(rows[:found] + start)
            self._taken += found
            if looked < len(hashes) - start:
                self._taken = len(self._table)
            start += looked
        return np.concatenate(parts) if parts else np.zeros(0, np.int64)
