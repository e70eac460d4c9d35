"""What the rules find in the real logs: shares by class and primary reason, and user agents for a reader to review."""

# ruff: noqa: S608 - names of tables are settings with a pattern, numbers are formatted as integers

from collections.abc import Mapping
from dataclasses import dataclass

from adledger.pipeline.rules.registry import RULE_BITS
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.schemas.classes import Class, Reason
from adledger.sinks.connection import Client

REAL_PUBLISHERS: Mapping[str, int] = {"access log": 2, "Open Bandit": 1}
"""Log -> the publisher that its importer gives its events; generated traffic is of later years."""

REAL_BEFORE = "2022-01-01"
AGENTS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Agent:
    """A user agent: its hits, and the names of the rules that tagged any of them."""

    text: str
    hits: int
    rules: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RealLog:
    """One real log: events that are no duplicates, those tagged as general and sophisticated invalid, by primary rule.

    `hints`: rule -> events that a flagged rule hit; `not_evaluated`: rule -> why. `tagged` and `left`: the most frequent user agents of each side.
    """

    name: str
    events: int
    givt: int
    sivt: int
    by_rule: Mapping[Reason, int]
    hints: Mapping[Reason, int]
    not_evaluated: Mapping[str, str]
    tagged: tuple[Agent, ...]
    left: tuple[Agent, ...]


def real_logs(client: Client, database: str, rules: RuleSet) -> tuple[RealLog, ...]:
    """Return what was stored of both real logs."""
    return tuple(_real_log(client, database, rules, name, n) for name, n in REAL_PUBLISHERS.items())


def _real_log(client: Client, database: str, rules: RuleSet, name: str, publisher: int) -> RealLog:
    enforced = sum(1 << r for r, s in rules.rules.items() if s.mode == "enforce")
    where = (
        f"publisher_id = {publisher:d} AND lane_clock < toDateTime64('{REAL_BEFORE}', 3, 'UTC') "
        f"AND class_code IN ({Class.BILLABLE:d}, {Class.GIVT:d}, {Class.SIVT:d})"
    )
    ((events, givt, sivt),) = client.execute(
        f"SELECT count(), countIf(class_code = {Class.GIVT:d}), countIf(class_code = {Class.SIVT:d}) "
        f"FROM {database}.events WHERE {where}"
    )
    primary = client.execute(
        f"SELECT bitPositionsToArray(bitAnd(reasons, {enforced:d}))[1], count() FROM {database}.events "
        f"WHERE {where} AND class_code != {Class.BILLABLE:d} GROUP BY 1 ORDER BY 2 DESC"
    )
    hints = client.execute(
        f"SELECT arrayJoin(bitPositionsToArray(bitAnd(reasons, {RULE_BITS & ~enforced:d}))), count() "
        f"FROM {database}.events WHERE {where} GROUP BY 1 ORDER BY 2 DESC"
    )
    not_evaluated: dict[str, str] = {}
    for (why,) in client.execute(
        f"SELECT not_evaluated FROM {database}.judges WHERE version IN "
        f"(SELECT judge_version FROM {database}.events WHERE {where})"
    ):
        not_evaluated |= why
    return RealLog(
        name, events, givt, sivt,
        {Reason(bit): n for bit, n in primary}, {Reason(bit): n for bit, n in hints}, not_evaluated,
        *(_agents(client, database, f"{where} AND class_code {side} {Class.BILLABLE:d}") for side in ("!=", "=")),
    )  # fmt: skip


def _agents(client: Client, database: str, where: str) -> tuple[Agent, ...]:
    rows = client.execute(
        "SELECT any(text), hits, bits FROM ("
        f"SELECT ua_hash, count() AS hits, groupBitOr(reasons) AS bits FROM {database}.events WHERE {where} "
        f"GROUP BY ua_hash ORDER BY hits DESC LIMIT {AGENTS_SHOWN:d}) AS e "
        f"ANY LEFT JOIN {database}.user_agents AS u ON e.ua_hash = u.ua_hash GROUP BY e.ua_hash, hits, bits ORDER BY hits DESC, 1"
    )
    return tuple(
        Agent(text, hits, tuple(r.name for r in Reason if (bits & RULE_BITS) >> r & 1))
        for text, hits, bits in rows
    )
