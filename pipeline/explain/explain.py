"""From an event's id to what is stored of it, where it came from, and why it got its verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from adledger.pipeline.explain.evidence import Environment, RuleFinding, findings
from adledger.pipeline.explain.rows import EventRow
from adledger.pipeline.explain.store import LedgerRow, Store, StoredEvaluator
from adledger.pipeline.lists.load import Lists
from adledger.pipeline.lists.publishers import PublisherStatus
from adledger.pipeline.rules.registry import NO_REASON, RULE_BITS
from adledger.pipeline.rules.rule import Mode
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.schemas.classes import Class, Reason


@dataclass(frozen=True, slots=True)
class Explained:
    """One stored event, explained.

    `first`: of a duplicate, the event that counted; `duplicates`: of a first. `rules` None: the evaluator version is not
    stored, and nothing was evaluated again. `differs`: rules whose hit, evaluated again, is not as stored (`why_differs`).
    """

    row: EventRow
    user_agent: bytes | None
    page_url: bytes | None
    ledger: LedgerRow | None
    evaluator: StoredEvaluator | None
    rules: RuleSet | None
    findings: tuple[RuleFinding, ...]
    primary: Reason | None
    first: EventRow | None
    duplicates: tuple[EventRow, ...]
    differs: tuple[Reason, ...]
    why_differs: str


class Explainer:
    """Explains events of one database with the lists and publishers as they are now."""

    def __init__(self, store: Store, lists: Lists, publishers: Mapping[int, PublisherStatus]) -> None:
        self._store, self._lists, self._publishers = store, lists, publishers

    def explain(self, row: EventRow) -> Explained:
        """Return an event's explanation. Evidence is recomputed from stored events, in the lane's order."""
        evaluator = self._store.evaluator(row.judge_version)
        rules = (
            None
            if evaluator is None
            else RuleSet.parse(evaluator.rules, f"evaluator {evaluator.version:016x}")
        )
        agent = self._store.text("user_agents", "ua_hash", row.ua_hash)
        found: tuple[RuleFinding, ...] = ()
        differs: tuple[Reason, ...] = ()
        if evaluator is not None and rules is not None:
            evaluated = rules.bits(Mode.ENFORCE, Mode.FLAG)
            evaluated &= ~sum(1 << Reason[name] for name in evaluator.not_evaluated)
            earlier = self._store.earlier(row, rules.horizon_ms)
            found = findings(
                row, earlier, rules, evaluated, Environment(agent, self._lists, self._status(row))
            )
            again = sum(1 << f.reason for f in found if f.hit)
            differs = tuple(r for r in Reason if ((row.reasons & RULE_BITS) ^ again) >> r & 1)
        first, duplicates = _family(row, self._store.copies(row))
        return Explained(
            row, agent, self._store.text("pages", "page_hash", row.page_hash),
            self._store.ledger_row(row.lane, row.batch_no), evaluator, rules, found, _primary(row, evaluator), first, duplicates,
            differs, self._why(evaluator, agent) if differs else "",
        )  # fmt: skip

    def _status(self, row: EventRow) -> PublisherStatus:
        if (
            not self._publishers
        ):  # the rules about publishers were not evaluated then, or the table was emptied
            return PublisherStatus.ACTIVE
        return self._publishers.get(row.publisher_id, PublisherStatus.UNKNOWN)

    def _why(self, evaluator: StoredEvaluator | None, agent: bytes | None) -> str:
        """Return why today's evidence may differ from the stored verdict."""
        now = {f.name: f.content for f in self._lists.facts}
        changed = (
            [] if evaluator is None else [n for n, c in evaluator.list_contents.items() if now.get(n) != c]
        )
        if changed:
            return f"contents have changed since it was evaluated: {', '.join(changed)}"
        if agent is None:
            return "the user agent's text is not stored"
        return (
            "publishers may have changed since, events may have been dropped by retention, windows were at their limit, or "
            "partitions were added shortly before, and the lane's earlier events are another's"
        )


def _primary(row: EventRow, evaluator: StoredEvaluator | None) -> Reason | None:
    if evaluator is None:
        return None
    hit = row.reasons & evaluator.enforced & RULE_BITS
    lowest = (hit & -hit).bit_length() - 1
    return None if lowest == NO_REASON else Reason(lowest)


def _family(row: EventRow, copies: Sequence[EventRow]) -> tuple[EventRow | None, tuple[EventRow, ...]]:
    """Return the first that a duplicate repeats, and the duplicates of a first; copies are in the lane's order."""
    at = copies.index(row) if row in copies else len(copies)
    if row.class_code == Class.DUPLICATE:
        before = [e for e in copies[:at] if e.class_code != Class.DUPLICATE]
        return (before[-1] if before else None), ()
    after = []
    for e in copies[at + 1 :]:
        if e.class_code != Class.DUPLICATE:
            break
        after.append(e)
    return None, tuple(after)
