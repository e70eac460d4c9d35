"""General detectors of non-browsers: the opinions of two packages, neither of them exact enough alone.

is-crawler mistakes feature phones for programs (29.4 % of hits on the real log), crawlerdetect text browsers; no honest
browser that both mistake has been seen. See docs/adr/0013.

Both cost time that is linear in the text, whatever is in it: a producer can make each user agent new.
"""

import re
from collections.abc import Callable

from crawlerdetect.providers.crawlers import data as crawler_patterns
from crawlerdetect.providers.exclusions import data as exclusion_patterns
from is_crawler import crawler_contact, crawler_url, detection, is_crawler

from adledger.pipeline.lists.patterns import PatternSet, folded, one_of, refused

PATTERNS: tuple[str, ...] = (*exclusion_patterns, *crawler_patterns)
ENTRIES = len(crawler_patterns)

_CACHED_TEXTS_MAX = 1_024

_TLDS: frozenset[str] = getattr(detection, "_DOMAIN_TLDS", frozenset())
"""The ends of a domain that is-crawler looks for after a "by "."""

_IDLE = re.compile(
    # A "fetch" in a word that goes on to another: the last one decides. U+0130 in lower case ends a word.
    r"(?<=(?i:fetc))[hH](?=(?:(?!(?i:fetch))[^\W\u0130])*(?i:fetch))"
    # A "by " before what is no such domain.
    rf"|(?<=[bB])[yY](?= (?![^ ();,]*\.(?i:{'|'.join(sorted(_TLDS)) or '.*'})(?:[ ();,]|\Z)))"
)

_uncached: Callable[[str], bool] = getattr(is_crawler, "__wrapped__", is_crawler)


def by_signature(text: str) -> bool:
    """Return is-crawler's verdict, without its cache of 32,768 texts: our cache of hashes is consulted first.

    It reads a word to its end from each "fetch" in it, 34 ms for 1 KB of them, and looks for a domain after each "by ".
    Those that decide nothing are spelled otherwise first, which changes no verdict.
    """
    for cached in (crawler_contact, crawler_url):
        if cached.cache_info().currsize > _CACHED_TEXTS_MAX:
            cached.cache_clear()  # of texts that a producer chose
    lower = text.lower()
    if lower.count("fetch") > 1 or lower.count("by ") > 1:
        text = _IDLE.sub("z", text)
    return _uncached(text)


class ByPatterns:
    """crawlerdetect's opinion: what is left of a user agent without browsers' own words holds a crawler's word.

    Browsers' words are removed by `re`, in folded text: patterns that begin with a letter are dismissed at a glance, and a
    user agent of nothing but such words costs no more than another. RE2 would return to Python for each.
    """

    def __init__(self) -> None:
        plain = [pattern for pattern in crawler_patterns if refused(pattern)]
        fast = [pattern for pattern in crawler_patterns if pattern not in set(plain)]
        self._browsers = one_of(exclusion_patterns)
        self._fast = PatternSet(fast, ignore_case=True)
        self._plain = one_of(plain) if plain else None

    def __call__(self, text: str) -> bool:
        """Return whether it takes a user agent for a crawler's or a library's."""
        rest = self._browsers.sub("", folded(text.strip().encode()).decode())
        if not rest:
            return False
        return bool(self._fast.matches(rest.encode())) or bool(self._plain and self._plain.search(rest))
