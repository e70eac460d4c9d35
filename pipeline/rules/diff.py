"""What differs between two rule sets, rule by rule."""

from collections.abc import Mapping
from dataclasses import dataclass

from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule_set import RuleSet, RuleSetting

GUARDRAIL = "guardrail"


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs. `rule` is its name, or `guardrail`. `rebuilds`: it makes lanes rebuild their windows."""

    rule: str
    what: str
    before: str
    after: str
    rebuilds: bool = False


def differences(before: RuleSet, after: RuleSet) -> list[Difference]:
    """Return what two sets decide differently, by precedence; authors, dates and reasons are not compared."""
    found = []
    for reason, rule in RULES.items():
        old, new = _values(before.rules[reason]), _values(after.rules[reason])
        horizons = {p.name for p in rule.params if p.horizon_ms}
        turned_on = bool(horizons) and old["mode"] == "off"
        found += [
            Difference(
                reason.name,
                what,
                old[what],
                new[what],
                rebuilds=what in horizons or (what == "mode" and turned_on),
            )
            for what in old
            if old[what] != new[what]
        ]
    for what, old_value, new_value in (
        ("window_minutes", before.guardrail_window_minutes, after.guardrail_window_minutes),
        ("events_min", before.guardrail_events_min, after.guardrail_events_min),
    ):
        if old_value != new_value:
            found.append(Difference(GUARDRAIL, what, str(old_value), str(new_value)))
    return found


def _values(setting: RuleSetting) -> Mapping[str, str]:
    return {
        "mode": str(setting.mode),
        **{name: str(value) for name, value in setting.params.items()},
        "share_min_percent": f"{setting.share_min_ppm / 10_000:g}",
        "share_max_percent": f"{setting.share_max_ppm / 10_000:g}",
    }
