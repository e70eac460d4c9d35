"""The guardrail: a rule that suddenly invalidates too much of the money, or too little, is demoted to `flag`.

Shares are measured over a window of log time, per lane and currency (amounts of two are never summed), in exact
integers: the money of the events that the rule invalidated as their primary reason, of the money of all events that
were billable, givt or sivt, in batches that enforced it. A batch is measured minute by minute of log time, so that
a batch of a backlog, which may span hours, shows what small batches would have shown. The result takes effect in
that lane with the batches after it, which name another evaluator version. It stays so until an analyst resumes the rule or
publishes another set; then the rule is measured again, by the batches after its breach.

Per lane, not for all lanes together: a lane has its own users, so an attacker who floods one lane with a few users can turn
a rule off for these users alone; and a wrong rule is wrong in every lane.

State is a function of the batches in the window, as `events` and `ledger` keep them, and of the rows of `alerts`; so a
restarted worker decides like one that never stopped.
"""

from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from adledger.pipeline.records.columns import I64, U8, U16, U64
from adledger.pipeline.rules.registry import NO_REASON, RULE_BITS, primary_reasons
from adledger.pipeline.rules.rule import Mode
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.schemas.classes import Class, Reason

MINUTE_MS = 60_000
PPM = 1_000_000
EVALUATED = (Class.BILLABLE, Class.GIVT, Class.SIVT)


@dataclass(frozen=True, slots=True)
class Share:
    """Events of one currency, their money (nanos), and of it what each rule invalidated."""

    events: int
    money_nanos: int
    invalidated_nanos: Mapping[Reason, int]


NOTHING = Share(0, 0, {})
BILLABLE = 64
"""In place of the primary reason of an event that no rule invalidated."""


@dataclass(frozen=True, slots=True)
class MinuteTally:
    """What a minute of a batch adds: watermark (ms) at its end, a share for each currency code, what was enforced (bits)."""

    clock: int
    by_currency: Mapping[int, Share]
    enforced: int = RULE_BITS


Slices = Sequence[MinuteTally]
"""A batch, minute by minute; the last one's clock is that of the batch at its end."""


@dataclass(frozen=True, slots=True)
class Breach:
    """A rule that left its bounds: the alert. Shares are invalidated_nanos of money_nanos in the window that showed it.

    `clock`: of the batch at its end, wherever in it that window ends: up to there nothing is measured again.
    """

    reason: Reason
    currency_code: int
    clock: int
    events: int
    invalidated_nanos: int
    money_nanos: int
    share_min_ppm: int
    share_max_ppm: int


def tally(
    class_code: U8,
    reasons: U64,
    money_nanos: I64,
    currency_code: U16,
    lane_clock: I64,
    enforced: int,
    clock: int,
) -> tuple[MinuteTally, ...]:
    """Return what n event rows of a batch, in the lane's order, add; `clock` (ms) is the lane's after the batch.

    `enforced`: the rules (bits) that its evaluator enforced.
    """
    evaluated = np.flatnonzero(np.isin(class_code, EVALUATED))
    if not len(evaluated):
        return _slices((), enforced, clock)
    invalid = np.isin(class_code[evaluated], (Class.GIVT, Class.SIVT))
    primary = np.where(invalid, primary_reasons(reasons[evaluated], enforced), BILLABLE)
    assert NO_REASON not in primary, "an enforced rule made the class"
    minute = lane_clock[evaluated] // MINUTE_MS
    key = (minute - minute[0]) << 24 | currency_code[evaluated].astype(np.int64) << 8 | primary
    order = np.argsort(key, kind="stable")
    starts = np.flatnonzero(np.diff(key[order], prepend=-1))
    nanos = np.add.reduceat(
        money_nanos[evaluated][order], starts
    )  # of 2^20 rows of at most 10^12: they fit 64 bits
    events = np.diff(starts, append=len(order))
    by_minute: dict[int, dict[int, Share]] = {}
    for k, n, worth in zip(key[order[starts]].tolist(), events.tolist(), nanos.tolist(), strict=True):
        shares = by_minute.setdefault(int(minute[0]) + (k >> 24), {})
        _add_to(shares, k >> 8 & 0xFFFF, k & 0xFF, n, worth)
    return _slices(by_minute.items(), enforced, clock)


def tally_of_sums(
    sums: Iterable[tuple[int, int, int, int, int, int]], enforced: int, clock: int
) -> tuple[MinuteTally, ...]:
    """Return the same from sums over events: (minute, currency code, class code, reasons, events, money in nanos).

    `minute` is that of the watermark, counted from the epoch.
    """
    by_minute: dict[int, dict[int, Share]] = {}
    for minute, currency, class_code, reasons, events, nanos in sums:
        if class_code not in EVALUATED:
            continue
        reason = BILLABLE
        if class_code != Class.BILLABLE:
            hit = reasons & enforced & RULE_BITS
            reason = (hit & -hit).bit_length() - 1
        _add_to(by_minute.setdefault(minute, {}), currency, reason, events, nanos)
    return _slices(sorted(by_minute.items()), enforced, clock)


def _add_to(shares: dict[int, Share], currency: int, reason: int, events: int, nanos: int) -> None:
    """Add events of one currency, and of one primary reason (or BILLABLE), to the shares of a minute."""
    share = shares.get(currency, NOTHING)
    parts = share.invalidated_nanos
    if reason != BILLABLE:
        parts = {**parts, Reason(reason): parts.get(Reason(reason), 0) + nanos}
    shares[currency] = Share(share.events + events, share.money_nanos + nanos, parts)


def _slices(
    by_minute: Iterable[tuple[int, Mapping[int, Share]]], enforced: int, clock: int
) -> tuple[MinuteTally, ...]:
    """Return the tallies of a batch's minutes, those that hold nothing left out; the last ends with the batch."""
    enforced &= RULE_BITS
    found = [
        MinuteTally(min((minute + 1) * MINUTE_MS - 1, clock), shares, enforced)
        for minute, shares in by_minute
        if shares
    ]
    if not found or found[-1].clock < clock:
        found.append(MinuteTally(clock, {}, enforced))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Standing:
    """What alerts say of a lane: the rules that are demoted, and the watermark (ms) of each rule's last breach."""

    demoted: frozenset[Reason] = frozenset()
    breached: Mapping[Reason, int] = field(default_factory=dict)

    def after(self, breaches: Iterable[Breach]) -> "Standing":
        """Return the standing after these breaches."""
        new = {breach.reason: breach.clock for breach in breaches}
        return Standing(self.demoted | new.keys(), {**self.breached, **new})


class Guardrail:
    """One lane's guardrail under one rule set. Sums are kept, so that a batch costs no more in a longer window.

    A rule that never left its bounds was enforced in all batches, so such rules share the sums of all events; those that
    did, since when only some batches count, have sums of their own.
    """

    def __init__(self, rules: RuleSet, batches: Iterable[Slices] = ()) -> None:
        """`batches`: the earlier ones, in order, that overlap the window before the next batch's first event."""
        self._rules = rules
        self._watched = [
            r
            for r, s in rules.rules.items()
            if s.mode == Mode.ENFORCE and (s.share_min_ppm > 0 or s.share_max_ppm < PPM)
        ]
        self._window_ms = rules.guardrail_window_minutes * MINUTE_MS
        self._tallies: deque[MinuteTally] = deque()
        self._forget({})
        for batch in batches:
            for part in batch:
                self._add(part)

    @property
    def watches(self) -> bool:
        """Whether any rule can leave its bounds."""
        return bool(self._watched)

    def add(self, batch: Slices, standing: Standing) -> tuple[Breach, ...]:
        """Add a batch; return the rules that were outside of their bounds at the end of any of its minutes, not demoted yet."""
        if self._breached != standing.breached:
            self._forget(standing.breached)
            for part in self._tallies:
                self._count(part, 1)
        found: list[Breach] = []
        for part in batch:
            self._add(part)
            known = standing.demoted | {breach.reason for breach in found}
            found += self._outside(known, batch[-1].clock)
        return tuple(found)

    def _forget(self, breached: Mapping[Reason, int]) -> None:
        """Start counting from zero, with the watermark (ms) of each rule's last breach."""
        self._breached = breached
        self._steady = [r for r in self._watched if r not in breached]
        self._totals: dict[
            int, list[int]
        ] = {}  # currency -> events, money; of the rules that never left their bounds
        self._nanos: Counter[tuple[Reason, int]] = Counter()  # what they invalidated
        self._sums: dict[tuple[Reason, int], list[int]] = {}  # of the others: events, money, invalidated

    def _add(self, part: MinuteTally) -> None:
        self._tallies.append(part)
        self._count(part, 1)
        while part.clock - self._tallies[0].clock >= self._window_ms:
            self._count(self._tallies.popleft(), -1)

    def _outside(self, known: Collection[Reason], clock: int) -> list[Breach]:
        """Return the rules, but for the known ones, that are outside of their bounds in the window as it is now."""
        measured: list[tuple[tuple[Reason, int], int, int, int]] = [
            (key, sums[0], sums[1], sums[2]) for key, sums in self._sums.items()
        ]
        for currency, (events, money) in self._totals.items():
            if events >= self._rules.guardrail_events_min:
                measured += [((r, currency), events, money, self._nanos[r, currency]) for r in self._steady]
        found = []
        for (reason, currency), events, money, nanos in sorted(measured):
            s = self._rules.rules[reason]
            within = s.share_min_ppm * money <= nanos * PPM <= s.share_max_ppm * money
            decides = events >= self._rules.guardrail_events_min and money > 0
            if decides and not within and reason not in known:
                found.append(
                    Breach(reason, currency, clock, events, nanos, money, s.share_min_ppm, s.share_max_ppm)
                )
        return found

    def _count(self, part: MinuteTally, sign: int) -> None:
        """Count a minute in or out, for each rule that its batch enforced after the rule's last breach."""
        for currency, share in part.by_currency.items():
            totals = self._totals.setdefault(currency, [0, 0])
            totals[0] += sign * share.events
            totals[1] += sign * share.money_nanos
            for reason, nanos in share.invalidated_nanos.items():
                self._nanos[reason, currency] += sign * nanos
        for reason, breached in self._breached.items():
            if reason not in self._watched or not part.enforced >> reason & 1 or part.clock <= breached:
                continue
            for currency, share in part.by_currency.items():
                sums = self._sums.setdefault((reason, currency), [0, 0, 0])
                sums[0] += sign * share.events
                sums[1] += sign * share.money_nanos
                sums[2] += sign * share.invalidated_nanos.get(reason, 0)
