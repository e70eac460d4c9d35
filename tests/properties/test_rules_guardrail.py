"""The guardrail: exact shares, rules demoted for later batches, and the same decisions after any restart."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.rules.guardrail import (
    Breach,
    Guardrail,
    MinuteTally,
    Share,
    Standing,
    tally,
    tally_of_sums,
)
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.schemas.classes import Class, Reason
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
def histories(draw) -> list[tuple[MinuteTally, ...]]:
    """Batches of a minute and more: slices whose watermarks rise within a batch, and never fall from batch to batch."""
    clock, found = 0, []
    gaps = st.sampled_from([0, 1, MINUTE_MS, 2 * MINUTE_MS - 1, 2 * MINUTE_MS])
    for shares in draw(
        st.lists(st.lists(st.dictionaries(st.integers(1, 2), SHARES), min_size=1, max_size=4), max_size=8)
    ):
        batch = []
        for by_currency in shares:
            clock += max(draw(gaps), len(batch) > 0)
            batch.append(MinuteTally(clock, by_currency))
        found.append(tuple(batch))
    return found


BOUNDS = st.tuples(st.sampled_from([0, 0, 50_000]), st.sampled_from([100_000, 300_000, 1_000_000]))


def invalid(batch: MinuteTally, reason: Reason, currency: int) -> int:
    return batch.by_currency[currency].invalidated_nanos[reason]


def steps(
    guardrail: Guardrail, batches: list[tuple[MinuteTally, ...]], standing: Standing
) -> Iterator[tuple[Standing, tuple[Breach, ...]]]:
    """Add batches one by one, each evaluated by what is enforced by then; every breach is reported at once."""
    for batch in batches:
        found = guardrail.add(enforced_tallies(batch, standing), standing)
        standing = standing.after(found)
        yield standing, found


def enforced_tallies(batch: tuple[MinuteTally, ...], standing: Standing) -> tuple[MinuteTally, ...]:
    return tuple(dataclasses.replace(part, enforced=enforced_bits(standing)) for part in batch)


def enforced_bits(standing: Standing) -> int:
    return sum(1 << r for r in RULED if r not in standing.demoted)


@given(histories(), BOUNDS)
def test_a_rule_is_demoted_when_its_share_leaves_its_bounds_and_not_before(batches, bounds):
    """By definition, with the window's shares at the end of each minute, as fractions, for each rule still enforced."""
    enforced = set(RULED)
    guardrail = Guardrail(bounded(*bounds))
    assert guardrail.watches == (bounds != (0, 1_000_000))
    seen: list[MinuteTally] = []
    for batch, (standing, found) in zip(batches, steps(guardrail, batches, Standing()), strict=True):
        expected = set()
        for part in batch:
            seen.append(part)
            left = enforced - {reason for reason, _ in expected}
            expected |= outside([b for b in seen if part.clock - b.clock < 2 * MINUTE_MS], bounds, left)
        assert {(b.reason, b.currency_code) for b in found} == expected
        assert {b.clock for b in found} <= {batch[-1].clock}
        enforced -= {reason for reason, _ in expected}
        assert standing.demoted == set(RULED) - enforced


def outside(
    window: list[MinuteTally], bounds: tuple[int, int], rules: set[Reason]
) -> set[tuple[Reason, int]]:
    found = set()
    for currency in (1, 2):
        shares = [b for b in window if currency in b.by_currency]
        money = sum(b.by_currency[currency].money_nanos for b in shares)
        if sum(b.by_currency[currency].events for b in shares) < 3 or not money:
            continue
        for reason in rules:
            part = sum(invalid(b, reason, currency) for b in shares) * 10**6
            if part < bounds[0] * money or part > bounds[1] * money:
                found.add((reason, currency))
    return found


@given(histories(), BOUNDS)
def test_cuts_do_not_change_what_is_measured(batches, bounds):
    """A backlog in one batch that spans hours breaches exactly what the same minutes breach as small batches."""
    small = [(part,) for batch in batches for part in batch]
    breached = {
        (b.reason, b.currency_code)
        for _, found in steps(Guardrail(bounded(*bounds)), small, Standing())
        for b in found
    }
    whole = Guardrail(bounded(*bounds)).add(tuple(part for (part,) in small), Standing()) if small else ()
    assert {(b.reason, b.currency_code) for b in whole} == breached


@given(histories(), BOUNDS, st.integers(0, 8), st.sampled_from(["alerted", "not alerted", "resumed"]))
def test_a_restarted_guardrail_decides_as_one_that_never_stopped(batches, bounds, stop, end):
    """Its state comes from the published set, the alerts, and the batches back to a window before the last, which is
    measured again.

    This holds if its worker died before it stored the last batch's breach, and if an operator resumed all rules.
    """
    stop = min(stop, len(batches))
    rules, standing = bounded(*bounds), Standing()
    steady, before, found = Guardrail(rules), standing, ()
    past: list[tuple[MinuteTally, ...]] = []
    for batch in batches[:stop]:
        before = standing
        past.append(enforced_tallies(batch, standing))
        ((standing, found),) = steps(steady, [batch], standing)
    restarted = Guardrail(rules, [b for b in past[:-1] if past[-1][0].clock - b[-1].clock < 2 * MINUTE_MS])
    if end == "resumed":
        standing = before = Standing(frozenset(), standing.breached)
    for last in past[-1:]:
        assert restarted.add(last, before if end == "not alerted" else standing) == (
            found if end == "not alerted" else ()
        )
    assert list(steps(restarted, batches[stop:], standing)) == list(steps(steady, batches[stop:], standing))


def test_a_resumed_rule_is_measured_again() -> None:
    """What demoted it does not demote it again; the batches that did not enforce it do not count."""
    rules, (rule, *_) = bounded(50_000, 300_000), RULED
    too_much = MinuteTally(1_000, {1: Share(5, 100, dict.fromkeys(RULED, 20) | {rule: 50})})
    guardrail = Guardrail(rules)
    (breach,) = guardrail.add((too_much,), Standing())
    assert breach == Breach(rule, 1, 1_000, 5, 50, 100, 50_000, 300_000)
    flagged = MinuteTally(
        2_000, {1: Share(5, 100, dict.fromkeys(RULED[1:], 20))}, enforced_bits(Standing(frozenset({rule})))
    )
    demoted, resumed = Standing(frozenset({rule}), {rule: 1_000}), Standing(frozenset(), {rule: 1_000})
    assert guardrail.add((flagged,), demoted) == ()
    assert [b.clock for b in guardrail.add((dataclasses.replace(too_much, clock=3_000),), resumed)] == [3_000]


ROWS = st.lists(
    st.tuples(
        st.integers(0, 3 * MINUTE_MS), st.sampled_from(list(Class)[:5]), st.sets(st.sampled_from(RULED), min_size=1),
        st.integers(0, 10**12), st.integers(0, 2),
    ),
    max_size=20,
)  # fmt: skip


@given(ROWS, st.integers(0, MINUTE_MS))
def test_a_batch_is_tallied_by_minute_currency_and_primary_reason(rows, later):
    """Duplicates and expired events are left out; an invalid event's money counts for its first rule alone."""
    enforced = sum(1 << r for r in RULED)
    rows = sorted(rows, key=lambda row: row[0])
    clock = rows[-1][0] + later if rows else later
    found = tally(
        np.array([c for _, c, *_ in rows], np.uint8),
        np.array([sum(1 << r for r in hits) for _, _, hits, *_ in rows], np.uint64),
        np.array([money for *_, money, _ in rows], np.int64),
        np.array([currency for *_, currency in rows], np.uint16),
        np.array([at for at, *_ in rows], np.int64), enforced, clock,
    )  # fmt: skip
    expected: dict[int, dict[int, Share]] = {}
    for at, event_class, hits, money, currency in rows:
        if event_class in (Class.DUPLICATE, Class.EXPIRED):
            continue
        minute = expected.setdefault(at // MINUTE_MS, {})
        share = minute.get(currency, Share(0, 0, {}))
        parts = dict(share.invalidated_nanos)
        if event_class != Class.BILLABLE:
            first = next(r for r in RULES if r in hits)
            parts[first] = parts.get(first, 0) + money
        minute[currency] = Share(share.events + 1, share.money_nanos + money, parts)
    ends = {minute: min(clock, (minute + 1) * MINUTE_MS - 1) for minute in expected}
    assert found[-1].clock == clock
    assert {part.clock: part.by_currency for part in found if part.by_currency} == {
        ends[minute]: shares for minute, shares in expected.items()
    }
    assert {part.enforced for part in found} == {enforced}
    sums = [
        (at // MINUTE_MS, currency, c, sum(1 << r for r in hits), 1, money)
        for at, c, hits, money, currency in rows
    ]
    assert tally_of_sums(sums, enforced, clock) == found
