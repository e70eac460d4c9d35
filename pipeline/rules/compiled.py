"""The judge that is made of a rule set, lists and publishers: frozen, named by its version; and what a lane holds of it."""

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Self

import numpy as np
import xxhash

from adledger.pipeline.kernels.rules_events import ACTIVE, event_hits
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
from adledger.pipeline.stages.judge import JUDGE_VERSION, RuleHits
from adledger.schemas.classes import Class, Reason

RULES_LOGIC_VERSION = 1
"""Raised with every change of code that can change a hit: it is part of the judge version."""

AGENT_RULES = (Reason.UA_BLANK, Reason.UA_KNOWN_BOT, Reason.UA_NON_BROWSER, Reason.CRAWLER_IMPOSTOR)
TextOf = Callable[[I64], Sequence[bytes]]
ADDRESS_RULES = (Reason.IP_DATACENTER, Reason.IP_RESERVED, Reason.CRAWLER_IMPOSTOR)


@dataclass(frozen=True, slots=True)
class CompiledJudge:
    """A rule set with the lists and publishers that it judges by. Shared by all lanes; `version` names all of it.

    `rules` is the set as it was published, `effective` the one that judges: `turned` are rules that a guardrail has
    turned to flag. `lists` and `publishers` may be None: rules that need them are not evaluated. `log_day`: of the
    watermark of the batches that it judges; lists that say nothing of that day are not used (None: any day will do).
    `not_evaluated`: rule -> why, for those that are run; which they are is part of the version.
    """

    rules: RuleSet
    lists: Lists | None = None
    publishers: PublisherSnapshot | None = None
    turned: frozenset[Reason] = frozenset()
    log_day: dt.date | None = None
    effective: RuleSet = field(init=False)
    not_evaluated: Mapping[Reason, str] = field(init=False)
    version: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "effective", self.rules.flagged(self.turned))
        run = [r for r, s in self.effective.rules.items() if s.mode != Mode.OFF]
        why = {reason: self._why_not(reason) for reason in run}
        object.__setattr__(self, "not_evaluated", {r: w for r, w in why.items() if w})
        object.__setattr__(self, "version", self._version(run))

    @classmethod
    def none(cls) -> Self:
        """Return the judge without rules: the contract alone."""
        return cls(RuleSet.none())

    def for_batch(self, log_day: dt.date, turned: frozenset[Reason]) -> "CompiledJudge":
        """Return the judge of a batch: for a day of its watermark, with the rules turned that are turned by now."""
        return replace(self, log_day=log_day, turned=turned)

    @property
    def run(self) -> int:
        """The rules that are evaluated, as bits."""
        return self.effective.bits(Mode.ENFORCE, Mode.FLAG) & ~sum(1 << r for r in self.not_evaluated)

    @property
    def enforced(self) -> int:
        """The rules whose hits decide a class, as bits: what the primary reason is taken from."""
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
            return JUDGE_VERSION
        sources = {RULES[r].source for r in run}
        listed = {RuleInput.USER_AGENTS, RuleInput.ADDRESSES} & sources
        parts = [
            f"adledger judge {JUDGE_VERSION:016x} rules {RULES_LOGIC_VERSION}",
            f"{self.rules.version:016x} turned {_names(self.turned)}",
            f"not evaluated {_names(self.not_evaluated)}",
            self.lists.version if self.lists is not None and listed else "",
            self.publishers.version
            if self.publishers is not None and RuleInput.PUBLISHERS in sources
            else "",
        ]
        return xxhash.xxh64_intdigest("\n".join(parts).encode())


class LaneJudge:
    """A lane's part of the judge: its windows, and a cache of user agents. Not for two threads at once."""

    def __init__(
        self,
        judge: CompiledJudge,
        windows: RuleWindows | None = None,
        agents: UserAgentFlags | None = None,
    ) -> None:
        self.judge = judge
        self.windows = windows or RuleWindows(judge.effective)
        self._agents = agents or (UserAgentFlags(judge.lists.user_agents) if judge.lists else None)
        self._run = judge.run
        self._enforced = judge.enforced_of(Class.GIVT), judge.enforced_of(Class.SIVT)

    def changed(self, judge: CompiledJudge) -> "LaneJudge | None":
        """Return the lane's part of another judge, for the batches after; this one must not be used any more.

        None where a horizon or window changes: the windows are then made anew from `events` (`remember`).
        """
        if not self.windows.adopt(judge.effective):
            return None
        return LaneJudge(judge, self.windows, self._agents if judge.lists is self.judge.lists else None)

    def hits(self, decoded: Decoded, clock: I64, duplicate: U8) -> RuleHits:
        """Run all rules on a batch's records, in the lane's order with the watermark (ms) at each; changes the windows."""
        rows = Rows(decoded.columns, clock, decoded.status == 0, duplicate.view(np.bool_))
        return self.hits_of(rows, partial(_texts, decoded))

    def hits_of(self, rows: Rows, text_of: TextOf) -> RuleHits:
        """Run all rules on rows; `text_of` gives the user agents of row numbers whose hashes were not seen before."""
        reasons = np.zeros(len(rows.clock), np.uint64)
        missed = dict.fromkeys(self.judge.not_evaluated, int(np.count_nonzero(rows.live)))
        if self._run:
            self._judge_events(rows.columns, rows.live, text_of, reasons)
            missed.update(self.windows.apply(rows, reasons))
        return RuleHits(reasons, *self._enforced, {r: n for r, n in missed.items() if n})

    def remember(self, columns: EventColumns, clock: I64) -> None:
        """Enter events read back from `events`: the lane's non-duplicates since `windows.clock_from`, in its order."""
        n = len(clock)
        rows = Rows(columns, clock, np.ones(n, np.bool_), np.zeros(n, np.bool_))
        self.windows.apply(rows, np.zeros(n, np.uint64))

    def _judge_events(self, c: EventColumns, live: Bool, text_of: TextOf, reasons: U64) -> None:
        n, lists = len(live), self.judge.lists
        agents, addresses = np.zeros(n, np.uint16), np.zeros(n, np.uint32)
        if self._agents is not None and self._runs(AGENT_RULES):
            agents = self._agents.classify_hashes(c.ua_hash, live, text_of)
        if lists is not None and self._runs(ADDRESS_RULES):
            addresses = lists.addresses.classify(c.ip_hi, c.ip_lo)
        publishers = np.full(n, ACTIVE, np.uint8)
        if self.judge.publishers is not None:
            publishers = self.judge.publishers.classify(c.publisher_id)
        side = self.judge.effective.rules[Reason.INVALID_PLACEMENT].params["side_px_max"]
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
