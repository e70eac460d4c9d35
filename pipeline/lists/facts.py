"""What is known of a list: where it comes from, how old it is, and whether rules may use it.

Age is determined once, when the lists are loaded, against a date that is passed in, and the outcome is part of
`Lists.version` and so of the evaluator version. So no clock is read on the data path, a batch is evaluated by what its
intent names, and a list that grows old while a worker runs does so at the next load, at a batch boundary. Whether a list
of addresses covers a log from long before is decided by log time: by the day of the batch's watermark.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

KNOWN_BOTS = "known-bots"
NON_BROWSERS = "non-browsers"
DATACENTRES = "datacentres"
RESERVED = "reserved"
CRAWLER_RANGES = "crawler-ranges"

NEEDED_BY: Mapping[str, tuple[str, ...]] = {
    "UA_KNOWN_BOT": (KNOWN_BOTS,),
    "UA_NON_BROWSER": (KNOWN_BOTS, NON_BROWSERS),
    "IP_DATACENTER": (DATACENTRES,),
    "IP_RESERVED": (RESERVED,),
    "CRAWLER_IMPOSTOR": (KNOWN_BOTS, CRAWLER_RANGES),
}
"""Name of a reason -> the lists that its rule needs."""

ADDRESSES_BACK_DAYS_MAX = 5 * 365
"""How far before its date a list of addresses is valid. Blocks change hands: in a log 11 years older, homes of then are
addresses of data centres now."""

PACKAGED = (KNOWN_BOTS, NON_BROWSERS, DATACENTRES, RESERVED, CRAWLER_RANGES)
"""Lists that every installation has; a deployment's own lists have other names."""


class ListState(StrEnum):
    """Whether a list can be used."""

    FRESH = "fresh"
    AGEING = "ageing"  # past half of its limit: time to upgrade
    TOO_OLD = "too old"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class ListFacts:
    """One list. `version` is its publisher's, `content` the SHA-256 (hex) of what we use of it.

    `made`: the date of its data, of its oldest part where it has several; None where it is missing. `age_days_max`
    None: it does not grow old. `back_days_max`: how far before `made` it can be used, None for always. `left_out`: entries that can't be used. `problem`: why it is missing, "" where it is not.
    """

    name: str
    source: str
    licence: str
    version: str
    made: date | None
    entries: int
    content: str
    age_days_max: int | None
    back_days_max: int | None = None
    left_out: int = 0
    problem: str = ""

    def age_days(self, now: date) -> int | None:
        """Return its age in days at `now`, at least 0."""
        return None if self.made is None else max(0, (now - self.made).days)

    def state(self, now: date) -> ListState:
        """Return whether it can be used at `now`."""
        age = self.age_days(now)
        if self.problem or age is None:
            return ListState.MISSING
        if self.age_days_max is None or 2 * age <= self.age_days_max:
            return ListState.FRESH
        return ListState.AGEING if age <= self.age_days_max else ListState.TOO_OLD

    def why_not(self, now: date) -> str:
        """Return why rules that need it are not evaluated at `now`; "" where they are."""
        state = self.state(now)
        if state is ListState.MISSING:
            return f"the list {self.name} is missing: {self.problem}"
        if state is ListState.TOO_OLD:
            return f"the list {self.name} is of {self.made}, older than {self.age_days_max} days"
        return ""

    def too_late_for(self, log_day: date) -> str:
        """Return why it does not cover a log day; "" if it does."""
        if (
            self.made is None
            or self.back_days_max is None
            or (self.made - log_day).days <= self.back_days_max
        ):
            return ""
        return f"the list {self.name} is of {self.made}, more than {self.back_days_max} days after {log_day}"


class NotAsKnownError(Exception):
    """A package's data is not in the form that we know: its list is missing."""


def content_hash(lines: Iterable[str]) -> str:
    """Return the SHA-256 (hex) of texts, each ended by a line feed."""
    h = hashlib.sha256()
    for line in lines:
        h.update(line.encode() + b"\n")
    return h.hexdigest()
