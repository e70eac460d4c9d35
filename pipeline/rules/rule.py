"""What a rule is: its reason, class, evidence, parameters, and what an analyst must know about it."""

from dataclasses import dataclass
from enum import StrEnum

from adledger.schemas.classes import Class, Reason


class Mode(StrEnum):
    """What a rule's hit does: change the class, be recorded only, or nothing (the rule does not run)."""

    ENFORCE = "enforce"
    FLAG = "flag"
    OFF = "off"


class RuleInput(StrEnum):
    """What a rule needs to be evaluated."""

    EVENT = "the event itself"
    USER_AGENTS = "the user agent list"
    ADDRESSES = "the address lists"
    PUBLISHERS = "the publishers table"
    IMPRESSIONS = "the lane's impressions within the horizon"
    CLICKS = "the lane's clicks within the horizon"
    USERS = "the user's events within the window"


@dataclass(frozen=True, slots=True)
class Param:
    """A whole number that a rule set may set; its unit is in the name. A horizon says how far back the rule looks."""

    name: str
    default: int
    least: int
    most: int
    meaning: str
    horizon_ms: int = 0  # of one unit, where the parameter is the rule's horizon

    def horizon_of(self, value: int) -> int:
        """Return the horizon (ms) that a value asks for, 0 where the parameter is none."""
        return value * self.horizon_ms


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: what it catches, where that comes from, and which honest events it may hit.

    `flag_only`: a hit is a hint that never changes the class. `mode` is what the default rule set says.
    """

    reason: Reason
    source: RuleInput
    catches: str
    origin: str
    false_positives: str
    params: tuple[Param, ...] = ()
    mode: Mode = Mode.ENFORCE
    flag_only: bool = False

    @property
    def event_class(self) -> Class:
        """The class of an event that an enforced rule hits: general or sophisticated invalid traffic."""
        return Class.GIVT if self.reason < Reason.CLICK_NO_IMPRESSION else Class.SIVT

    def horizon_ms(self, values: dict[str, int]) -> int:
        """Return how far back (ms of log time) the rule looks with these parameters; 0 where it keeps no state."""
        return max((p.horizon_of(values[p.name]) for p in self.params), default=0)
