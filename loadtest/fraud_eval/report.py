"""The table of `make fraud-eval`, as Markdown, between two marks of a page; the text around them stays."""

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from adledger.loadtest.fraud_eval.real_logs import Agent, RealLog
from adledger.loadtest.fraud_eval.scores import EXPECTED_RULE, AttackScore, HonestScore, RuleScore
from adledger.loadtest.traffic.labels import Label
from adledger.pipeline.lists.load import Lists
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.schemas.classes import Class, Reason

BEGIN, END = "<!-- fraud-eval: begin, written by the command -->", "<!-- fraud-eval: end -->"
AGENT_CHARACTERS_MAX = 240


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that was measured, with the versions used."""

    date: dt.date
    events: int
    seed: int
    rules: RuleSet
    lists: Lists
    judge_versions: tuple[int, ...]
    attacks: Sequence[AttackScore]
    by_rule: Sequence[RuleScore]
    honest: Sequence[HonestScore]
    logs: Sequence[RealLog]

    @property
    def honest_events(self) -> int:
        """Honest events that the rules evaluated."""
        return sum(h.events for h in self.honest)

    @property
    def honest_invalidated(self) -> int:
        """Of those, the ones that became givt or sivt."""
        return sum(h.invalidated for h in self.honest)

    def wrong(self, recall_min: float, honest_invalidated_max: float) -> list[str]:
        """Return a line for each bound that is missed."""
        lines = [
            f"recall of {a.label.name} is {a.recall:.4f}, less than {recall_min}: {a.found:,} of {a.to_find:,}"
            for a in self.attacks
            if a.recall < recall_min or not a.to_find
        ]
        if self.honest_invalidated > honest_invalidated_max * self.honest_events:
            lines.append(
                f"{self.honest_invalidated:,} of {self.honest_events:,} honest events are invalidated, more than "
                f"{honest_invalidated_max:.4%}"
            )
        return lines


def report(found: Evaluation, page: str) -> str:
    """Return the page with its measured part replaced; a page without the marks gets them at its end."""
    measured = "\n".join([BEGIN, "", *_measured(found), "", END])
    before, mark, rest = page.partition(BEGIN)
    if not mark:
        return f"{page}\n{measured}\n" if page else f"# Fraud rules, measured\n\n{measured}\n"
    return before + measured + rest.partition(END)[2]


def _measured(found: Evaluation) -> Iterator[str]:
    versions = ", ".join(f"{v:016x}" for v in found.judge_versions)
    yield f"Measured on {found.date} by `make fraud-eval` ({found.events:,} ordinary records, seed {found.seed}, beside the scripts and both real logs),"
    yield f"rule set `default` of {found.rules.date}, version `{found.rules.version:016x}`, lists `{found.lists.version}`, evaluator versions {versions}."
    yield ""
    lists = ", ".join(f"{f.name} {f.version} of {f.made}" for f in found.lists.facts)
    yield f"Lists: {lists}."
    yield from ("", "## Attacks", "")
    yield from _attacks(found)
    yield from ("", "## Honest traffic", "")
    yield from _honest(found)
    yield from ("", "## By rule", "")
    yield from _rules(found)
    yield from ("", "## The real logs", "")
    for log in found.logs:
        yield from _real(log)


def _attacks(found: Evaluation) -> Iterator[str]:
    yield from _table(
        ("attack", "found by", "its events", "to be found", "found", "recall", "not billed, of all its events"),
        (
            (
                a.label.name.lower(), a.rule.name, f"{a.events:,}", f"{a.to_find:,}", f"{a.found:,}", f"{a.recall:.4f}",
                _percent(a.not_billed, a.events),
            )
            for a in found.attacks
        ),
    )  # fmt: skip


def _honest(found: Evaluation) -> Iterator[str]:
    yield f"**{found.honest_invalidated:,} of {found.honest_events:,} honest events were invalidated.**"
    yield ""
    yield from _table(
        ("honest events", "evaluated", "invalidated"),
        (
            (("ordinary" if h.label == Label.HONEST else h.label.name.lower()), f"{h.events:,}", f"{h.invalidated:,}")
            for h in found.honest
            if h.events
        ),
    )  # fmt: skip


def _rules(found: Evaluation) -> Iterator[str]:
    recalls = {
        reason: [a for a in found.attacks if a.rule == reason and a.to_find]
        for reason in EXPECTED_RULE.values()
    }
    rows = []
    for score in found.by_rule:
        attacks = recalls.get(score.reason, [])
        recall = sum(a.found for a in attacks) / sum(a.to_find for a in attacks) if attacks else None
        rows.append((
            score.reason.name, str(found.rules.rules[score.reason].mode), f"{score.hits:,}", f"{score.of_attacks:,}",
            "-" if score.precision is None else f"{score.precision:.4f}", "-" if recall is None else f"{recall:.4f}",
            f"{score.honest_invalidated:,}",
        ))  # fmt: skip
    yield from _table(
        (
            "rule",
            "mode",
            "hits",
            "on attacks",
            "precision",
            "recall of its attack",
            "honest events invalidated",
        ),
        rows,
    )


def _real(log: RealLog) -> Iterator[str]:
    tagged = log.givt + log.sivt
    yield f"### {log.name}"
    yield ""
    yield f"{log.events:,} events that are no duplicates; {_percent(tagged, log.events)} are tagged: {log.givt:,} givt, {log.sivt:,} sivt."
    yield ""
    yield from _table(
        ("primary reason", "class", "events", "share"),
        [
            *((r.name, _class(r), f"{n:,}", _percent(n, log.events)) for r, n in log.by_rule.items()),
            *((r.name, "hint", f"{n:,}", _percent(n, log.events)) for r, n in log.hints.items()),
        ],
    )
    if log.not_evaluated:
        yield ""
        yield (
            "Not evaluated: " + "; ".join(f"{name} ({why})" for name, why in log.not_evaluated.items()) + "."
        )
    for side, agents in (("tagged", log.tagged), ("left alone", log.left)):
        if agents:
            yield ""
            yield f"The most frequent user agents of what is {side}:"
            yield ""
            yield from _table(("events", "user agent", "rules that hit"), map(_agent, agents))
    yield ""


def _class(reason: Reason) -> str:
    return RULES[reason].event_class.name.lower() if reason in RULES else Class.BILLABLE.name.lower()


def _agent(agent: Agent) -> tuple[str, ...]:
    text = agent.text if len(agent.text) <= AGENT_CHARACTERS_MAX else agent.text[:AGENT_CHARACTERS_MAX] + "…"
    shown = text.replace("`", "'").replace("|", "\\|")
    return f"{agent.hits:,}", f"`{shown}`" if shown else "(blank)", ", ".join(agent.rules) or "-"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "| " + " | ".join(header) + " |"
    yield "|" + " --- |" * len(header)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2f} %" if whole else "-"
