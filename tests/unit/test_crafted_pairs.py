"""Keys of two parts: however many entries share one part, look-ups stay short, and no entry counts for another's."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adledger.pipeline.kernels import rollup as rollup_kernels
from adledger.pipeline.kernels.rules_clicks import OWN_MASK, SEEN_MASK
from adledger.pipeline.kernels.slots import KNOWN_SECRET, Slots, SlotSecret
from adledger.pipeline.records.columns import U64, EventColumns
from adledger.pipeline.rules import plain, tables
from adledger.pipeline.rules.plain import EventView
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.pipeline.rules.tables import SlidingCounts
from adledger.pipeline.rules.windows import WINDOWED, Rows, RuleWindows
from adledger.pipeline.stages.dedupe import DedupeState, PlainDedupe
from adledger.pipeline.stages.identity import identity
from adledger.pipeline.stages.plain_hashes import splitmix64
from adledger.schemas.classes import Reason
from adledger.schemas.wire import EventType
from tests.support.crafted_ids import MASK, groups_of_one_slot, ids_of_one_key
from tests.support.rule_sets import rule_set

N = 2_000
START_MS = 1_767_225_600_000
WINDOW_MS = 86_400_000
SECRET = SlotSecret(0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210)
OTHER_SECRET = SlotSecret(1, 2)
READS_MAX = 3 * N
RULES = rule_set(CLICK_NO_IMPRESSION={}, CLICK_TOO_FAST={}, CLICK_MISMATCH={}, REPEAT_CLICK={"clicks_max": 2})
PARAMS = {r: s.params for r, s in RULES.rules.items() if r in WINDOWED and s.mode != "off"}


def slot_of_pair(key: int, other: int, slots: Slots) -> int:
    """Return a pair's first slot: the plain twin."""
    mixed = splitmix64(other ^ int(slots.second)) ^ key
    return splitmix64(splitmix64(mixed ^ int(slots.first)) ^ int(slots.second)) & int(slots.mask)


def reads(at: Sequence[int], keys: Sequence[int], others: Sequence[int], slots: Slots) -> int:
    """Return how many slots are read to find pairs that lie in the slots `at`."""
    found = zip(at, keys, others, strict=True)
    return sum((a - slot_of_pair(key, other, slots) & int(slots.mask)) + 1 for a, key, other in found)


def impressions(ids: U64, publishers: U64, users: U64) -> Rows:
    """Return impressions, all at once."""
    c = EventColumns.zeros(len(ids))
    c.event_type_code[:], c.event_time[:] = EventType.IMPRESSION, START_MS
    c.id_hash[:], c.publisher_id[:], c.user_hash[:] = ids, publishers, users
    n = len(ids)
    return Rows(c, np.full(n, START_MS), np.ones(n, np.bool_), np.zeros(n, np.bool_))


RISING = np.arange(1, N + 1, dtype=np.uint64)
ONE = np.full(N, 7, np.uint64)
FLOODS = {
    "one id, many publishers": impressions(ONE, RISING, RISING),
    "one id, many publishers, one person": impressions(ONE, RISING, ONE),
    "one id, one publisher, many persons": impressions(ONE, ONE, RISING),
    "one person, many ids": impressions(RISING, ONE, ONE),
    "ids made to cancel persons": impressions(np.array([7 ^ splitmix64(i) for i in range(N)], np.uint64), ONE, RISING),
}  # fmt: skip


@pytest.mark.parametrize("flood", FLOODS)
def test_impressions_are_found_at_once(flood):
    """No choice of ids, publishers and users makes a chain of impressions."""
    windows = RuleWindows(RULES, secret=SECRET)
    windows.apply(FLOODS[flood], np.zeros(N, np.uint64))
    for table, mask in ((windows._impressions, OWN_MASK), (windows._seen, SEEN_MASK)):
        rows = table.words.reshape(table.capacity, -1)
        at = np.flatnonzero(rows[:, 0]).tolist()
        assert reads(at, rows[at, 0].tolist(), (rows[at, -1] & mask).tolist(), table.slots) < READS_MAX


def test_equal_dedupe_keys_are_found_at_once():
    """Ids made so that the dedupe keys of many publishers are equal are looked up like others, and none is a duplicate."""
    c = impressions(ids_of_one_key(RISING), RISING, RISING).columns
    keys, sources, prints = identity(c)
    assert len(set(keys.tolist())) == 1
    clocks, live = np.full(N, START_MS), np.ones(N, np.bool_)
    states = [DedupeState(WINDOW_MS, SECRET), PlainDedupe(WINDOW_MS)]
    for state in states:
        assert not state.apply(keys, sources, prints, clocks, live).duplicate.any()
        assert state.apply(keys, sources, prints, clocks, live).duplicate.all()
    assert states[0].probes(keys, sources) < READS_MAX
    rebuilt = DedupeState(WINDOW_MS, OTHER_SECRET)
    rebuilt.load(keys, sources, prints, clocks)
    assert rebuilt.entries(START_MS) == states[1].entries(START_MS)


def test_counts_of_one_key_are_found_at_once():
    """Clicks that name one impression id under many publishers are looked up like others."""
    counts = SlidingCounts(SECRET)
    hits, clocks = np.zeros(N, np.uint64), np.full(N, START_MS)
    counts.count(ONE, RISING.astype(np.uint32), clocks, np.ones(N, np.uint8), WINDOW_MS, 1, 0, hits)
    assert not hits.any()
    at = np.flatnonzero(counts._words[::2]).tolist()
    words = counts._words.reshape(-1, 2)[at]
    assert reads(at, words[:, 0].tolist(), (words[:, 1] & OWN_MASK).tolist(), counts._slots()) < READS_MAX


def test_groups_of_a_rollup_are_found_at_once():
    """Publishers and minutes whose slots were equal before slots had a secret spread like others."""
    currency = 840
    publishers, minutes = groups_of_one_slot(N, currency)
    slots, table = SECRET.slots(1 << 13), np.full(1 << 13, -1, np.int32)
    codes, money = np.full(N, EventType.IMPRESSION, np.uint8), np.zeros(N, np.int64)
    first, records = np.empty(N, np.int64), np.empty(N, np.uint32)
    found = rollup_kernels.group(
        table, slots, publishers, minutes * 60_000, codes, np.zeros(N, np.uint8), np.full(N, currency, np.uint16),
        np.zeros(N, np.uint8), money, first, records, np.empty(N, np.int64),
    )  # fmt: skip
    assert found == N
    at = np.flatnonzero(table >= 0)
    rows = first[table[at]]
    where = [int(p) << 32 | int(m) for p, m in zip(publishers[rows], minutes[rows], strict=True)]
    assert reads(at.tolist(), where, [currency << 8 | 16] * N, slots) < READS_MAX


def test_another_publishers_click_is_no_repeat():
    """Clicks of another publisher never count as repeats of a click, whatever impression they name.

    Impression and publisher were one 64-bit key, whose collisions could be computed.
    """
    ours, theirs = 11, 12
    forged = 7 ^ splitmix64(ours) ^ splitmix64(theirs)
    assert splitmix64(forged ^ splitmix64(theirs)) == splitmix64(7 ^ splitmix64(ours))
    clicks = [click(theirs, forged, user) for user in (1, 2, 3)] + [
        click(ours, 7, user) for user in (4, 5, 6)
    ]
    found = hits_of(RuleWindows(RULES, secret=SECRET), clicks)
    assert [h >> Reason.REPEAT_CLICK & 1 for h in found] == [0, 0, 1, 0, 0, 1]
    assert found == by_definition(clicks)


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(EventType), st.sampled_from([0, 0, 1, 300, 1_000, 3_600_001]), st.sampled_from([7, 2**64 - 1]),
        st.integers(0, 3), st.sampled_from([1, 2, 1 + 2**32]), st.sampled_from([False, False, True]),
    ), max_size=60,
)  # fmt: skip
"""Type, ms after the event before, id, publisher, user (two with equal low halves), duplicate."""


@settings(deadline=None, max_examples=60)
@given(EVENTS, st.integers(0, 60))
def test_verdicts_on_shared_ids(drawn, stop):
    """Where publishers and persons share event ids, verdicts are the plain rules', whatever the secret, and after a rebuild."""
    events, clock = list[EventView](), START_MS
    for kind, after, id_hash, publisher, user, duplicate in drawn:
        clock += after
        events.append(event(kind, publisher, id_hash, user, clock, duplicate=duplicate))
    stop = min(stop, len(events))
    expected = by_definition(events)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "CAPACITY_MIN", 8)
        for secret in (KNOWN_SECRET, SECRET, OTHER_SECRET):
            assert hits_of(RuleWindows(RULES, secret=secret), events) == expected
        rebuilt = RuleWindows(RULES, secret=OTHER_SECRET)
        hits_of(rebuilt, [e for e in events[:stop] if not e.duplicate])
        assert hits_of(rebuilt, events[stop:]) == expected[stop:]


def test_floods_leave_verdicts_alone():
    """A flood of impressions with a click's id, by other publishers and persons, changes nothing for the click."""
    shown = event(EventType.IMPRESSION, 1, 7, 1, START_MS)
    flood = [event(EventType.IMPRESSION, p, 7, 9 + p, START_MS + 1) for p in range(2, 500)]
    own, stolen = click(1, 7, 1, START_MS + 2), click(600, 7, 1, START_MS + 3)
    for between in ([], flood):
        events = [shown, *between, own, stolen]
        found = hits_of(RuleWindows(RULES, secret=SECRET), events)
        assert found == by_definition(events)
        assert found[-2:] == [
            1 << Reason.CLICK_TOO_FAST,
            1 << Reason.CLICK_TOO_FAST | 1 << Reason.CLICK_MISMATCH,
        ]


def event(
    kind: EventType, publisher: int, an_id: int, user: int, clock: int, *, duplicate: bool = False
) -> EventView:
    """Return an impression with an id, or a click on it."""
    ids = (0, an_id) if kind == EventType.CLICK else (an_id, 0)
    return EventView(kind, clock, clock, publisher, 1, 1, *ids, user, False, 0xFFFF_0A00_0001, 0, duplicate)


def click(publisher: int, impression: int, user: int, clock: int = START_MS) -> EventView:
    return event(EventType.CLICK, publisher, impression, user, clock)


def by_definition(events: Sequence[EventView]) -> list[int]:
    """Return the hits of each event by the plain rules."""
    found, earlier = list[int](), list[EventView]()
    for e in events:
        found.append(plain.hits(earlier, e, PARAMS))
        if not e.duplicate:
            earlier.append(e)
    return found


def hits_of(windows: RuleWindows, events: Sequence[EventView]) -> list[int]:
    """Return the hits of each event by the compiled rules."""
    c = EventColumns.zeros(len(events))
    for i, e in enumerate(events):
        c.event_type_code[i], c.event_time[i], c.publisher_id[i] = e.event_type, e.event_time, e.publisher
        c.campaign_id[i], c.creative_id[i] = e.campaign, e.creative
        c.id_hash[i], c.impression_hash[i] = e.id_hash & MASK, e.impression_hash & MASK
        c.user_hash[i], c.ip_lo[i] = e.user, e.ip
    clock = np.array([e.clock for e in events], np.int64)
    duplicate = np.array([e.duplicate for e in events], np.bool_)
    hits = np.zeros(len(events), np.uint64)
    windows.apply(Rows(c, clock, np.ones(len(events), np.bool_), duplicate), hits)
    return [int(h) for h in hits]


def test_no_rules_no_windows():
    """Without rules nothing is entered."""
    windows = RuleWindows(RuleSet.none(), secret=SECRET)
    windows.apply(FLOODS["one id, many publishers"], np.zeros(N, np.uint64))
    assert windows._impressions.taken == windows._seen.taken == 0
