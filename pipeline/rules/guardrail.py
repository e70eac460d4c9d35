"""The guardrail: a rule that suddenly invalidates too much of the money, or too little, is turned to `flag`.

Shares are measured over a window of lane clock, per lane and currency (amounts of two are never summed), in exact
integers: the money of the events that the rule invalidated as their primary reason, of the money of all events that
were billable, givt or sivt, in batches that enforced it. What a batch shows takes effect in that lane with the batches
after it, which name another judge version. It stays so until an analyst resumes the rule or publishes another set;
then the rule is measured anew, by the batches after its breach.

Per lane, not for all lanes at once: a lane has its own users, so that whoever floods one lane with a few users can turn
a rule off for these alone; and a rule that is wrong is so in every lane.

State is a function of the batches in the window, as `events` and `ledger` keep them, and of the rows of `alerts`; so a
restarted worker decides as one that never stopped.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from pipeline.rules.registry import NO_REASON, RULE_BITS, primary_reasons
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
    """What one batch adds: its lane clock (ms) at the end, a share for each currency code, and what it enforced (bits)."""

    clock: int
    by_currency: Mapping[int, Share]
    enforced: int = RULE_BITS


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
    return Tally(clock, by_currency, enforced & RULE_BITS)


def tally_of_sums(sums: Iterable[tuple[int, int, int, int, int]], enforced: int, clock: int) -> Tally:
    """Return the same from sums over events: (currency code, class code, reasons, events, money in nanos)."""
    by_currency: dict[int, Share] = {}
    for currency, class_code, reasons, events, nanos in sums:
        if class_code not in JUDGED:
            continue
        share = by_currency.get(currency, Share(0, 0, {}))
        parts = dict(share.invalidated_nanos)
        if class_code != Class.BILLABLE:
            hit = reasons & enforced & RULE_BITS
            first = Reason((hit & -hit).bit_length() - 1)
            parts[first] = parts.get(first, 0) + nanos
        by_currency[currency] = Share(share.events + events, share.money_nanos + nanos, parts)
    return Tally(clock, by_currency, enforced & RULE_BITS)


@dataclass(frozen=True, slots=True)
class Standing:
    """What alerts say of a lane: the rules that are turned, and the lane clock (ms) of each rule's last breach."""

    turned: frozenset[Reason] = frozenset()
    breached: Mapping[Reason, int] = field(default_factory=dict)

    def after(self, breaches: Iterable[Breach]) -> "Standing":
        """Return the standing when these breaches have been told."""
        new = {breach.reason: breach.clock for breach in breaches}
        return Standing(self.turned | new.keys(), {**self.breached, **new})


class Guardrail:
    """One lane's guardrail under one rule set. Sums are kept, so that a batch costs no more in a longer window."""

    def __init__(self, rules: RuleSet, tallies: Iterable[Tally] = ()) -> None:
        """`tallies`: the batches whose clock lies within the window before the last one, in order."""
        self._rules = rules
        self._watched = [
            r
            for r, s in rules.rules.items()
            if s.mode == Mode.ENFORCE and (s.share_min_ppm > 0 or s.share_max_ppm < PPM)
        ]
        self._window_ms = rules.guardrail_window_minutes * MINUTE_MS
        self._tallies: deque[Tally] = deque()
        self._breached: Mapping[Reason, int] = {}
        self._sums: dict[tuple[Reason, int], list[int]] = {}  # (rule, currency) -> events, money, invalidated
        for batch in tallies:
            self.add(batch)

    @property
    def watches(self) -> bool:
        """Whether any rule can leave its bounds."""
        return bool(self._watched)

    def add(self, batch: Tally) -> None:
        """Add a batch."""
        self._tallies.append(batch)
        self._count(batch, 1)
        while batch.clock - self._tallies[0].clock >= self._window_ms:
            self._count(self._tallies.popleft(), -1)

    def breaches(self, standing: Standing) -> tuple[Breach, ...]:
        """Return the rules that are outside of their bounds after the last batch, and not turned yet."""
        if self._breached != standing.breached:
            self._breached, self._sums = standing.breached, {}
            for batch in self._tallies:
                self._count(batch, 1)
        clock = self._tallies[-1].clock if self._tallies else 0
        found = []
        for (reason, currency), (events, money, nanos) in sorted(self._sums.items()):
            s = self._rules.rules[reason]
            within = s.share_min_ppm * money <= nanos * PPM <= s.share_max_ppm * money
            decides = events >= self._rules.guardrail_events_min and money > 0
            if decides and not within and reason not in standing.turned:
                found.append(
                    Breach(reason, currency, clock, events, nanos, money, s.share_min_ppm, s.share_max_ppm)
                )
        return tuple(found)

    def _count(self, batch: Tally, sign: int) -> None:
        """Count a batch in or out, for each rule that it enforced after the rule's last breach."""
        for reason in self._watched:
            if not batch.enforced >> reason & 1 or batch.clock <= self._breached.get(reason, -1):
                continue
            for currency, share in batch.by_currency.items():
                sums = self._sums.setdefault((reason, currency), [0, 0, 0])
                sums[0] += sign * share.events
                sums[1] += sign * share.money_nanos
                sums[2] += sign * share.invalidated_nanos.get(reason, 0)
