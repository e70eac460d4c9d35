"""Dedupe: the table equals a dictionary, and state read back equals the state that never stopped."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adledger.pipeline.kernels.slots import KNOWN_SECRET, SlotSecret
from adledger.pipeline.records.columns import I64, U32, U64, Bool
from adledger.pipeline.stages import dedupe
from adledger.pipeline.stages.dedupe import DedupeState, Duplicates, PlainDedupe, SeenHashes
from adledger.pipeline.stages.merge import DAY_MS

WINDOW_MS = 10_000
START_MS = 1_767_225_600_000
SMALL = 16
"""Slots of the smallest table in these tests, so that a few keys make it grow."""

WINDOWS = st.sampled_from([1, WINDOW_MS, DAY_MS, 10 * DAY_MS])
JUMPS = st.sampled_from(
    [0, 0, 0, 1, WINDOW_MS, WINDOW_MS + 1, DAY_MS, 20 * DAY_MS, 60 * DAY_MS, 400 * DAY_MS]
)
KEYS = st.sampled_from([0, 1, 16, 17, 32, 2**63, 2**64 - 1]) | st.integers(0, 100) | st.integers(0, 2**64 - 1)
SECRETS = st.sampled_from([KNOWN_SECRET, SlotSecret(0, 0), SlotSecret(2**64 - 1, 7)])
SOURCES = st.sampled_from([0, 0, 0, 0, 1, 2, 2**33 - 1])
ROWS = st.tuples(
    KEYS, st.integers(0, 1), st.sampled_from([0, 0, 0, 1, 5_000, WINDOW_MS]), st.booleans(), SOURCES
)


@dataclass(frozen=True, slots=True)
class Rows:
    """One batch for dedupe; its watermarks do not fall and span less than a day."""

    keys: U64
    sources: U64
    fingerprints: U32
    clocks: I64
    live: Bool

    def firsts(self, found: Duplicates, clock_from: int) -> tuple[U64, U64, U32, I64]:
        kept = self.live & (found.duplicate == 0) & (self.clocks >= clock_from)
        return self.keys[kept], self.sources[kept], self.fingerprints[kept], self.clocks[kept]


@st.composite
def histories(draw) -> list[Rows]:
    """Several batches, the watermark rising from one to the next by anything from nothing to years."""
    clock, batches = START_MS, []
    for rows in draw(st.lists(st.lists(ROWS, max_size=40), min_size=1, max_size=6)):
        clock += draw(JUMPS)
        clocks = clock + np.cumsum([step for _, _, step, *_ in rows], dtype=np.int64)
        clock = int(clocks[-1]) if rows else clock
        batches.append(
            Rows(
                np.array([key for key, *_ in rows], np.uint64),
                np.array([source for *_, source in rows], np.uint64),
                np.array([fingerprint * 0xFFFF_FFFF for _, fingerprint, *_ in rows], np.uint32),
                clocks,
                np.array([live for *_, live, _ in rows], np.bool_),
            )
        )
    return batches


@pytest.fixture(scope="module", autouse=True)
def small_tables():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedupe, "CAPACITY_MIN", SMALL)
        yield


@given(WINDOWS, histories(), SECRETS)
def test_the_table_equals_the_dictionary(window_ms, batches, secret):
    """Duplicates, conflicts and entries are the same after every batch, however it grew, whatever expired, and whatever
    the secret.
    """
    state, plain = DedupeState(window_ms, secret), PlainDedupe(window_ms)
    for b in batches:
        found = state.apply(b.keys, b.sources, b.fingerprints, b.clocks, b.live)
        expected = plain.apply(b.keys, b.sources, b.fingerprints, b.clocks, b.live)
        assert found.duplicate.tolist() == expected.duplicate.tolist()
        assert found.conflict.tolist() == expected.conflict.tolist()
        if len(b.clocks):
            assert state.entries(int(b.clocks[-1])) == plain.entries(int(b.clocks[-1]))


@given(WINDOWS, histories(), st.data())
def test_state_read_back_equals_the_state_that_never_stopped(window_ms, batches, data):
    """The originals within the window, loaded in any order, are the state, and it goes on the same."""
    stop = data.draw(st.integers(0, len(batches)), label="batches before the restart")
    clock = max((int(b.clocks[-1]) for b in batches[:stop] if len(b.clocks)), default=START_MS)
    steady, restarted = DedupeState(window_ms), DedupeState(window_ms)
    restarted.reserve(data.draw(st.integers(0, 200), label="entries expected"))
    firsts = []
    for b in batches[:stop]:
        found = steady.apply(b.keys, b.sources, b.fingerprints, b.clocks, b.live)
        firsts.append(b.firsts(found, clock - window_ms))
    for keys, sources, fingerprints, clocks in data.draw(st.permutations(firsts), label="order of reading"):
        rows = np.array(data.draw(st.permutations(range(len(keys))), label="within a block"), np.intp)
        restarted.load(keys[rows], sources[rows], fingerprints[rows], clocks[rows])
    assert restarted.entries(clock) == steady.entries(clock)
    for b in batches[stop:]:
        one = steady.apply(b.keys, b.sources, b.fingerprints, b.clocks, b.live)
        other = restarted.apply(b.keys, b.sources, b.fingerprints, b.clocks, b.live)
        assert one.duplicate.tolist() == other.duplicate.tolist()
        assert one.conflict.tolist() == other.conflict.tolist()
        if len(b.clocks):
            assert steady.entries(int(b.clocks[-1])) == restarted.entries(int(b.clocks[-1]))


def test_it_grows_with_its_ids_and_shrinks_when_they_expire():
    """Nothing is forgotten while the table grows, and expired ids take no memory once it is rebuilt."""
    state, plain = DedupeState(WINDOW_MS), PlainDedupe(WINDOW_MS)
    rng = np.random.default_rng(1)
    clock = START_MS
    for n in (10, 100, 3_000, 3_000):
        keys = rng.integers(0, 5_000, n, np.uint64)
        args = keys, keys % 3, np.zeros(n, np.uint32), np.full(n, clock), np.ones(n, np.bool_)
        assert state.apply(*args).duplicate.tolist() == plain.apply(*args).duplicate.tolist()
        assert state.entries(clock) == plain.entries(clock)
        clock += 1
    grown = state.capacity
    assert grown > 5_000
    later = np.full(1, clock + 60 * DAY_MS)
    state.apply(
        np.zeros(1, np.uint64), np.zeros(1, np.uint64), np.zeros(1, np.uint32), later, np.ones(1, np.bool_)
    )
    assert (state.capacity, len(state.entries(int(later[0])))) == (SMALL, 1)


@pytest.mark.parametrize("window_ms", [0, -1, 2**30])
def test_a_window_that_clocks_can_not_span_is_refused(window_ms):
    """A window beyond the reach of the 31-bit clock is refused when the state is created."""
    with pytest.raises(ValueError, match="window_ms"):
        DedupeState(window_ms)


HASHES = st.lists(st.tuples(st.integers(0, 40) | st.integers(0, 2**64 - 1), st.booleans()), max_size=60)


def _missing(seen: SeenHashes, batch: list[tuple[int, bool]]) -> list[int]:
    hashes, live = np.array([h for h, _ in batch], np.uint64), np.array([v for _, v in batch], np.bool_)
    rows = seen.unseen(hashes, live).tolist()
    assert rows == sorted(set(rows)), "rows ascend"
    assert all(live[rows]), "a dead row has no text"
    return hashes[rows].tolist()


@given(st.lists(HASHES, max_size=5))
def test_a_new_hash_is_returned_once(batches):
    """While the set has room, each hash of a live row is returned exactly once, at its first row (0 may repeat)."""
    seen, before = SeenHashes.of(4_096), set[int]()
    for batch in batches:
        missing_now = [h for h in _missing(seen, batch) if h]
        expected = [h for h in dict.fromkeys(h for h, live in batch if live) if h and h not in before]
        assert missing_now == expected
        before.update(expected)


@settings(max_examples=50)
@given(st.lists(HASHES, max_size=8))
def test_a_full_set_forgets_but_never_withholds(batches):
    """However small the set, every hash of a live row was returned at least once."""
    seen, missing_ever = SeenHashes.of(16), set[int]()
    for batch in batches:
        missing_ever.update(_missing(seen, batch))
        assert missing_ever >= {h for h, live in batch if live}
