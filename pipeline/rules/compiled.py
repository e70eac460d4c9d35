"""The rule evaluator: a rule set with its lists and publishers, frozen and named by a version; and a lane's part of it."""

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import numpy as np
import xxhash

from adledger.pipeline.kernels.rules_events import ACTIVE, event_hits
from adledger.pipeline.kernels.slots import KNOWN_SECRET, SlotSecret
from adledger.pipeline.lists.facts import NEEDED_BY
from adledger.pipeline.lists.load import Lists
from adledger.pipeline.lists.publishers import PublisherSnapshot
from adledger.pipeline.lists.user_agents import UserAgentFlags
from adledger.pipeline.records.columns import I64, U8, U64, Bool, Decoded, EventColumns
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode, RuleInput
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.pipeline.rules.windows import Rows, RuleWindows
from adledger.pipeline.stages.decode import user_agents
from adledger.pipeline.stages.evaluate import CONTRACT_VERSION, RuleHits
from adledger.schemas.classes import Class, Reason

RULES_LOGIC_VERSION = 2
"""Incremented with every change of code that can change a hit: it is part of the evaluator version."""

AGENT_RULES = (Reason.UA_BLANK, Reason.UA_KNOWN_BOT, Reason.UA_NON_BROWSER, Reason.CRAWLER_IMPOSTOR)
TextOf = Callable[[I64], Sequence[bytes]]
ADDRESS_RULES = (Reason.IP_DATACENTER, Reason.IP_RESERVED, Reason.CRAWLER_IMPOSTOR)


@dataclass(frozen=True, slots=True)
class RuleEvaluator:
    """A rule set with the lists and publishers that it uses. Shared by all lanes; `version` covers all of it.

    `rules` is the set as published, `effective` the set in force: in it, the rules that a guardrail `demoted` only flag.
    `lists` and `publishers` may be None: rules that need them are not evaluated. `log_day` is the day of
    its batches' watermark; lists that do not cover that day are not used (None: every list is used).
    `not_evaluated`: rule -> why, of the rules that should run; the set of these rules is part of the version.
    """

    rules: RuleSet
    lists: Lists | None = None
    publishers: PublisherSnapshot | None = None
    demoted: frozenset[Reason] = frozenset()
    log_day: dt.date | None = None
    effective: RuleSet = field(init=False)
    not_evaluated: Mapping[Reason, str] = field(init=False)
    version: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "effective", self.rules.flagged(self.demoted))
        run = [r for r, s in self.effective.rules.items() if s.mode != Mode.OFF]
        why = {reason: self._why_not(reason) for reason in run}
        object.__setattr__(self, "not_evaluated", {r: w for r, w in why.items() if w})
        object.__setattr__(self, "version", self._version(run))

    @classmethod
    def none(cls) -> Self:
        """Return the evaluator without rules: the contract alone."""
        return cls(RuleSet.none())

    def for_batch(self, log_day: dt.date, demoted: frozenset[Reason]) -> "RuleEvaluator":
        """Return the evaluator for a batch: for the day of its watermark, with the rules that are demoted by then."""
        return replace(self, log_day=log_day, demoted=demoted)

    @property
    def run(self) -> int:
        """The rules that are evaluated, as bits."""
        return self.effective.bits(Mode.ENFORCE, Mode.FLAG) & ~sum(1 << r for r in self.not_evaluated)

    @property
    def enforced(self) -> int:
        """The rules whose hits decide a class, as bits: the primary reason is one of them."""
        return self.effective.bits(Mode.ENFORCE)

    def enforced_of(self, event_class: Class) -> int:
        """Return the enforced rules of a class (givt or sivt), as bits."""
        return self.enforced & sum(1 << r for r, rule in RULES.items() if rule.event_class == event_class)

    def _why_not(self, reason: Reason) -> str:
        source = RULES[reason].source
        if source == RuleInput.PUBLISHERS:
            return "publishers are not loaded" if self.publishers is None else self.publishers.why_not
        if source in (RuleInput.USER_AGENTS, RuleInput.ADDRESSES):
            if self.lists is None:
                return "lists are not loaded"
            return self.lists.why_not(NEEDED_BY.get(reason.name, ()), self.log_day)
        return ""

    def _version(self, run: list[Reason]) -> int:
        if not run:
            return CONTRACT_VERSION
        sources = {RULES[r].source for r in run}
        listed = {RuleInput.USER_AGENTS, RuleInput.ADDRESSES} & sources
        parts = [
            f"adledger judge {CONTRACT_VERSION:016x} rules {RULES_LOGIC_VERSION}",
            f"{self.rules.version:016x} turned {_names(self.demoted)}",
            f"not evaluated {_names(self.not_evaluated)}",
            self.lists.version if self.lists is not None and listed else "",
            self.publishers.version
            if self.publishers is not None and RuleInput.PUBLISHERS in sources
            else "",
        ]
        return xxhash.xxh64_intdigest("\n".join(parts).encode())


class LaneEvaluator:
    """A lane's part of a rule evaluator: its windows and a cache of user agents. Not thread-safe."""

    def __init__(
        self,
        evaluator: RuleEvaluator,
        windows: RuleWindows | None = None,
        agents: UserAgentFlags | None = None,
        secret: SlotSecret = KNOWN_SECRET,
    ) -> None:
        self.secret = secret
        self.compiled = evaluator
        self.windows = windows or RuleWindows(evaluator.effective, secret=secret)
        lists = evaluator.lists
        self._agents = agents or (UserAgentFlags(lists.user_agents, secret=secret) if lists else None)
        self._run = evaluator.run
        self._enforced = evaluator.enforced_of(Class.GIVT), evaluator.enforced_of(Class.SIVT)

    def changed(self, evaluator: RuleEvaluator) -> "LaneEvaluator | None":
        """Return the lane's part of another evaluator, for later batches; this one must not be used any more.

        None if a horizon or window changes: then rebuild the windows from `events` (`remember`).
        """
        if not self.windows.adopt(evaluator.effective):
            return None
        agents = self._agents if evaluator.lists is self.compiled.lists else None
        return LaneEvaluator(evaluator, self.windows, agents, self.secret)

    def hits(self, decoded: Decoded, clock: I64, duplicate: U8) -> RuleHits:
        """Run all rules on a batch's records, in the lane's order with the watermark (ms) at each; updates the windows."""
        rows = Rows(decoded.columns, clock, decoded.status == 0, duplicate.view(np.bool_))
        return self.hits_of(rows, partial(_texts, decoded))

    def hits_of(self, rows: Rows, text_of: TextOf) -> RuleHits:
        """Run all rules on rows; `text_of` returns the user agents of rows whose hashes are not cached yet."""
        reasons = np.zeros(len(rows.clock), np.uint64)
        missed = dict.fromkeys(self.compiled.not_evaluated, int(np.count_nonzero(rows.live)))
        if self._run:
            self._evaluate_events(rows.columns, rows.live, text_of, reasons)
            missed.update(self.windows.apply(rows, reasons))
        return RuleHits(reasons, *self._enforced, {r: n for r, n in missed.items() if n})

    def remember(self, columns: EventColumns, clock: I64) -> None:
        """Enter events read back from `events`: the lane's non-duplicates since `windows.clock_from`, in its order."""
        n = len(clock)
        rows = Rows(columns, clock, np.ones(n, np.bool_), np.zeros(n, np.bool_))
        self.windows.apply(rows, np.zeros(n, np.uint64))

    def _evaluate_events(self, c: EventColumns, live: Bool, text_of: TextOf, reasons: U64) -> None:
        n, lists = len(live), self.compiled.lists
        agents, addresses = np.zeros(n, np.uint16), np.zeros(n, np.uint32)
        if self._agents is not None and self._runs(AGENT_RULES):
            agents = self._agents.classify_hashes(c.ua_hash, live, text_of)
        if lists is not None and self._runs(ADDRESS_RULES):
            addresses = lists.addresses.classify(c.ip_hi, c.ip_lo)
        publishers = np.full(n, ACTIVE, np.uint8)
        if self.compiled.publishers is not None:
            publishers = self.compiled.publishers.classify(c.publisher_id)
        side = self.compiled.effective.rules[Reason.INVALID_PLACEMENT].params["side_px_max"]
        event_hits(
            agents, addresses, publishers, c.flags, c.width_px, c.height_px, live, side,
            np.uint64(self._run), reasons,
        )  # fmt: skip

    def _runs(self, reasons: tuple[Reason, ...]) -> bool:
        return any(self._run >> reason & 1 for reason in reasons)


def _names(reasons: Collection[Reason]) -> str:
    return " ".join(reason.name for reason in sorted(reasons))


def _texts(decoded: Decoded, rows: I64) -> list[bytes]:
    return user_agents(decoded, rows.tolist())
