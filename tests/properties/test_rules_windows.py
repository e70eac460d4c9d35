"""Windowed rules: the kernels equal the plain twins, whatever the cuts, and after any restart."""

import itertools
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adledger.pipeline.records.columns import EventColumns
from adledger.pipeline.rules import plain, tables
from adledger.pipeline.rules.plain import EventView
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.pipeline.rules.windows import WINDOWED, Rows, RuleWindows
from adledger.schemas.classes import Reason
from adledger.schemas.wire import EventType, Flag
from tests.support.rule_sets import rule_set

START_MS = 1_767_225_600_000
MINUTE_MS = 60_000
DAY_MS = 86_400_000

SMALL = rule_set(
    CLICK_NO_IMPRESSION={"horizon_minutes": 2},
    CLICK_TOO_FAST={"horizon_minutes": 1},
    CLICK_TOO_LATE={"gap_max_minutes": 1, "horizon_minutes": 3},
    CLICK_MISMATCH={"horizon_minutes": 2},
    DOUBLE_CLICK={"horizon_minutes": 1},
    REPEAT_CLICK={"window_minutes": 2, "clicks_max": 2},
    USER_VELOCITY={"window_seconds": 30, "events_max": 3, "clicks_window_minutes": 2, "clicks_max": 2},
    USER_MANY_IPS={"window_minutes": 2, "networks_max": 2},
    PERIODIC={"horizon_minutes": 3, "tolerance_percent": 10},
)
"""Windows so short and limits so low that a few events reach them."""
PARAMS = {r: SMALL.rules[r].params for r in WINDOWED}

STEPS = st.sampled_from(
    [0, 0, 1, 400, 1_000, 1_000, 1_000, 2_001, 29_999, 60_000, 60_001, 120_000, 10 * DAY_MS]
)
ADDRESSES = st.sampled_from(
    [0xFFFF_0A00_0001, 0xFFFF_0A00_0002, 0xFFFF_0A00_0101, 0xFFFF_0B00_0001, 1 << 64, 2 << 64]
)
LAGS = st.sampled_from([0, 0, 0, 0, 300, 500, 2_000, 60_000, -100_000])


@st.composite
def histories(draw, steps=STEPS, size=40) -> list[EventView]:
    """A lane's events, in its order; ids from such a small range that they meet."""
    clock, found = START_MS, []
    for _ in range(draw(st.integers(0, size))):
        clock += draw(steps)
        cookieless = draw(st.sampled_from([False, False, False, True]))
        click = draw(st.booleans())
        found.append(
            EventView(
                EventType.CLICK if click else EventType.IMPRESSION,
                clock - draw(LAGS), clock, draw(st.integers(0, 1)), draw(st.integers(0, 1)), draw(st.integers(0, 1)),
                draw(st.integers(0, 3)), draw(st.integers(0, 3)) if click else 0,
                0 if cookieless else draw(st.integers(1, 2)), cookieless, draw(ADDRESSES), draw(st.integers(0, 1)),
                draw(st.sampled_from([False, False, False, True])),
            )
        )  # fmt: skip
    return found


def rows_of(events: Sequence[EventView]) -> Rows:
    """Return the events as the columns that a lane has."""
    columns = EventColumns.zeros(len(events))
    for i, e in enumerate(events):
        columns.event_type_code[i], columns.event_time[i] = e.event_type, e.event_time
        columns.publisher_id[i], columns.campaign_id[i] = e.publisher, e.campaign
        columns.creative_id[i], columns.id_hash[i] = e.creative, e.id_hash + 1
        columns.impression_hash[i] = (e.impression_hash + 1) * (e.event_type == EventType.CLICK)
        columns.user_hash[i], columns.ua_hash[i] = e.user, e.ua_hash
        columns.ip_hi[i], columns.ip_lo[i] = e.ip >> 64, e.ip & (2**64 - 1)
        columns.flags[i] = e.cookieless << Flag.KEYED_BY_IP
    clock = np.array([e.clock for e in events], np.int64)
    return Rows(columns, clock, np.ones(len(events), bool), np.array([e.duplicate for e in events], bool))


def days(events: Sequence[EventView]) -> list[list[EventView]]:
    """Split the events by log day: no batch has two."""
    return [list(day) for _, day in itertools.groupby(events, lambda e: e.clock // DAY_MS)]


def hits_of(windows: RuleWindows, events: Sequence[EventView]) -> list[int]:
    return apply(windows, events)[0]


def apply(windows: RuleWindows, events: Sequence[EventView]) -> tuple[list[int], Counter[Reason]]:
    found, missed = [], Counter[Reason]()
    for day in days(events):
        hits = np.zeros(len(day), np.uint64)
        missed.update(windows.apply(rows_of(day), hits))
        found += hits.tolist()
    return found, missed


def in_batches(windows: RuleWindows, events: Sequence[EventView], cuts: Sequence[int]) -> list[int]:
    places = sorted({0, len(events), *(c % (len(events) + 1) for c in cuts)})
    return [h for a, b in itertools.pairwise(places) for h in hits_of(windows, events[a:b])]


@pytest.fixture(scope="module", autouse=True)
def small_tables():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "CAPACITY_MIN", 8)
        yield


@settings(deadline=None, max_examples=60)
@given(histories(), st.lists(st.integers(0, 1_000), max_size=6))
def test_the_windows_equal_the_plain_rules_whatever_the_cuts(events, cuts):
    """Each event has the hits of the plain definitions, however the lane was cut into batches."""
    expected, earlier = [], list[EventView]()
    for e in events:
        expected.append(plain.hits(earlier, e, PARAMS))
        if not e.duplicate:
            earlier.append(e)
    assert in_batches(RuleWindows(SMALL), events, cuts) == expected


@settings(deadline=None, max_examples=60)
@given(histories(), st.integers(0, 60), st.sampled_from([4, 10**9]))
def test_a_restarted_lane_evaluates_as_one_that_never_stopped(events, stop, events_max):
    """Windows rebuilt from the non-duplicate events of the horizon are as good as those that saw everything."""
    stop = min(stop, len(events))
    steady = RuleWindows(SMALL, events_max)
    hits_of(steady, events[:stop])
    restarted = RuleWindows(SMALL, events_max)
    if stop:
        since = restarted.clock_from(events[stop - 1].clock)
        hits_of(restarted, [e for e in events[:stop] if e.clock >= since and not e.duplicate])
    assert apply(restarted, events[stop:]) == apply(steady, events[stop:])


@settings(deadline=None, max_examples=60)
@given(histories(), st.lists(st.integers(0, 1_000), max_size=6), st.integers(0, 20))
def test_at_the_memory_limit_a_rule_is_right_or_not_evaluated(events, cuts, events_max):
    """With little memory a rule either agrees with one that has enough, or is not evaluated, and that is counted."""
    full, short = RuleWindows(SMALL), RuleWindows(SMALL, events_max)
    places = sorted({0, len(events), *(c % (len(events) + 1) for c in cuts)})
    for a, b in itertools.pairwise(places):
        expected, none = apply(full, events[a:b])
        assert not none
        found, missed = apply(short, events[a:b])
        for reason in WINDOWED:
            assert not any(f & ~e & 1 << reason for f, e in zip(found, expected, strict=True))
            assert sum((f ^ e) >> reason & 1 for f, e in zip(found, expected, strict=True)) <= missed[reason]


CHANGED = rule_set(
    CLICK_NO_IMPRESSION={"horizon_minutes": 2},
    CLICK_TOO_FAST={"horizon_minutes": 1, "gap_min_ms": 5_000},
    CLICK_TOO_LATE={"gap_max_minutes": 2, "horizon_minutes": 3},
    DOUBLE_CLICK={"horizon_minutes": 1, "within_ms": 300},
    REPEAT_CLICK={"window_minutes": 2, "clicks_max": 1},
    USER_VELOCITY={"window_seconds": 30, "events_max": 1, "clicks_window_minutes": 2, "clicks_max": 4},
    USER_MANY_IPS={"window_minutes": 2, "networks_max": 1},
    PERIODIC={"horizon_minutes": 3, "tolerance_percent": 0, "gap_min_ms": 1},
)
"""The horizons and windows of SMALL, other thresholds, and a rule less."""


@settings(deadline=None, max_examples=30)
@given(histories(), st.integers(0, 40))
def test_a_threshold_changes_at_once_and_for_free(events, at):
    """From the change on, the hits are those of the new set over all events before; the windows stay."""
    params = {r: CHANGED.rules[r].params for r in WINDOWED if r != Reason.CLICK_MISMATCH}
    windows, earlier, expected = RuleWindows(SMALL), list[EventView](), []
    for number, e in enumerate(events):
        expected.append(plain.hits(earlier, e, PARAMS if number < at else params))
        if not e.duplicate:
            earlier.append(e)
    found = hits_of(windows, events[:at])
    assert windows.adopt(CHANGED)
    assert found + hits_of(windows, events[at:]) == expected


@pytest.mark.parametrize("more", [{"window_seconds": 31}, {"clicks_window_minutes": 3}])
def test_another_window_takes_windows_of_its_own(more):
    """For a longer or shorter window, or a rule that was off, the windows refuse, and go on unchanged."""
    params = {r.name: dict(SMALL.rules[r].params) for r in WINDOWED}
    windows = RuleWindows(SMALL)
    assert not windows.adopt(rule_set(**{**params, "USER_VELOCITY": {**params["USER_VELOCITY"], **more}}))
    assert not RuleWindows(CHANGED).adopt(SMALL)
    assert windows.adopt(SMALL)


def test_a_rule_that_is_off_says_nothing_and_one_alone_says_the_same():
    """Rules are independent: each alone sets the same bits as among all."""
    rng = np.random.default_rng(7)
    clock, events = START_MS, []
    for i in range(3_000):
        clock += int(rng.integers(0, 900))
        kind = EventType.CLICK if rng.random() < 0.5 else EventType.IMPRESSION
        events.append(
            EventView(kind, clock, clock, i % 2, i % 3 % 2, i % 2, int(rng.integers(0, 100)), int(rng.integers(0, 100)),
                  int(rng.integers(1, 30)), False, int(0xFFFF_0A00_0000 + rng.integers(0, 2**12)), 0)
        )  # fmt: skip
    together = hits_of(RuleWindows(SMALL), events)
    for reason in WINDOWED:
        params = {r: dict(s.params) for r, s in SMALL.rules.items()}
        alone = rule_set(**{reason.name: params[reason]})
        assert hits_of(RuleWindows(alone), events) == [h & (1 << reason) for h in together]
    assert hits_of(RuleWindows(RuleSet.none()), events) == [0] * len(events)
    assert {r for r in WINDOWED if any(h >> r & 1 for h in together)} >= set(WINDOWED) - {Reason.PERIODIC}


def test_memory_follows_what_the_window_holds():
    """Tables grow with a crowd and are small again when it is gone."""
    windows = RuleWindows(SMALL)
    small = sum(windows.size_bytes.values())
    crowd = [EventView(1, START_MS, START_MS, 1, 1, 1, i, 0, i, False, 1 << 64, 0) for i in range(2_000)]
    hits_of(windows, crowd)
    assert sum(windows.size_bytes.values()) > 100 * small
    for day in range(1, 30):
        later, ids = START_MS + day * DAY_MS, range(3_000 + day * 100, 3_100 + day * 100)
        hits_of(windows, [EventView(1, later, later, 1, 1, 1, i, 0, i, False, 1 << 64, 0) for i in ids])
    assert sum(windows.size_bytes.values()) < 40 * small
