"""An adversary who chooses ids can't choose their slots: look-ups of crafted keys probe as many slots as of random ones."""

import json
from collections.abc import Callable

import numpy as np
import pytest

from adledger.pipeline.control.monitor import PublisherMonitor
from adledger.pipeline.kernels import live as live_kernels
from adledger.pipeline.kernels.slots import KNOWN_SECRET, Slots, SlotSecret
from adledger.pipeline.lanes.start import limits
from adledger.pipeline.records.columns import I64, U64, EventColumns, RecordRefs
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.pipeline.rules.tables import SlidingCounts, SlotTable
from adledger.pipeline.rules.windows import RuleWindows
from adledger.pipeline.settings import Settings
from adledger.pipeline.stages.decode import decode
from adledger.pipeline.stages.dedupe import DedupeState, PlainDedupe, SeenHashes
from adledger.pipeline.stages.identity import identity
from adledger.pipeline.stages.plain_hashes import splitmix64
from tests.support.crafted_ids import keys_of_one_slot, texts_hashing_to
from tests.support.one_record import CONTEXT, IMPRESSIONS
from tests.support.wire_texts import IMPRESSION, LOG_TIME

N = 2_000
WINDOW_MS = 10_000
SECRET = SlotSecret(0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210)
"""What an adversary does not know."""
CRAFTED = {
    "equal low bits, which were the slot": np.arange(1, N + 1, dtype=np.uint64) << np.uint64(24),
    "for a table without a secret": keys_of_one_slot(N, SlotSecret(0, 0)),
    "for another secret": keys_of_one_slot(N, KNOWN_SECRET),
    "for pairs without a secret": keys_of_one_slot(N, SlotSecret(0, 0), paired=True),
}
READS_MAX = 3 * N
"""Slots read by N look-ups; random keys at the loads of these tables read fewer than 2 each."""


def probes_of(keys: U64, slots: Slots, *, paired: bool = False) -> int:
    """Return how many slots are read to find every key of an open-addressed table (0: an empty slot).

    `paired`: keys have a second part, which is 0.
    """
    mask, read, second = int(slots.mask), 0, int(slots.second)
    second_part = splitmix64(second) if paired else 0
    for at in np.flatnonzero(keys).tolist():
        first = splitmix64(splitmix64(int(keys[at]) ^ second_part ^ int(slots.first)) ^ second) & mask
        read += (at - first & mask) + 1
    return read


def deduped(keys: U64, secret: SlotSecret) -> int:
    state, zeros = DedupeState(WINDOW_MS, secret), np.zeros(len(keys), np.uint64)
    clocks, live = np.full(len(keys), WINDOW_MS), np.ones(len(keys), np.bool_)
    state.apply(keys, zeros, zeros.astype(np.uint32), clocks, live)
    assert len(state.entries(WINDOW_MS)) == len(keys)
    return state.probes(keys, zeros)


def seen(keys: U64, secret: SlotSecret) -> int:
    hashes = SeenHashes.of(1 << 14, secret)
    assert len(hashes.unseen(keys, np.ones(len(keys), np.bool_))) == len(keys)
    return probes_of(hashes._table, hashes._slots)


def counted(keys: U64, secret: SlotSecret) -> int:
    counts, ones = SlidingCounts(secret), np.ones(len(keys), np.uint8)
    hits = np.zeros(len(keys), np.uint64)
    clocks, sources = np.full(len(keys), 9, np.int64), np.zeros(len(keys), np.uint32)
    counts.count(keys, sources, clocks, ones, WINDOW_MS, 1, 0, hits)
    return probes_of(counts._words[::2], counts._slots(), paired=True)


TABLES: dict[str, Callable[[U64, SlotSecret], int]] = {
    "dedupe": deduped, "seen hashes": seen, "sliding counts": counted,
}  # fmt: skip
PAIRED = {"dedupe", "sliding counts"}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("crafted", CRAFTED)
def test_crafted_keys_probe_like_random_ones(name, crafted):
    """Without the secret no choice of keys makes look-ups longer."""
    assert TABLES[name](CRAFTED[crafted], SECRET) < READS_MAX


@pytest.mark.parametrize("name", TABLES)
def test_control_the_secret_makes_keys_collide(name):
    """Control: keys made for a table's own secret collide in one slot, so the test above tests something."""
    keys = keys_of_one_slot(N, SECRET, paired=name in PAIRED)
    assert TABLES[name](keys, SECRET) > N * N // 3


def test_every_window_of_the_rules_is_keyed():
    """Each table of the rules' windows has the secret that it was given."""
    windows = RuleWindows(RuleSet.none(), secret=SECRET)
    tables = [value for value in vars(windows).values() if isinstance(value, SlotTable | SlidingCounts)]
    assert len(tables) == 8
    assert {table._secret for table in tables} == {SECRET}


def test_publishers_of_one_slot():
    """Publisher ids that collided in the monitor's table, when its slots were a product with a known number, no longer
    do.
    """
    mask = (1 << 12) - 1
    ids = np.arange(1 << 20, dtype=np.uint64)
    met = (ids * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) & np.uint64(mask) == 7
    chosen = ids[met][:200].astype(np.uint32)
    assert len(chosen) == 200
    table, slots = np.zeros((mask + 1, live_kernels.WIDTH), np.uint32), SECRET.slots(mask + 1)
    ones = np.ones(len(chosen), np.uint32)
    codes = ones.astype(np.uint8)
    live_kernels.add_rows(table, slots, 0, mask, 0, chosen, codes, codes, ones)
    assert probes_of(table[:, 0].astype(np.uint64), slots) < 3 * len(chosen)
    assert PublisherMonitor(secret=SECRET)._secret == SECRET


def test_each_process_draws_its_own_secret():
    """Two starts with the same settings have different secrets."""
    settings = Settings(source="files:log", clickhouse="embedded:data")
    one, other = (limits(settings, until_caught_up=True).slot_secret for _ in range(2))
    assert one != other


def test_an_id_made_to_collide_with_anothers():
    """An event whose id is crafted so that its dedupe key is another publisher's is no duplicate, before or after it.

    Within a publisher and type it is one: a duplicate, and a conflict where its payload differs. A rebuild agrees.
    """
    ours = IMPRESSION | {"event_id": "honest-1", "publisher_id": 11}
    [key], [source], _ = identity(decoded([ours]))
    theirs = []
    for publisher in (12, 13):
        target = int(decoded([ours]).id_hash[0]) ^ splitmix64(int(source)) ^ splitmix64(2 * publisher)
        forged = next(texts_hashing_to(target)).decode()
        theirs.append(IMPRESSION | {"event_id": forged, "publisher_id": publisher, "price_micros": 1})
    keys, sources, fingerprints = identity(
        decoded([theirs[0], ours, theirs[1], theirs[1] | {"price_micros": 2}, ours])
    )
    assert set(keys.tolist()) == {key}
    clocks: I64 = np.full(5, LOG_TIME)
    for state in (DedupeState(WINDOW_MS), PlainDedupe(WINDOW_MS)):
        found = state.apply(keys, sources, fingerprints, clocks, np.ones(5, np.bool_))
        assert found.duplicate.tolist() == [0, 0, 0, 1, 1]
        assert found.conflict.tolist() == [0, 0, 0, 1, 0]
    rebuilt, steady = DedupeState(WINDOW_MS, SECRET), DedupeState(WINDOW_MS)
    steady.apply(keys, sources, fingerprints, clocks, np.ones(5, np.bool_))
    rebuilt.load(keys[2::-1], sources[2::-1], fingerprints[2::-1], clocks[2::-1])
    assert rebuilt.entries(LOG_TIME) == steady.entries(LOG_TIME)


def decoded(events: list[dict[str, object]]) -> EventColumns:
    """Return the columns of events, from their bytes."""
    values = [json.dumps(event).encode() for event in events]
    n = len(values)
    refs = RecordRefs.of(values, [b"u"] * n, topics=[IMPRESSIONS] * n, log_times=[LOG_TIME] * n)
    found = decode(refs, CONTEXT)
    assert not found.status.any()
    return found.columns
