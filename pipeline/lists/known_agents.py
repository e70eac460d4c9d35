"""Lists of user agents: crawler-user-agents' entries, and the opinions of two general detectors."""

import json
from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

from adledger.pipeline.kernels.lists import UA_KNOWN_BOT, UA_NON_BROWSER
from adledger.pipeline.lists.facts import KNOWN_BOTS, NON_BROWSERS, ListFacts, NotAsKnownError, content_hash
from adledger.pipeline.lists.packaged import Loaded, load_or_missing, package_file, released, version_of
from adledger.pipeline.lists.patterns import PatternSet, refused
from adledger.pipeline.lists.user_agents import Opinion, PatternList

PROGRAM_TAGS = frozenset({"http-library", "browser-automation"})
"""Entries with only these tags are not bots by name, but programs that anybody may use."""

LEFT_OUT_SHARE_MAX = 0.01
"""Entries that RE2 does not take, or that miss all of their examples, are left out; with more, it is not the list we know."""

_NO_PATTERNS = PatternList(KNOWN_BOTS, PatternSet(()), (), ())


def known_bots(age_days_max: int) -> Loaded[PatternList]:
    """Load the named user agents."""
    return load_or_missing(KNOWN_BOTS, "crawler-user-agents", _NO_PATTERNS, lambda: _known_bots(age_days_max))


def _known_bots(age_days_max: int) -> Loaded[PatternList]:
    version = version_of("crawler-user-agents")
    entries = json.loads(package_file("crawleruseragents", "crawler-user-agents.json"))
    try:
        usable = [entry for entry in entries if _works(entry)]
        flags = tuple(_flags(entry.get("tags", ())) for entry in usable)
        made = max(_day(entry["addition_date"]) for entry in entries if "addition_date" in entry)
        patterns = tuple(entry["pattern"] for entry in usable)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise NotAsKnownError(f"crawler-user-agents {version} has another form: {e!r}") from e
    left_out = len(entries) - len(usable)
    if left_out > LEFT_OUT_SHARE_MAX * len(entries):
        raise NotAsKnownError(
            f"{left_out} of {len(entries)} patterns of crawler-user-agents {version} don't work in RE2"
        )
    found = PatternList(KNOWN_BOTS, PatternSet(patterns), patterns, flags)
    content = content_hash(f"{flag} {pattern}" for flag, pattern in zip(flags, patterns, strict=True))
    return Loaded(
        ListFacts(
            KNOWN_BOTS,
            "crawler-user-agents",
            "MIT",
            version,
            made,
            len(patterns),
            content,
            age_days_max,
            left_out=left_out,
        ),
        found,
    )


def _works(entry: dict[str, Any]) -> bool:
    pattern: str = entry["pattern"]
    examples: Sequence[str] = entry.get("instances", ())
    if refused(pattern):
        return False
    alone = PatternSet((pattern,))
    return not examples or any(alone.matches(example.encode()) for example in examples)


def _flags(tags: Sequence[str]) -> int:
    program = UA_NON_BROWSER if PROGRAM_TAGS.intersection(tags) else 0
    bot = 0 if tags and PROGRAM_TAGS.issuperset(tags) else UA_KNOWN_BOT
    return program | bot


def _day(text: str) -> date:
    return datetime.strptime(text, "%Y/%m/%d").date()  # noqa: DTZ007 - a date has no zone


def non_browsers(age_days_max: int) -> Loaded[tuple[Opinion, ...]]:
    """Load the detectors."""
    return load_or_missing(NON_BROWSERS, "is-crawler, crawlerdetect", (), lambda: _non_browsers(age_days_max))


def _non_browsers(age_days_max: int) -> Loaded[tuple[Opinion, ...]]:
    from adledger.pipeline.lists import detectors  # noqa: PLC0415 - where a package is not there, the list is missing

    version = f"is-crawler {version_of('is-crawler')}, crawlerdetect {version_of('crawlerdetect')}"
    facts = ListFacts(
        NON_BROWSERS,
        "is-crawler, crawlerdetect",
        "Apache-2.0, MIT",
        version,
        min(released("is-crawler"), released("crawlerdetect")),
        detectors.ENTRIES,
        content_hash((version, *detectors.PATTERNS)),
        age_days_max,
    )
    return Loaded(facts, (detectors.by_signature, detectors.ByPatterns()))
