"""Loading all lists, together with a rule set: reads files and packages, but no clock."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from adledger.pipeline.lists import deployment, known_addresses, known_agents
from adledger.pipeline.lists.addresses import AddressLists
from adledger.pipeline.lists.facts import ListFacts, ListState, content_hash
from adledger.pipeline.lists.user_agents import UserAgentLists

LOGIC_VERSION = 2
"""Incremented with every change of code here that can change a flag: it is part of `Lists.version`.

2: a claim to be Yandex's has at most 40 letters between "Yandex" and "Bot", so that finding it takes linear time; the detectors
see the first 256 characters of a user agent.
"""


@dataclass(frozen=True, slots=True)
class Lists:
    """All lists as of one date. Immutable, shared by all lanes.

    `version`: 16 hex digits over the contents of all lists, which of them may be used, and the code that reads them.
    """

    now: date
    facts: tuple[ListFacts, ...]
    user_agents: UserAgentLists
    addresses: AddressLists
    version: str

    def available(self, name: str) -> bool:
        """Return whether rules may use a list: it is there, and not older than its limit."""
        return not self.why_not((name,))

    def why_not(self, needed: Iterable[str], log_day: date | None = None) -> str:
        """Return why a rule that needs some lists is not evaluated: the first reason; "" where it is.

        With a log day (of the batch's watermark) also whether they cover that day.
        """
        by_name = {facts.name: facts for facts in self.facts}
        for facts in (by_name[name] for name in needed):
            why = facts.why_not(self.now) or ("" if log_day is None else facts.too_late_for(log_day))
            if why:
                return why
        return ""


def load_lists(now: date, *, directory: Path | None = None, age_days_max: int) -> Lists:
    """Load the lists of packages and, from a directory, of the deployment.

    `now` is the date that ages are measured against: the caller's, at a batch boundary. A package's list that can't be used is
    `missing` or `too old`. Raises UsageError for a file of the deployment that is wrong: nothing is loaded then.
    """
    bots = known_agents.known_bots(age_days_max)
    detectors = known_agents.non_browsers(age_days_max)
    hosts = known_addresses.data_centres(age_days_max)
    reserved = known_addresses.reserved()
    crawlers = known_addresses.crawler_ranges(age_days_max)
    own = deployment.load_directory(directory, now) if directory is not None else ()
    used = [part for part in own if part.facts.state(now) is not ListState.TOO_OLD]
    facts = (
        *(loaded.facts for loaded in (bots, detectors, hosts, reserved, crawlers)),
        *(part.facts for part in own),
    )
    return Lists(
        now,
        facts,
        UserAgentLists(
            bots.value,
            detectors.value,
            allowed=tuple(part.user_agents for part in used if part.allows and part.user_agents.names),
            denied=tuple(part.user_agents for part in used if not part.allows and part.user_agents.names),
        ),
        AddressLists([hosts.value, reserved.value, *crawlers.value, *(part.addresses for part in used)]),
        _version(facts, now),
    )


def _version(facts: Iterable[ListFacts], now: date) -> str:
    lines = (f"{each.name} {each.content} {not each.why_not(now)}" for each in facts)
    return content_hash((f"logic {LOGIC_VERSION}", *lines))[:16]
