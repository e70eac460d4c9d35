"""Scoring verdicts by labels: recall of each attack, precision of each rule, and its cost to honest traffic.

Definitions. *To be found* is every event with an attack's label; of a rate rule's attack only the excess, since rules
of rates tag what lies over their limit and never what came before it. *Found* is an event that the attack's rule tagged
and that is not billed; where the rule is a hint (`flag`), one that it tagged. *Honest* is every first event that no script of an attack made. The second tap of a double tap
is meant to be tagged: it is no second visit, whatever the intent (docs/adr/0015), so it is scored like a double click;
the first tap and all else of that user is honest.
"""

from collections import defaultdict, deque
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from adledger.loadtest.traffic.labels import Label
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.schemas.classes import Class, Reason
from adledger.schemas.wire import EventType

MINUTE_MS = 60_000

EXPECTED_RULE: Mapping[Label, Reason] = {
    Label.REPLAY: Reason.DUPLICATE_CONFLICT,
    Label.PRICE_CONFLICT: Reason.DUPLICATE_CONFLICT,
    Label.DATACENTRE_BOT: Reason.IP_DATACENTER,
    Label.IMPOSTOR: Reason.CRAWLER_IMPOSTOR,
    Label.DOUBLE_CLICK: Reason.DOUBLE_CLICK,
    Label.DOUBLE_TAP: Reason.DOUBLE_CLICK,
    Label.CLICK_FLOOD: Reason.USER_VELOCITY,
    Label.INJECTED_CLICK: Reason.CLICK_TOO_FAST,
    Label.REPEAT_CLICK: Reason.REPEAT_CLICK,
    Label.SPLICED_CLICK: Reason.CLICK_MISMATCH,
    Label.HIDDEN_AD: Reason.INVALID_PLACEMENT,
    Label.COOKIE_FARM: Reason.USER_MANY_IPS,
    Label.CRAWLER: Reason.UA_KNOWN_BOT,
    Label.NAMELESS_BOT: Reason.UA_BLANK,
    Label.LIBRARY_BOT: Reason.UA_NON_BROWSER,
    Label.SPOOFED_ADDRESS: Reason.IP_RESERVED,
    Label.PREFETCHER: Reason.PREFETCH,
    Label.TEST_TRAFFIC: Reason.TEST_TRAFFIC,
    Label.GHOST_PUBLISHER: Reason.UNKNOWN_PUBLISHER,
    Label.SUSPENDED_PUBLISHER: Reason.PUBLISHER_SUSPENDED,
    Label.ORPHAN_CLICK: Reason.CLICK_NO_IMPRESSION,
    Label.LATE_CLICK: Reason.CLICK_TOO_LATE,
    Label.CLOCKWORK: Reason.PERIODIC,
}
"""Label -> the rule (or the duplicate's mark) that must find its events."""

EVALUATED = (Class.BILLABLE, Class.GIVT, Class.SIVT)
INVALID = (Class.GIVT, Class.SIVT)

SCORED = np.dtype(
    [
        ("log_time", "i8"),
        ("user_no", "u8"),
        ("ip_hi", "u8"),
        ("ip_lo", "u8"),
        ("reasons", "u8"),
        ("event_type", "u1"),
        ("class_code", "u1"),  # as stored
        ("label", "u1"),
    ]
)
"""A decodable record: the generator's ground truth, and what was stored."""

Rows = npt.NDArray[np.void]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class AttackScore:
    """One attack: events of its label, those to be found, found, and those of the label that are not billed."""

    label: Label
    rule: Reason
    events: int
    to_find: int
    found: int
    not_billed: int

    @property
    def recall(self) -> float:
        """Share of what is to be found that was found; 1 where nothing was."""
        return self.found / self.to_find if self.to_find else 1.0


@dataclass(frozen=True, slots=True)
class RuleScore:
    """One rule's hits on evaluated events (no duplicates, not expired): of attacks, and of honest events."""

    reason: Reason
    hits: int
    of_attacks: int
    honest_invalidated: int

    @property
    def precision(self) -> float | None:
        """Share of its hits that are an attack's; None without hits."""
        return self.of_attacks / self.hits if self.hits else None


@dataclass(frozen=True, slots=True)
class HonestScore:
    """Honest events of one label: how many were evaluated, how many became givt or sivt."""

    label: Label
    events: int
    invalidated: int


def scores(
    rows: Rows, rules: RuleSet
) -> tuple[tuple[AttackScore, ...], tuple[RuleScore, ...], tuple[HonestScore, ...]]:
    """Score rows (SCORED) in the order of their lanes' logs."""
    excess = {
        Label.CLICK_FLOOD: flood_excess(rows, rules),
        Label.COOKIE_FARM: farm_excess(rows, rules),
    }
    attacked = np.isin(rows["label"], list(EXPECTED_RULE))
    evaluated = np.isin(rows["class_code"], EVALUATED)
    invalid = np.isin(rows["class_code"], INVALID)
    return (
        tuple(_attack(rows, label, excess, rules) for label in EXPECTED_RULE),
        tuple(_rule(rows, reason, evaluated, invalid, attacked) for reason in RULES),
        tuple(_honest(rows, label, evaluated, invalid) for label in Label if label not in EXPECTED_RULE),
    )


def flood_excess(rows: Rows, rules: RuleSet) -> Bool:
    """Return which clicks of floods exceed the limit of their user's clicks in the window before.

    Counted here from log times alone, without the rules' code.
    """
    params = rules.rules[Reason.USER_VELOCITY].params
    window_ms, clicks_max = params["clicks_window_minutes"] * MINUTE_MS, params["clicks_max"]
    excess = np.zeros(len(rows), np.bool_)
    clicks = np.flatnonzero((rows["label"] == Label.CLICK_FLOOD) & (rows["event_type"] == EventType.CLICK))
    before: dict[int, deque[int]] = defaultdict(deque)
    for place in clicks[np.argsort(rows["log_time"][clicks], kind="stable")].tolist():
        times, now = before[int(rows["user_no"][place])], int(rows["log_time"][place])
        while times and now - times[0] > window_ms:
            times.popleft()
        excess[place] = len(times) >= clicks_max
        times.append(now)
    return excess


def farm_excess(rows: Rows, rules: RuleSet) -> Bool:
    """Return which events of farms come from a network beyond the limit: not among the last few of their user.

    Counted here from log times alone, without the rules' code.
    """
    params = rules.rules[Reason.USER_MANY_IPS].params
    window_ms, networks_max = params["window_minutes"] * MINUTE_MS, params["networks_max"]
    excess = np.zeros(len(rows), np.bool_)
    farmed = np.flatnonzero(rows["label"] == Label.COOKIE_FARM)
    seen: dict[int, dict[tuple[int, int], int]] = defaultdict(dict)  # user -> network -> last log time
    for place in farmed[np.argsort(rows["log_time"][farmed], kind="stable")].tolist():
        high, low, now = (int(rows[name][place]) for name in ("ip_hi", "ip_lo", "log_time"))
        network = (high, 0) if high else (0, low >> 8)
        held = seen[int(rows["user_no"][place])]
        recent = [n for n in reversed(held) if now - held[n] <= window_ms]
        excess[place] = len(recent) >= networks_max and network not in recent[:networks_max]
        held.pop(network, None)  # so that the newest is last
        held[network] = now
    return excess


def _hit(rows: Rows, reason: Reason) -> Bool:
    hit: Bool = (rows["reasons"] >> np.uint64(reason) & np.uint64(1)) != 0
    return hit


def _attack(rows: Rows, label: Label, excess: Mapping[Label, Bool], rules: RuleSet) -> AttackScore:
    reason = EXPECTED_RULE[label]
    of_label = rows["label"] == label
    to_find = of_label & excess[label] if label in excess else of_label
    not_billed = rows["class_code"] != Class.BILLABLE
    hint = reason in rules.rules and rules.rules[reason].mode == Mode.FLAG
    return AttackScore(
        label,
        reason,
        int(of_label.sum()),
        int(to_find.sum()),
        int((to_find & (not_billed | hint) & _hit(rows, reason)).sum()),
        int((of_label & not_billed).sum()),
    )


def _rule(rows: Rows, reason: Reason, evaluated: Bool, invalid: Bool, attacked: Bool) -> RuleScore:
    hit = _hit(rows, reason) & evaluated
    return RuleScore(
        reason, int(hit.sum()), int((hit & attacked).sum()), int((hit & invalid & ~attacked).sum())
    )


def _honest(rows: Rows, label: Label, evaluated: Bool, invalid: Bool) -> HonestScore:
    of_label = rows["label"] == label
    return HonestScore(label, int((of_label & evaluated).sum()), int((of_label & invalid).sum()))
