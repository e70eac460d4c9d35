"""The guardrail: a rule that suddenly invalidates too much of the money, or too little, is turned to `flag`.

Shares are measured over a window of lane clock, per lane and currency (amounts of two are never summed), in exact
integers: the money of the events that the rule invalidated as their primary reason, of the money of all events that
were billable, givt or sivt. What a batch shows takes effect with the batches after it, which name another judge
version: that of the set with the rule turned. It stays so until an analyst publishes a set.

State is a function of the batches in the window, as `events` and `ledger` keep them, and of the set that judged the
last one; so a restarted worker decides as one that never stopped.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from pipeline.rules.registry import NO_REASON, primary_reasons
from pipeline.rules.rule import Mode
from pipeline.rules.rule_set import RuleSet
from pipeline.stages.columns import I64, U8, U16, U64
from schemas.classes import Class, Reason

MINUTE_MS = 60_000
PPM = 1_000_000
JUDGED = (Class.BILLABLE, Class.GIVT, Class.SIVT)


@dataclass(frozen=True, slots=True)
class Share:
    """Events of one currency, their money (nanos), and of it what each rule invalidated."""

    events: int
    money_nanos: int
    invalidated_nanos: Mapping[Reason, int]


@dataclass(frozen=True, slots=True)
class Tally:
    """What one batch adds: its lane clock (ms) at the end, and a share for each currency code."""

    clock: int
    by_currency: Mapping[int, Share]


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that left its bounds: the alert. Shares are invalidated_nanos of money_nanos in the window."""

    reason: Reason
    currency_code: int
    clock: int
    events: int
    invalidated_nanos: int
    money_nanos: int
    share_min_ppm: int
    share_max_ppm: int


def tally(
    class_code: U8, reasons: U64, money_nanos: I64, currency_code: U16, enforced: int, clock: int
) -> Tally:
    """Return what n event rows of a batch add; `enforced`: the rules (bits) that its judge enforced."""
    primary = primary_reasons(reasons, enforced)
    by_currency = {}
    judged = np.isin(class_code, JUDGED)
    invalid = np.isin(class_code, (Class.GIVT, Class.SIVT))
    for currency in np.unique(currency_code[judged]).tolist():
        here = judged & (currency_code == currency)
        rows = np.flatnonzero(here & invalid)
        assert NO_REASON not in primary[rows], "an enforced rule made the class"
        nanos = np.zeros(64, np.int64)  # a batch's nanos fit 64 bits (2^20 rows of at most 10^12)
        np.add.at(nanos, primary[rows], money_nanos[rows])
        found = {Reason(r): int(nanos[r]) for r in np.unique(primary[rows]).tolist()}
        by_currency[int(currency)] = Share(int(np.count_nonzero(here)), int(money_nanos[here].sum()), found)
    return Tally(clock, by_currency)


class Guardrail:
    """One lane's guardrail under one rule set. `effective` is the set that the next batch is judged by."""

    def __init__(self, rules: RuleSet) -> None:
        self._rules = rules
        self._window_ms = rules.guardrail_window_minutes * MINUTE_MS
        self._tallies: deque[Tally] = deque()
        self.effective = rules

    @classmethod
    def resumed(cls, rules: RuleSet, last: RuleSet, tallies: Iterable[Tally]) -> "Guardrail":
        """Return the guardrail as it was after its last batch.

        rules: the published set. last: the set that was effective after that batch. tallies: the batches whose clock
        lies within the window before it, in order.
        """
        guardrail = cls(rules)
        turned = [r for r in rules.rules if rules.rules[r].mode != last.rules[r].mode]
        guardrail.effective = rules.flagged(turned)
        assert guardrail.effective.version == last.version, (
            "the last set is the published one with rules turned"
        )
        guardrail._tallies.extend(tallies)
        return guardrail

    def observe(self, batch: Tally) -> tuple[Breach, ...]:
        """Add a batch; returns the rules that leave their bounds now, and turns them to flag for the batches after."""
        self._tallies.append(batch)
        while batch.clock - self._tallies[0].clock >= self._window_ms:
            self._tallies.popleft()
        breaches = tuple(
            breach
            for currency in sorted({c for t in self._tallies for c in t.by_currency})
            for breach in self._breaches(currency, batch.clock)
        )
        self.effective = self.effective.flagged({b.reason for b in breaches})
        return breaches

    def _breaches(self, currency: int, clock: int) -> Iterable[Breach]:
        shares = [t.by_currency[currency] for t in self._tallies if currency in t.by_currency]
        events, money = sum(s.events for s in shares), sum(s.money_nanos for s in shares)
        if events < self._rules.guardrail_events_min or not money:
            return
        for reason, setting in self.effective.rules.items():
            nanos = sum(s.invalidated_nanos.get(reason, 0) for s in shares)
            within = setting.share_min_ppm * money <= nanos * PPM <= setting.share_max_ppm * money
            if setting.mode == Mode.ENFORCE and not within:
                yield Breach(
                    reason,
                    currency,
                    clock,
                    events,
                    nanos,
                    money,
                    setting.share_min_ppm,
                    setting.share_max_ppm,
                )
