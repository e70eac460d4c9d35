"""Crawlers whose operators publish their addresses, so that a claim to be one can be checked.

Numbers are ours and local to a process: they are never stored. Ranges are those of data/crawlers.toml, under the same
name, and those that iporigin has under `labels`.
"""

import re
from dataclasses import dataclass

from adledger.pipeline.lists.patterns import folded, folded_pattern, one_of


@dataclass(frozen=True, slots=True)
class Crawler:
    """One operator. `claim`: regular expressions of what its user agents say, between bars; case is ignored."""

    number: int
    name: str
    claim: str
    labels: tuple[str, ...] = ()


CRAWLERS = (
    Crawler(
        1,
        "Google",
        # Not the fetchers that run on App Engine for its customers (Feedfetcher, Read-Aloud): they run anybody's code.
        r"Googlebot|AdsBot-Google|Mediapartners-Google|GoogleOther|Google-InspectionTool|Storebot-Google|APIs-Google",
        ("Googlebot",),
    ),
    Crawler(2, "Bing", r"bingbot", ("Bingbot",)),
    Crawler(3, "Apple", r"Applebot", ("Applebot",)),
    Crawler(4, "Yandex", r"Yandex[A-Za-z]{0,40}?Bot"),
    Crawler(5, "DuckDuckGo", r"DuckDuckBot", ("DuckDuckBot",)),
    Crawler(6, "OpenAI", r"GPTBot|OAI-SearchBot", ("GPTBot",)),
    Crawler(7, "Perplexity", r"PerplexityBot", ("PerplexityBot",)),
    Crawler(8, "Common Crawl", r"CCBot", ("Common Crawl",)),
    Crawler(9, "Ahrefs", r"AhrefsBot|AhrefsSiteAudit"),
)

_LIKE = "like "
"""Before a claim: "like Googlebot" is how others ask to be treated the same; it claims nothing."""

_CLAIMS = tuple(re.compile(folded_pattern(crawler.claim)) for crawler in CRAWLERS)
_ANY_CLAIM = one_of(claim for crawler in CRAWLERS for claim in crawler.claim.split("|"))


def claimed(text: str) -> int:
    """Return the number of the first crawler that a user agent claims to be; 0 for none."""
    text = folded(text.encode()).decode()
    at = 0
    while match := _ANY_CLAIM.search(text, at):
        if not text.endswith(_LIKE, 0, match.start()):
            return next(
                crawler.number
                for crawler, claim in zip(CRAWLERS, _CLAIMS, strict=True)
                if claim.fullmatch(match[0])
            )
        at = match.start() + 1
    return 0


def crawler_name(number: int) -> str:
    """Return the operator's name."""
    return CRAWLERS[number - 1].name
