"""The evidence of each rule for one event, from the events before it and the lists. Pure; the plain rules decide."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np

from adledger.pipeline.explain.rows import EventRow
from adledger.pipeline.lists.load import Lists
from adledger.pipeline.lists.publishers import PublisherStatus
from adledger.pipeline.lists.user_agents import Evidence
from adledger.pipeline.rules import plain
from adledger.pipeline.rules.clicks import MINUTE_MS
from adledger.pipeline.rules.plain import Params
from adledger.pipeline.rules.plain_events import EventFacts, event_hits
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode, RuleInput
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.schemas.classes import Reason
from adledger.schemas.wire import EventType


@dataclass(frozen=True, slots=True)
class RuleFinding:
    """One rule's result for an event. `evidence` is for display; `facts` are the numbers in it."""

    reason: Reason
    mode: Mode
    hit: bool
    evidence: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    params: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Environment:
    """What is known besides the events: user agent (None: not stored), lists, and the publisher's status."""

    user_agent: bytes | None
    lists: Lists
    publisher: PublisherStatus


def findings(
    row: EventRow, earlier: Sequence[EventRow], rules: RuleSet, evaluated: int, known: Environment
) -> tuple[RuleFinding, ...]:
    """Return the findings of the rules that were evaluated (bits) on an event, by precedence.

    `earlier`: Store.earlier of the rule set's horizon.
    """
    events = [each.event for each in earlier]
    by_event = dict(zip(map(id, events), earlier, strict=True))
    side_px_max = rules.rules[Reason.INVALID_PLACEMENT].params["side_px_max"]
    facts = _facts(row, known)
    hits = event_hits(facts, side_px_max)
    found = []
    for reason, setting in rules.rules.items():
        if not evaluated >> reason & 1:
            continue
        if reason in plain.PLAIN:
            hit = plain.PLAIN[reason](events, row.event, setting.params)
            text, numbers = _LOOKING_BACK[reason](_Before(row, events, by_event), setting.params)
        else:
            hit = reason in hits
            text, numbers = _of_event(reason, row, known)
            if hit and reason == Reason.CRAWLER_IMPOSTOR:
                text += "; the address is in no range of that crawler's"
        found.append(RuleFinding(reason, setting.mode, hit, text, numbers, setting.params))
    return tuple(found)


def _facts(row: EventRow, known: Environment) -> EventFacts:
    ua_flags = 0 if known.user_agent is None else int(known.lists.user_agents.classify([known.user_agent])[0])
    hi, lo = np.array([row.ip_hi], np.uint64), np.array([row.ip_lo], np.uint64)
    address = int(known.lists.addresses.classify(hi, lo)[0])
    return EventFacts(ua_flags, address, known.publisher, row.flags, row.width, row.height)


def _of_event(reason: Reason, row: EventRow, known: Environment) -> tuple[str, dict[str, Any]]:
    source = RULES[reason].source
    if source == RuleInput.PUBLISHERS:
        status = known.publisher.name.lower()
        return f"publisher {row.publisher_id} is {status} now", {"status": status}
    if source == RuleInput.EVENT:
        stated = {"width": row.width, "height": row.height, "flags": row.flags}
        return f"stated size {row.width} x {row.height} px, flags {row.flags:#x}", stated
    entries: list[Evidence] = []
    if reason == Reason.CRAWLER_IMPOSTOR or source == RuleInput.USER_AGENTS:
        if known.user_agent is None:
            return "the user agent's text is not stored", {}
        entries += known.lists.user_agents.explain(known.user_agent)
    if source == RuleInput.ADDRESSES:
        entries += known.lists.addresses.explain(row.ip_hi, row.ip_lo)
    text = "; ".join(f"{e.list_name}: {e.entry}" for e in entries) or "no list names it"
    return text, {"entries": [{"list": e.list_name, "entry": e.entry} for e in entries]}


@dataclass(frozen=True, slots=True)
class _Before:
    """An event, the ones before it, and their rows."""

    row: EventRow
    events: Sequence[plain.EventView]
    rows: Mapping[int, EventRow]

    def place(self, event: plain.EventView) -> dict[str, int]:
        row = self.rows[id(event)]
        return {"topic": row.topic, "lane": row.lane, "offset": row.offset, "batch_no": row.batch_no}


_Answer = tuple[str, dict[str, Any]]
"""What was found, as text and as JSON values."""

_NOT_A_CLICK: _Answer = ("about clicks only", {})
_NOT_EVALUATED: _Answer = ("not evaluated for duplicates and users without an id", {})


def _impression(before: _Before, p: Params) -> _Answer:
    event = before.row.event
    if event.event_type != EventType.CLICK:
        return _NOT_A_CLICK
    impression = plain.impression_of(before.events, event, p["horizon_minutes"] * MINUTE_MS)
    if impression is None:
        return f"no impression with this id in the lane within {p['horizon_minutes']} minutes", {}
    gap, place = plain.gap_ms(event, impression), before.place(impression)
    text = f"{gap:,} ms after its impression (offset {place['offset']}, batch {place['batch_no']})"
    if (impression.publisher, impression.campaign) != (event.publisher, event.campaign):
        text += f" of publisher {impression.publisher}, campaign {impression.campaign}"
    ours = {"publisher_id": impression.publisher, "campaign_id": impression.campaign}
    return text, {"gap_ms": gap, "impression": place | ours}


def _double_click(before: _Before, p: Params) -> _Answer:
    event = before.row.event
    if event.event_type != EventType.CLICK:
        return _NOT_A_CLICK
    last = plain.last_click(before.events, event, p["horizon_minutes"] * MINUTE_MS)
    if last is None:
        return f"no click of this user on this creative within {p['horizon_minutes']} minutes", {}
    gap, place = abs(event.event_time - last.event_time), before.place(last)
    return f"{gap:,} ms from the click before it on this creative (offset {place['offset']})", {
        "gap_ms": gap, "last_click": place,
    }  # fmt: skip


def _repeat_click(before: _Before, p: Params) -> _Answer:
    event = before.row.event
    if event.event_type != EventType.CLICK:
        return _NOT_A_CLICK
    clicks = len(plain.clicks_on_impression(before.events, event, p["window_minutes"] * MINUTE_MS))
    text = f"{clicks} clicks on this impression in the {p['window_minutes']} minutes before it, {p['clicks_max']} are allowed"
    return text, {"clicks_before": clicks}


def _velocity(before: _Before, p: Params) -> _Answer:
    event = before.row.event
    if event.cookieless or event.duplicate:
        return _NOT_EVALUATED
    events = len(plain.of_user(before.events, event, p["window_seconds"] * 1000))
    hour = plain.of_user(before.events, event, p["clicks_window_minutes"] * MINUTE_MS)
    clicks = sum(e.event_type == EventType.CLICK for e in hour)
    text = (
        f"of this user before it: {events} events in {p['window_seconds']} s ({p['events_max']} are allowed), "
        f"{clicks} clicks in {p['clicks_window_minutes']} minutes ({p['clicks_max']})"
    )
    return text, {"events_before": events, "clicks_before": clicks}


def _networks(before: _Before, p: Params) -> _Answer:
    event = before.row.event
    if event.cookieless or event.duplicate:
        return _NOT_EVALUATED
    networks = [
        _network(n) for n in plain.other_networks(before.events, event, p["window_minutes"] * MINUTE_MS)
    ]
    text = (
        f"in {_network(event.network)}; since it was last there: {', '.join(networks) or 'no other network'}"
    )
    return f"{text} ({p['networks_max']} in {p['window_minutes']} minutes are allowed)", {
        "network": _network(event.network), "networks_before": networks,
    }  # fmt: skip


def _network(network: tuple[int, int]) -> str:
    version, prefix = network
    return (
        f"{IPv4Address((prefix & 0xFFFFFF) << 8)}/24" if version == 4 else f"{IPv6Address(prefix << 64)}/64"
    )


def _periodic(before: _Before, p: Params) -> _Answer:
    event = before.row.event
    if event.cookieless or event.duplicate or event.event_type != EventType.IMPRESSION:
        return "about impressions of users with an id only", {}
    gaps = plain.impression_gaps_ms(before.events, event, p["horizon_minutes"] * MINUTE_MS)
    if len(gaps) < 7:
        return f"{len(gaps)} impressions of this user before it, of the seven that are needed", {
            "gaps_ms": gaps
        }
    return f"gaps between its last eight impressions: {min(gaps):,} to {max(gaps):,} ms", {"gaps_ms": gaps}


_LOOKING_BACK: Mapping[Reason, Callable[[_Before, Params], _Answer]] = {
    Reason.CLICK_NO_IMPRESSION: _impression,
    Reason.CLICK_TOO_FAST: _impression,
    Reason.CLICK_TOO_LATE: _impression,
    Reason.CLICK_MISMATCH: _impression,
    Reason.DOUBLE_CLICK: _double_click,
    Reason.REPEAT_CLICK: _repeat_click,
    Reason.USER_VELOCITY: _velocity,
    Reason.USER_MANY_IPS: _networks,
    Reason.PERIODIC: _periodic,
}
