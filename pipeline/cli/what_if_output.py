"""What a replay found, as tables and as JSON."""

import ipaddress
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from adledger.pipeline.cli.output import err, out, out_table
from adledger.pipeline.rules.registry import NO_REASON
from adledger.schemas.classes import CLASS_NAMES, Class, Reason
from adledger.schemas.wire import currency_text

if TYPE_CHECKING:
    from adledger.pipeline.ledger.replay import EvaluatedBy
    from adledger.pipeline.rules.compiled import RuleEvaluator
    from adledger.pipeline.rules.what_if import ChangedEvent, Findings

PUBLISHERS_SHOWN = 20
NANOS = 1_000_000_000


def cannot_know(
    found: "Findings",
    candidate: "RuleEvaluator",
    evaluated_by: Sequence["EvaluatedBy"],
    unknown: Sequence[int],
    malformed: int,
    *,
    cold_start: bool,
) -> list[str]:
    """Return what a replay can't know, as sentences."""
    notes = []
    lists = candidate.lists.version if candidate.lists is not None else ""
    publishers = candidate.publishers.version if candidate.publishers is not None else ""
    if {j.lists_version for j in evaluated_by} - {lists, ""}:
        notes.append("the lists have changed since: they may cause changes by user agents and addresses")
    if {j.publishers_version for j in evaluated_by} - {publishers, ""}:
        notes.append("the table publishers has changed since: it may cause changes by its rules")
    if demoted := sorted({rule for j in evaluated_by for rule in j.turned}):
        notes.append(
            f"guardrails had demoted {', '.join(demoted)} to flag in some batches; the replay has no guardrails"
        )
    if unknown:
        notes.append(
            f"evaluator versions {', '.join(f'{v:016x}' for v in unknown)} are not in the table `judges`: it is not known "
            "which rule invalidated their events"
        )
    if found.texts_missing:
        notes.append(
            f"{found.texts_missing:,} events have a user agent whose text is not stored: the verdicts of its rules are kept"
        )
    notes += [
        f"{reason.name} is not evaluated on {events:,} of {found.events:,} events"
        for reason, events in sorted(found.not_evaluated.items())
    ]
    if cold_start:
        notes.append(
            "the windows reach back before the first stored event: rules find less in the first minutes"
        )
    if malformed:
        notes.append(f"no rule evaluates the {malformed:,} malformed records")
    return notes


def print_findings(found: "Findings", notes: Sequence[str], agents: Mapping[int, bytes]) -> None:
    """Print tables by rule and by publisher, and samples; notes go to stderr."""
    changed = sum(s.events for s in found.changes.values())
    out(f"{found.events:,} events replayed, {changed:,} would change their class")
    out("")
    header = (
        "rule",
        "hits then",
        "hits now",
        "currency",
        "newly invalid",
        "money",
        "still invalid",
        "freed",
        "money freed",
    )
    rows = [
        (r["rule"], r["hits_then"], r["hits_now"], c, m["newly"].events, _money(m["newly"].money_nanos),
         m["still"].events, m["freed"].events, _money(m["freed"].money_nanos))
        for r in _by_rule(found) for c, m in r["currencies"].items()
    ]  # fmt: skip
    out_table(header, rows) if rows else out("no rule hit anything, then or now")
    if changed:
        out("")
        by_publisher = ("publisher", "currency", "rule", "from", "to", "events", "money")
        out_table(by_publisher, _publisher_rows(found)[:PUBLISHERS_SHOWN])
        out("")
        sample_rows = [_sample_row(s, agents) for each in found.samples.values() for s in each]
        out_table(("rule", "from", "to", "time", "id_hash", "address", "user agent"), sample_rows)
        err("to see one of them in full: adledger explain --id-hash HASH")
    for note in notes:
        err(f"note: {note}")


def as_json(
    found: "Findings",
    candidate: "RuleEvaluator",
    notes: Sequence[str],
    agents: Mapping[int, bytes],
    span: tuple[int, int],
) -> dict[str, Any]:
    """Return everything as one JSON object; money is in nanos, as text."""
    return {
        "rules_version": f"{candidate.rules.version:016x}",
        "from": _time(span[0]), "to": _time(span[1]),
        "events": found.events,
        "events_changed": sum(s.events for s in found.changes.values()),
        "rules": [
            {**r, "currencies": {
                c: {name: {"events": s.events, "money_nanos": str(s.money_nanos)} for name, s in m.items()}
                for c, m in r["currencies"].items()
            }}
            for r in _by_rule(found)
        ],
        "changes": [
            {
                "publisher_id": c.publisher_id, "rule": rule_name(c.rule), "currency": currency_text(c.currency_code),
                "from": CLASS_NAMES[Class(c.before)], "to": CLASS_NAMES[Class(c.after)],
                "events": s.events, "money_nanos": str(s.money_nanos),
            }
            for c, s in found.changes.items()
        ],
        "samples": [_sample_json(s, agents) for each in found.samples.values() for s in each],
        "cannot_know": list(notes),
    }  # fmt: skip


def rule_name(rule: int) -> str:
    """Return a rule's name."""
    return "not known" if rule == NO_REASON else Reason(rule).name


def _by_rule(found: "Findings") -> list[dict[str, Any]]:
    """Return, by rule and currency, what it would newly invalidate, what stays invalid, and what it would free."""
    from adledger.pipeline.rules.what_if import Sums

    rules = sorted({*found.hits, *(c.rule for c in found.changes)})
    rows = []
    for rule in rules:
        then, now = found.hits.get(rule, (0, 0))
        currencies: dict[str, dict[str, Any]] = {}

        def of(code: int, name: str, by_currency: "dict[str, dict[str, Any]]" = currencies) -> "Sums":
            empty = {"newly": Sums(), "still": Sums(), "freed": Sums()}
            sums: Sums = by_currency.setdefault(currency_text(code), empty)[name]
            return sums

        for (by, before, currency), sums in found.by_rule.items():
            if by == rule:
                name = "newly" if before == Class.BILLABLE else "still"
                of(currency, name).add(sums.events, sums.money_nanos)
        for change, sums in found.changes.items():
            if change.rule == rule and change.after == Class.BILLABLE:
                of(change.currency_code, "freed").add(sums.events, sums.money_nanos)
        if not currencies:
            currencies["-"] = {"newly": Sums(), "still": Sums(), "freed": Sums()}
        rows.append({"rule": rule_name(rule), "hits_then": then, "hits_now": now, "currencies": currencies})
    return rows


def _publisher_rows(found: "Findings") -> list[tuple[object, ...]]:
    ordered = sorted(found.changes.items(), key=lambda item: (-item[1].money_nanos, item[0].publisher_id))
    return [
        (
            str(c.publisher_id), currency_text(c.currency_code), rule_name(c.rule),
            CLASS_NAMES[Class(c.before)], CLASS_NAMES[Class(c.after)], s.events, _money(s.money_nanos),
        )
        for c, s in ordered
    ]  # fmt: skip


def _sample_json(sample: "ChangedEvent", agents: Mapping[int, bytes]) -> dict[str, Any]:
    rule, before, after, time, _, address, agent = _sample_row(sample, agents)
    return {
        "rule": rule, "from": before, "to": after, "event_time": time, "id_hash": sample.id_hash, "lane": sample.lane,
        "batch_no": sample.batch_no, "topic": sample.topic, "offset": sample.offset,
        "publisher_id": sample.change.publisher_id, "ip": address, "user_agent": agent,
        "reasons_before": _names(sample.reasons_before), "reasons_after": _names(sample.reasons_after),
    }  # fmt: skip


def _sample_row(sample: "ChangedEvent", agents: Mapping[int, bytes]) -> tuple[object, ...]:
    c = sample.change
    address = ipaddress.IPv6Address(sample.ip_hi << 64 | sample.ip_lo)
    agent = agents[sample.ua_hash].decode(errors="replace") if sample.ua_hash in agents else "(text missing)"
    return (
        rule_name(c.rule), CLASS_NAMES[Class(c.before)], CLASS_NAMES[Class(c.after)], _time(sample.event_time),
        str(sample.id_hash), str(address.ipv4_mapped or address), agent,
    )  # fmt: skip


def _names(reasons: int) -> list[str]:
    return [reason.name for reason in Reason if reasons >> reason & 1]


def _money(nanos: int) -> str:
    whole, rest = divmod(nanos, NANOS)
    return f"{whole:,}.{rest:09d}".rstrip("0").rstrip(".")


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
