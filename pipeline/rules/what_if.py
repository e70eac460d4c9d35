"""What if: a candidate rule set on stored events, compared with their stored verdicts. Pure.

A lane's events are replayed in its order, from windows that are warmed up by the events before. What changes is
compared with the stored class; the reason of a change is the candidate's primary reason where it invalidates, else
the one by which the event had been invalidated.
"""

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from adledger.pipeline.records.columns import I64, U8, U64, Array, Bool, EventColumns
from adledger.pipeline.rules.compiled import AGENT_RULES, LaneEvaluator, RuleEvaluator
from adledger.pipeline.rules.registry import NO_REASON, RULES, primary_reasons
from adledger.pipeline.rules.windows import Rows
from adledger.pipeline.stages.merge import DAY_MS
from adledger.schemas.classes import Class, Reason

EPOCH = dt.date(1970, 1, 1)
EVALUATED = (Class.BILLABLE, Class.GIVT, Class.SIVT)
AGENT_BITS = np.uint64(sum(1 << r for r in AGENT_RULES))


@dataclass(frozen=True, slots=True)
class Stored:
    """n events of one lane as `events` has them, in its order. `place` names them: batch, topic, offset."""

    columns: EventColumns
    lane_clock: I64
    class_code: U8
    reasons: U64
    money_nanos: I64
    judge_version: U64
    place: tuple[Array, ...]


class DimensionStrings:
    """User agents behind hashes; missing ones are remembered."""

    def __init__(self, look_up: Callable[[U64], Mapping[int, bytes]]) -> None:
        """`look_up` returns the stored strings."""
        self._look_up = look_up
        self.missing: set[int] = set()

    def of(self, hashes: U64) -> list[bytes]:
        """Return a string for each hash; b"" for a missing one."""
        found = self._look_up(hashes)
        self.missing.update(h for h in hashes.tolist() if h not in found)
        return [found.get(h, b"") for h in hashes.tolist()]

    def lacks(self, hashes: U64) -> Bool:
        """Return which of the hashes looked up before are missing."""
        return np.isin(hashes, np.fromiter(self.missing, np.uint64, len(self.missing)))


@dataclass(slots=True)
class Sums:
    """Events and money (nanos)."""

    events: int = 0
    money_nanos: int = 0

    def add(self, events: int, money_nanos: int) -> None:
        """Add."""
        self.events += events
        self.money_nanos += money_nanos


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """What a sum is of: a rule (-1: not known), publisher and currency, from one class to another."""

    rule: int
    publisher_id: int
    currency_code: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class ChangedEvent:
    """One event that changes, with the bits of both evaluators."""

    change: VerdictChange
    lane: int
    batch_no: int
    topic: int
    offset: int
    event_time: int
    id_hash: int
    ua_hash: int
    ip_hi: int
    ip_lo: int
    reasons_before: int
    reasons_after: int


@dataclass(slots=True)
class Findings:
    """What a replay found. `by_rule`: (rule, stored class, currency) -> what the candidate invalidates as primary."""

    events: int = 0
    texts_missing: int = 0
    by_rule: dict[tuple[int, int, int], Sums] = field(default_factory=dict)
    hits: dict[int, list[int]] = field(
        default_factory=dict
    )  # rule -> [events hit then, events hit now], any mode
    changes: dict[VerdictChange, Sums] = field(default_factory=dict)
    not_evaluated: dict[Reason, int] = field(default_factory=dict)
    samples: dict[int, list[ChangedEvent]] = field(default_factory=dict)


class LaneReplay:
    """One lane under a candidate. `enforced_of`: evaluator version -> the rules (bits) that it enforced."""

    def __init__(
        self,
        lane: int,
        candidate: RuleEvaluator,
        texts: DimensionStrings,
        enforced_of: Mapping[int, int],
        findings: Findings,
        samples_per_rule: int,
    ) -> None:
        self._lane, self._candidate, self._texts = lane, candidate, texts
        self._enforced_of, self._findings, self._samples_per_rule = enforced_of, findings, samples_per_rule
        self._evaluator = LaneEvaluator(candidate)

    def clock_from(self, clock: int) -> int:
        """Return the watermark (ms) from which events warm the windows up for events at `clock`."""
        return self._evaluator.windows.clock_from(clock)

    def warm_up(self, columns: EventColumns, clock: I64) -> None:
        """Enter non-duplicate events from before the span."""
        self._evaluator.remember(columns, clock)

    def replay(self, stored: Stored) -> None:
        """Evaluate events again and add what changes to the findings."""
        for part in _days(stored):
            day = EPOCH + dt.timedelta(days=int(part.lane_clock[0]) // DAY_MS)
            changed = self._evaluator.changed(self._candidate.for_batch(day, frozenset()))
            assert changed is not None, "windows don't depend on the day"
            self._evaluator = changed
            self._replay(part)

    def _replay(self, stored: Stored) -> None:
        n, columns, found = len(stored.lane_clock), stored.columns, self._findings
        duplicate = stored.class_code == Class.DUPLICATE
        rows = Rows(columns, stored.lane_clock, np.ones(n, np.bool_), duplicate)
        hits = self._evaluator.hits_of(rows, lambda at: self._texts.of(columns.ua_hash[at]))
        reasons = hits.reasons
        lacking = self._texts.lacks(columns.ua_hash)
        if lacking.any():  # the stored verdict stays
            reasons[lacking] = (reasons[lacking] & ~AGENT_BITS) | (stored.reasons[lacking] & AGENT_BITS)
        found.events += n
        found.texts_missing += int(np.count_nonzero(lacking))
        for reason, events in hits.not_evaluated.items():
            found.not_evaluated[reason] = found.not_evaluated.get(reason, 0) + events
        after = stored.class_code.copy()
        evaluated = np.isin(stored.class_code, EVALUATED)
        after[evaluated] = Class.BILLABLE
        after[evaluated & (reasons & np.uint64(hits.sivt) != 0)] = Class.SIVT
        after[evaluated & (reasons & np.uint64(hits.givt) != 0)] = Class.GIVT
        then = self._primary_then(stored)
        now = primary_reasons(reasons, self._evaluator.compiled.enforced)
        rule = np.where(after == Class.BILLABLE, then, now)
        self._count(stored, evaluated, reasons, now, after)
        self._note(stored, np.flatnonzero(after != stored.class_code), rule, after, reasons)

    def _primary_then(self, stored: Stored) -> I64:
        primary = np.full(len(stored.reasons), NO_REASON, np.int64)
        for version in np.unique(stored.judge_version).tolist():
            enforced = self._enforced_of.get(version)
            if enforced is not None:
                rows = stored.judge_version == version
                primary[rows] = primary_reasons(stored.reasons[rows], enforced)
        return primary

    def _count(self, stored: Stored, evaluated: Bool, reasons: U64, now: I64, after: U8) -> None:
        for reason in RULES:
            bit = np.uint64(1 << reason)
            counts = [int(np.count_nonzero(bits[evaluated] & bit)) for bits in (stored.reasons, reasons)]
            if any(counts):
                held = self._findings.hits.setdefault(int(reason), [0, 0])
                held[:] = [a + b for a, b in zip(held, counts, strict=True)]
        invalid = np.flatnonzero(evaluated & (after != Class.BILLABLE))
        keys = (now[invalid], stored.class_code[invalid], stored.columns.currency_code[invalid])
        for key, events, nanos in _grouped(keys, stored.money_nanos[invalid]):
            rule, before, currency = key
            self._findings.by_rule.setdefault((rule, before, currency), Sums()).add(events, nanos)

    def _note(self, stored: Stored, at: I64, rule: I64, after: U8, reasons: U64) -> None:
        c = stored.columns
        columns: Sequence[Array] = (rule, c.publisher_id, c.currency_code, stored.class_code, after)
        for key, events, nanos in _grouped([values[at] for values in columns], stored.money_nanos[at]):
            self._findings.changes.setdefault(VerdictChange(*key), Sums()).add(events, nanos)
        for number in np.unique(rule[at]).tolist():
            samples = self._findings.samples.setdefault(number, [])
            room = self._samples_per_rule - len(samples)
            for i in at[rule[at] == number][: max(0, room)].tolist():
                change = VerdictChange(*(int(values[i]) for values in columns))
                place = (int(values[i]) for values in stored.place)
                what = (c.event_time, c.id_hash, c.ua_hash, c.ip_hi, c.ip_lo, stored.reasons, reasons)
                samples.append(ChangedEvent(change, self._lane, *place, *(int(values[i]) for values in what)))


def _grouped(keys: Sequence[Array], nanos: I64) -> Iterator[tuple[list[int], int, int]]:
    """Yield (key, rows, money) of each distinct key. A block's money fits 64 bits."""
    if not len(nanos):
        return
    rows = np.stack([np.asarray(key, np.int64) for key in keys], axis=1)
    distinct, group = np.unique(rows, axis=0, return_inverse=True)
    group = group.reshape(-1)
    events = np.bincount(group)
    money = np.zeros(len(distinct), np.int64)
    np.add.at(money, group, nanos)
    yield from zip(distinct.tolist(), events.tolist(), money.tolist(), strict=True)


def _days(stored: Stored) -> Iterator[Stored]:
    """Yield the parts of a block, one for each log day; a batch never spans two."""
    days = stored.lane_clock // DAY_MS
    cuts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist(), len(days)]
    for start, end in pairwise(cuts):
        rows = slice(start, end)
        columns = EventColumns(**{n: getattr(stored.columns, n)[rows] for n in EventColumns.__slots__})
        place = tuple(values[rows] for values in stored.place)
        yield Stored(
            columns, stored.lane_clock[rows], stored.class_code[rows], stored.reasons[rows],
            stored.money_nanos[rows], stored.judge_version[rows], place,
        )  # fmt: skip
