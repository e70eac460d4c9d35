"""What crafted ids cost, compared with random ones: CPU of one core, best of five. Target: at most twice as much.

Without a secret in the slots 100,000 user ids cost 23.6 s of CPU instead of 0.9, and 300,000 event ids 284 us an event.
Without both parts of a key in its slot, 40,000 equal dedupe keys of as many publishers cost 260 us an event instead of
0.05, 40,000 impressions of one id 23 us instead of 1.4; and 40,000 groups of the rollup 21 us instead of 0.02.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from adledger.pipeline.kernels.slots import SlotSecret
from adledger.pipeline.records.columns import I64, U32, U64, EventColumns
from adledger.pipeline.rules.tables import SlidingCounts
from adledger.pipeline.rules.windows import Rows, RuleWindows
from adledger.pipeline.stages.dedupe import DedupeState
from adledger.pipeline.stages.identity import identity
from adledger.pipeline.stages.rollup import roll_up
from adledger.schemas.wire import EventType
from tests.support.crafted_ids import groups_of_one_slot, ids_of_one_key, keys_of_one_slot
from tests.support.rule_sets import rule_set

EVENT_IDS, USER_IDS, PAIRS = 300_000, 100_000, 100_000
WINDOW_MS = 86_400_000
RUNS = 5
CURRENCY = 840
IMPRESSION_RULES = rule_set(CLICK_TOO_FAST={}, CLICK_MISMATCH={})
SECRET = SlotSecret(0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210)

pytestmark = pytest.mark.benchmark


def dedupe(keys: U64) -> None:
    state, zeros = DedupeState(WINDOW_MS, SECRET), np.zeros(len(keys), np.uint64)
    state.apply(
        keys, zeros, zeros.astype(np.uint32), np.full(len(keys), WINDOW_MS), np.ones(len(keys), np.bool_)
    )


def count(keys: U64) -> None:
    count_of(keys, np.zeros(len(keys), np.uint32))


def count_of(keys: U64, sources: U32) -> None:
    clocks, ones = np.full(len(keys), WINDOW_MS), np.ones(len(keys), np.uint8)
    hits = np.zeros(len(keys), np.uint64)
    SlidingCounts(SECRET).count(keys, sources, clocks, ones, WINDOW_MS, 50, 1, hits)


def dedupe_of(ids: U64, publishers: U64) -> None:
    columns = EventColumns.zeros(len(ids))
    columns.event_type_code[:], columns.publisher_id[:], columns.id_hash[:] = 1, publishers, ids
    clocks, live = np.full(len(ids), WINDOW_MS), np.ones(len(ids), np.bool_)
    DedupeState(WINDOW_MS, SECRET).apply(*identity(columns), clocks, live)


def click_window(ids: U64, publishers: U64, users: U64) -> None:
    """Enter impressions, then compare a click on each with them."""
    windows, n = RuleWindows(IMPRESSION_RULES, secret=SECRET), len(ids)
    columns = EventColumns.zeros(n)
    columns.publisher_id[:], columns.user_hash[:] = publishers, users
    rows = Rows(columns, np.full(n, WINDOW_MS), np.ones(n, np.bool_), np.zeros(n, np.bool_))
    for kind, hashes in ((EventType.IMPRESSION, columns.id_hash), (EventType.CLICK, columns.impression_hash)):
        columns.event_type_code[:], hashes[:] = kind, ids
        windows.apply(rows, np.zeros(n, np.uint64))


def roll_up_groups(publishers: U32, minutes: I64) -> None:
    columns = EventColumns.zeros(len(publishers))
    columns.event_type_code[:], columns.currency_code[:] = 1, CURRENCY
    columns.publisher_id[:], columns.event_time[:] = publishers, minutes * 60_000
    roll_up(columns, np.zeros(len(minutes), np.uint8), np.zeros(len(minutes), np.int64), SECRET)


def microseconds(work: Callable[..., None], *keys: Any) -> float:
    """Return the CPU of an event, best of RUNS."""
    best = float("inf")
    for _ in range(RUNS):
        began = time.thread_time()
        work(*keys)
        best = min(best, time.thread_time() - began)
    return best / len(keys[0]) * 1e6


@pytest.mark.parametrize(("work", "n"), [(dedupe, EVENT_IDS), (count, USER_IDS)])
def test_crafted_keys(work, n):
    """Print the CPU of random keys, of keys with equal low bits, and of keys made for a table without a secret."""
    rng = np.random.default_rng(1)
    kinds = {
        "random": rng.integers(1, 2**63, n).astype(np.uint64),
        "equal low bits": np.arange(1, n + 1, dtype=np.uint64) << np.uint64(24),
        "made for no secret": keys_of_one_slot(n, SlotSecret(0, 0), paired=True),
    }
    compare(work, {name: (keys,) for name, keys in kinds.items()})


def test_crafted_pairs():
    """Print the CPU of random pairs, and of those that share a part, or that collided in one slot."""
    rng, n = np.random.default_rng(1), PAIRS
    ids, users = (rng.integers(1, 2**63, n).astype(np.uint64) for _ in range(2))
    rising, one = np.arange(1, n + 1, dtype=np.uint64), np.full(n, 7, np.uint64)
    narrow, few = rising.astype(np.uint32), (rising % np.uint64(100)).astype(np.uint32)
    compare(dedupe_of, {"random": (ids, rising), "equal keys": (ids_of_one_key(rising), rising)})
    compare(
        count_of, {"random": (ids, narrow), "one key, many sources": (one, narrow), "many keys": (ids, few)}
    )
    compare(
        click_window,
        {
            "random": (ids, rising, users),
            "one id, many publishers": (one, rising, users),
            "one id and user, many publishers": (one, rising, one),
            "one id, many users": (one, one, users),
        },
    )
    minutes = rng.integers(20_000_000, 60_000_000, n)
    random = (rng.integers(0, 2**32, n).astype(np.uint32), minutes)
    compare(roll_up_groups, {"random": random, "of one slot": groups_of_one_slot(n, CURRENCY)})


def compare(work: Callable[..., None], kinds: Mapping[str, tuple[Any, ...]]) -> None:
    """Print what an event of each kind costs."""
    work(*(keys[:10] for keys in next(iter(kinds.values()))))
    costs = ", ".join(f"{name} {microseconds(work, *keys):.4f}" for name, keys in kinds.items())
    print(f"\n{work.__name__}, us an event: {costs}")
