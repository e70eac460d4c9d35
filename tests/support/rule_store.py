"""The tables of rules in memory: what a worker publishes to and reads from, over a memory sink's ledger and events."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from adledger.pipeline.rules.rule_set import RuleSet
from adledger.sinks.memory import MemorySink
from adledger.sinks.rules import AlertKind, AlertRow, EvaluatedBatch, EvaluatorRow, PublishedRules


@dataclass(slots=True)
class MemoryRules:
    """`RuleStore` over lists."""

    sink: MemorySink
    sets: list[PublishedRules] = field(default_factory=list)
    statuses: dict[int, str] = field(default_factory=dict)
    statuses_version: int = 0
    added: list[AlertRow] = field(default_factory=list)
    evaluators: dict[int, EvaluatorRow] = field(default_factory=dict)

    def publish(self, rules: RuleSet | str) -> None:
        """Add a set, or an invalid text."""
        text = rules if isinstance(rules, str) else rules.text()
        version = 7 if isinstance(rules, str) else rules.version
        self.sets.insert(0, PublishedRules(version, text, "ann", "to see", len(self.sets)))

    async def published(self) -> Sequence[PublishedRules]:
        return tuple(self.sets)

    async def publishers_version(self) -> int:
        return self.statuses_version

    async def publishers(self) -> Sequence[tuple[int, str]]:
        return list(self.statuses.items())

    async def alerts(self, rules_version: int) -> Sequence[AlertRow]:
        return [a for a in self.added if a.rules_version == rules_version and a.kind != AlertKind.REFUSED]

    async def add_alert(self, alert: AlertRow) -> None:
        self.added.append(replace(alert, raised_at=len(self.added) + 1))

    async def store_evaluator(self, evaluator: EvaluatorRow) -> None:
        self.evaluators[evaluator.version] = evaluator

    async def evaluated(
        self, lane: int, window_ms: int, before_batch_no: int, rules_version: int
    ) -> Sequence[EvaluatedBatch]:
        found = []
        before = [
            int(b["clock_before"][0])
            for s, b in self.sink.tables["ledger"]
            if s.lane == lane and s.batch_no < before_batch_no
        ]
        clock_after = max(before, default=0) - window_ms
        for stamp, block in self.sink.tables["ledger"]:
            evaluator = self.evaluators[int(block["judge_version"][0])]
            clock = int(block["clock_after"][0])
            inside = stamp.lane == lane and stamp.batch_no < before_batch_no and clock > clock_after
            if inside and evaluator.rules_version == rules_version:
                sums = self._sums(lane, stamp.batch_no)
                found.append(EvaluatedBatch(stamp.batch_no, clock, evaluator.enforced, sums))
        return found

    def _sums(self, lane: int, batch_no: int) -> tuple[tuple[int, int, int, int, int, int], ...]:
        events: Counter[tuple[int, int, int, int]] = Counter()
        nanos: Counter[tuple[int, int, int, int]] = Counter()
        for stamp, block in self.sink.tables["events"]:
            if (stamp.lane, stamp.batch_no) == (lane, batch_no):
                names = ("lane_clock", "currency_code", "class_code", "reasons")
                for clock, *key, money in zip(
                    *(block[n].tolist() for n in (*names, "money_nanos")), strict=True
                ):
                    currency, class_code, reasons = key
                    at = clock // 60_000, currency, class_code, reasons
                    events[at] += 1
                    nanos[at] += money
        return tuple((*key, n, nanos[key]) for key, n in events.items())
