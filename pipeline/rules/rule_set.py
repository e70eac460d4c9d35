"""Rule sets: which rules run, in which mode, with which thresholds, who published them and why. Frozen; equal if they evaluate equally.

The text is TOML (schemas/rules.schema.json describes it to editors); adledger.pipeline.rules.parse reads it.
"""

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Self

import xxhash

from adledger.pipeline.rules.parse import PPM_PER_PERCENT, parsed
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode
from adledger.schemas.classes import Reason

GUARDRAIL_WINDOW_MINUTES = 60
GUARDRAIL_EVENTS_MIN = 10_000


@dataclass(frozen=True, slots=True)
class RuleSetting:
    """One rule in a set: mode, every parameter, and the bounds (ppm) of the share of money that it may invalidate."""

    mode: Mode
    params: Mapping[str, int]
    share_min_ppm: int = 0
    share_max_ppm: int = 1_000_000


@dataclass(frozen=True, slots=True)
class RuleSet:
    """All rules' settings, by precedence. `horizon_ms` is how far back (in log time) the set looks."""

    author: str
    date: dt.date
    reason: str
    rules: Mapping[Reason, RuleSetting]
    guardrail_window_minutes: int = GUARDRAIL_WINDOW_MINUTES
    guardrail_events_min: int = GUARDRAIL_EVENTS_MIN

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Return the rule set of a TOML text. Raises UsageError, naming `name`, the line and the remedy."""
        head, guardrail, rules = parsed(text, name)
        settings = {
            reason: RuleSetting(
                Mode(values.mode),
                {p.name: values.params.get(p.name, p.default) for p in RULES[reason].params},
                values.share_min_ppm,
                values.share_max_ppm,
            )
            for reason, values in rules.items()
        }
        off = {
            reason: RuleSetting(Mode.OFF, {p.name: p.default for p in rule.params})
            for reason, rule in RULES.items()
        }
        return cls(
            head.author, head.date, head.reason, {r: settings.get(r, off[r]) for r in RULES},
            guardrail.get("window_minutes", GUARDRAIL_WINDOW_MINUTES),
            guardrail.get("events_min", GUARDRAIL_EVENTS_MIN),
        )  # fmt: skip

    @classmethod
    def none(cls) -> Self:
        """Return the set in which every rule is off."""
        rules = {
            r: RuleSetting(Mode.OFF, {p.name: p.default for p in rule.params}) for r, rule in RULES.items()
        }
        return cls("adledger", dt.date(2026, 1, 1), "no rules", rules)

    @property
    def version(self) -> int:
        """64-bit hash of all that the set decides: modes, parameters, bounds; without author, date and reason."""
        lines = [f"{self.guardrail_window_minutes} {self.guardrail_events_min}"]
        for reason, s in self.rules.items():
            params = " ".join(f"{name}={value}" for name, value in sorted(s.params.items()))
            lines.append(f"{reason.name} {s.mode} {s.share_min_ppm} {s.share_max_ppm} {params}")
        return xxhash.xxh64_intdigest("\n".join(lines).encode())

    @property
    def horizon_ms(self) -> int:
        """How far back (ms of log time) the rules that are run look."""
        return max(
            (RULES[r].horizon_ms(dict(s.params)) for r, s in self.rules.items() if s.mode != Mode.OFF),
            default=0,
        )

    def bits(self, *modes: Mode) -> int:
        """Return the reasons, as bits, whose rules have one of the modes."""
        return sum(1 << reason for reason, s in self.rules.items() if s.mode in modes)

    def flagged(self, reasons: Collection[Reason]) -> Self:
        """Return the set with these enforced rules demoted to `flag`."""
        demoted = {
            reason: replace(s, mode=Mode.FLAG) if reason in reasons and s.mode == Mode.ENFORCE else s
            for reason, s in self.rules.items()
        }
        return replace(self, rules=demoted)

    def text(self) -> str:
        """Return the TOML that `parse` reads back as an equal set."""
        lines = [
            f"author = {_quoted(self.author)}",
            f"date = {self.date.isoformat()}",
            f"reason = {_quoted(self.reason)}",
            "",
            "[guardrail]",
            f"window_minutes = {self.guardrail_window_minutes}",
            f"events_min = {self.guardrail_events_min}",
        ]
        for reason, s in self.rules.items():
            lines += ["", f"[rules.{reason.name}]", f'mode = "{s.mode}"']
            lines += [f"{name} = {value}" for name, value in s.params.items()]
            lines += [f"share_min_percent = {_percent(s.share_min_ppm)}"] * (s.share_min_ppm != 0)
            lines += [f"share_max_percent = {_percent(s.share_max_ppm)}"] * (s.share_max_ppm != 1_000_000)
        return "\n".join(lines) + "\n"


def _percent(ppm: int) -> str:
    whole, rest = divmod(ppm, PPM_PER_PERCENT)
    return f"{whole}.{rest:04d}".rstrip("0").rstrip(".")


def _quoted(text: str) -> str:
    escaped = "".join(
        f"\\u{ord(c):04x}" if ord(c) < 0x20 or ord(c) == 0x7F else "\\" + c if c in '"\\' else c for c in text
    )
    return f'"{escaped}"'
