"""The guardrail: exact shares, rules turned for the batches after, and the same decisions after any restart."""

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rules.guardrail import Guardrail, Share, Tally, tally
from pipeline.rules.registry import RULES
from pipeline.rules.rule import Mode
from pipeline.rules.rule_set import RuleSet
from schemas.classes import Class, Reason
from tests.support.rule_sets import rule_set

MINUTE_MS = 60_000
RULED = (Reason.UA_BLANK, Reason.PREFETCH, Reason.DOUBLE_CLICK)


def bounded(least: int, most: int) -> RuleSet:
    """Three rules with the same bounds (ppm), a window of two minutes, and few events to decide by."""
    rules = rule_set(**{r.name: {} for r in RULED})
    settings = {
        r: dataclasses.replace(s, share_min_ppm=least, share_max_ppm=most) for r, s in rules.rules.items()
    }
    return dataclasses.replace(rules, rules=settings, guardrail_window_minutes=2, guardrail_events_min=3)


SHARES = st.builds(
    lambda events, money, parts: Share(events, money + sum(parts), dict(zip(RULED, parts, strict=True))),
    st.integers(0, 4), st.integers(0, 100), st.tuples(*[st.integers(0, 50)] * 3),
)  # fmt: skip


@st.composite
def histories(draw) -> list[Tally]:
    clock, found = 0, []
    for by_currency in draw(st.lists(st.dictionaries(st.integers(1, 2), SHARES), max_size=12)):
        clock += draw(st.sampled_from([0, 1, MINUTE_MS, 2 * MINUTE_MS - 1, 2 * MINUTE_MS]))
        found.append(Tally(clock, by_currency))
    return found


BOUNDS = st.tuples(st.sampled_from([0, 0, 50_000]), st.sampled_from([100_000, 300_000, 1_000_000]))


@given(histories(), BOUNDS)
def test_a_rule_is_turned_when_its_share_leaves_its_bounds_and_not_before(batches, bounds):
    """By definition: the shares of the window's batches, in fractions, for each rule that is still enforced."""
    guardrail, enforced = Guardrail(bounded(*bounds)), set(RULED)
    for number, batch in enumerate(batches):
        expected = set()
        window = [b for b in batches[: number + 1] if batch.clock - b.clock < 2 * MINUTE_MS]
        for currency in (1, 2):
            shares = [b.by_currency[currency] for b in window if currency in b.by_currency]
            money = sum(s.money_nanos for s in shares)
            if sum(s.events for s in shares) < 3 or not money:
                continue
            for reason in enforced:
                part = sum(s.invalidated_nanos[reason] for s in shares) * 10**6
                if part < bounds[0] * money or part > bounds[1] * money:
                    expected.add((reason, currency))
        assert {(b.reason, b.currency_code) for b in guardrail.observe(batch)} == expected
        enforced -= {reason for reason, _ in expected}
        assert {r for r, s in guardrail.effective.rules.items() if s.mode == Mode.ENFORCE} == enforced


@given(histories(), BOUNDS, st.integers(0, 12))
def test_a_restarted_guardrail_decides_as_one_that_never_stopped(batches, bounds, stop):
    """From the published set, the effective one, and the tallies of the window."""
    stop = min(stop, len(batches))
    steady = Guardrail(bounded(*bounds))
    for batch in batches[:stop]:
        steady.observe(batch)
    kept = [b for b in batches[:stop] if batches[stop - 1].clock - b.clock < 2 * MINUTE_MS]
    restarted = Guardrail.resumed(bounded(*bounds), steady.effective, kept)
    for batch in batches[stop:]:
        assert restarted.observe(batch) == steady.observe(batch)
        assert restarted.effective == steady.effective


ROWS = st.lists(
    st.tuples(st.sampled_from(list(Class)[:5]), st.sets(st.sampled_from(RULED), min_size=1), st.integers(0, 10**12), st.integers(0, 2)),
    max_size=20,
)  # fmt: skip


@given(ROWS)
def test_a_batch_is_tallied_by_currency_and_primary_reason(rows):
    """Duplicates and expired events are left out; an invalid event's money counts for its first rule alone."""
    enforced = sum(1 << r for r in RULED)
    found = tally(
        np.array([c for c, *_ in rows], np.uint8),
        np.array([sum(1 << r for r in hits) for _, hits, *_ in rows], np.uint64),
        np.array([money for *_, money, _ in rows], np.int64),
        np.array([currency for *_, currency in rows], np.uint16), enforced, 7,
    )  # fmt: skip
    expected: dict[int, Share] = {}
    for event_class, hits, money, currency in rows:
        if event_class in (Class.DUPLICATE, Class.EXPIRED):
            continue
        share = expected.setdefault(currency, Share(0, 0, {}))
        parts = dict(share.invalidated_nanos)
        if event_class != Class.BILLABLE:
            first = next(r for r in RULES if r in hits)
            parts[first] = parts.get(first, 0) + money
        expected[currency] = Share(share.events + 1, share.money_nanos + money, parts)
    assert found == Tally(7, expected)
