"""The guardrail: exact shares, rules turned for the batches after, and the same decisions after any restart."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rules.guardrail import Breach, Guardrail, Share, Standing, Tally, tally, tally_of_sums
from pipeline.rules.registry import RULES
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


def invalid(batch: Tally, reason: Reason, currency: int) -> int:
    return batch.by_currency[currency].invalidated_nanos[reason]


def steps(
    guardrail: Guardrail, batches: list[Tally], standing: Standing
) -> Iterator[tuple[Standing, tuple[Breach, ...]]]:
    """Add batches one by one, each judged by what is enforced by then; every breach is told at once."""
    for batch in batches:
        guardrail.add(dataclasses.replace(batch, enforced=enforced_bits(standing)))
        found = guardrail.breaches(standing)
        standing = standing.after(found)
        yield standing, found


def enforced_bits(standing: Standing) -> int:
    return sum(1 << r for r in RULED if r not in standing.turned)


@given(histories(), BOUNDS)
def test_a_rule_is_turned_when_its_share_leaves_its_bounds_and_not_before(batches, bounds):
    """By definition: the shares of the window's batches, in fractions, for each rule that is still enforced."""
    enforced = set(RULED)
    guardrail = Guardrail(bounded(*bounds))
    assert guardrail.watches == (bounds != (0, 1_000_000))
    for number, (standing, found) in enumerate(steps(guardrail, batches, Standing())):
        expected = set()
        window = [b for b in batches[: number + 1] if batches[number].clock - b.clock < 2 * MINUTE_MS]
        for currency in (1, 2):
            shares = [b for b in window if currency in b.by_currency]
            money = sum(b.by_currency[currency].money_nanos for b in shares)
            if sum(b.by_currency[currency].events for b in shares) < 3 or not money:
                continue
            for reason in enforced:
                part = sum(invalid(b, reason, currency) for b in shares) * 10**6
                if part < bounds[0] * money or part > bounds[1] * money:
                    expected.add((reason, currency))
        assert {(b.reason, b.currency_code) for b in found} == expected
        enforced -= {reason for reason, _ in expected}
        assert standing.turned == set(RULED) - enforced


@given(histories(), BOUNDS, st.integers(0, 12), st.booleans())
def test_a_restarted_guardrail_decides_as_one_that_never_stopped(batches, bounds, stop, resumed):
    """From the published set, the alerts, and the tallies of the window; also where a person resumed all rules."""
    stop = min(stop, len(batches))
    rules, standing = bounded(*bounds), Standing()
    steady = Guardrail(rules)
    told = []
    for batch in batches[:stop]:
        told.append(dataclasses.replace(batch, enforced=enforced_bits(standing)))
        ((standing, _),) = steps(steady, [batch], standing)
    kept = [b for b in told if told[-1].clock - b.clock < 2 * MINUTE_MS]
    restarted = Guardrail(rules, kept)
    if resumed:
        standing = Standing(frozenset(), standing.breached)
    assert restarted.breaches(standing) == steady.breaches(standing)
    assert list(steps(restarted, batches[stop:], standing)) == list(steps(steady, batches[stop:], standing))


def test_a_rule_that_is_resumed_is_measured_anew() -> None:
    """What turned it does not turn it again; the batches that did not enforce it say nothing of it."""
    rules, (rule, *_) = bounded(50_000, 300_000), RULED
    too_much = Tally(1_000, {1: Share(5, 100, dict.fromkeys(RULED, 20) | {rule: 50})})
    guardrail = Guardrail(rules, [too_much])
    (breach,) = guardrail.breaches(Standing())
    assert breach == Breach(rule, 1, 1_000, 5, 50, 100, 50_000, 300_000)
    flagged = Tally(
        2_000, {1: Share(5, 100, dict.fromkeys(RULED[1:], 20))}, enforced_bits(Standing(frozenset({rule})))
    )
    guardrail.add(flagged)
    resumed = Standing(frozenset(), {rule: 1_000})
    assert guardrail.breaches(resumed) == ()
    guardrail.add(dataclasses.replace(too_much, clock=3_000))
    assert [b.clock for b in guardrail.breaches(resumed)] == [3_000]


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
    assert found == Tally(7, expected, enforced)
    sums = [(currency, c, sum(1 << r for r in hits), 1, money) for c, hits, money, currency in rows]
    assert tally_of_sums(sums, enforced, 7) == found
