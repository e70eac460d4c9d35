"""Crawlers whose operators publish their addresses, so that a claim to be one can be checked.

Numbers are ours and local to a process: they are never stored. Ranges are those of data/crawlers.toml, under the same
name, and those that iporigin has under `labels`.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Crawler:
    """One operator. `claim`: a regular expression of what its user agents say."""

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
    Crawler(4, "Yandex", r"Yandex[A-Za-z]*Bot"),
    Crawler(5, "DuckDuckGo", r"DuckDuckBot", ("DuckDuckBot",)),
    Crawler(6, "OpenAI", r"GPTBot|OAI-SearchBot", ("GPTBot",)),
    Crawler(7, "Perplexity", r"PerplexityBot", ("PerplexityBot",)),
    Crawler(8, "Common Crawl", r"CCBot", ("Common Crawl",)),
    Crawler(9, "Ahrefs", r"AhrefsBot|AhrefsSiteAudit"),
)

_CLAIM = re.compile(
    # "like Googlebot" is how others ask to be treated the same; it claims nothing.
    "(?<!like )(?:" + "|".join(f"({crawler.claim})" for crawler in CRAWLERS) + ")",
    re.IGNORECASE,
)


def claimed(text: str) -> int:
    """Return the number of the first crawler that a user agent claims to be; 0 for none."""
    match = _CLAIM.search(text)
    return 0 if match is None or match.lastindex is None else CRAWLERS[match.lastindex - 1].number


def crawler_name(number: int) -> str:
    """Return the operator's name."""
    return CRAWLERS[number - 1].name
