"""Patterns of user agents: the linear searches find what RE2 and the packages themselves find."""

import re

import re2
from crawlerdetect.providers.crawlers import data as crawler_patterns
from crawlerdetect.providers.exclusions import data as exclusion_patterns
from hypothesis import example, given
from hypothesis import strategies as st
from is_crawler import is_crawler

from adledger.pipeline.lists.crawlers import CRAWLERS, claimed
from adledger.pipeline.lists.detectors import ByPatterns, by_signature
from adledger.pipeline.lists.patterns import PatternSet, folded, one_of, options, refused

WORDS = (
    *(re.sub(r"\\(.)", r"\1", pattern) for pattern in (*exclusion_patterns, *crawler_patterns[::7])),
    *(claim for crawler in CRAWLERS for claim in crawler.claim.split("|")),
    *("like ", "fetch", "api", "by ", "x.org", "a.com", "@", "(compatible;", ";", "-agent", "http://", "Mozilla/5.0 "),
    *("\u0130", "\u017f", "\u212a", "\n", "\u65e5", "1.2", "Yandex", "Bot", "BOT", "_", " "),
)  # fmt: skip
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=3), max_size=12).map("".join)
NAMED = ("curl\\/", "^Bot", "[cC]url", "bo", "a.c", "\\.", "like$", "K", "s[\\s\\S]*k", "x")
OURS = ByPatterns()


@given(TEXTS)
def test_a_pattern_set_finds_what_each_pattern_finds(text):
    """Literal or not, anchored or not, a set returns the indexes of the patterns that RE2 finds, in order."""
    alone = [re2.compile(pattern, options()) for pattern in NAMED]
    expected = [i for i, pattern in enumerate(alone) if pattern.search(text)]
    assert list(PatternSet(NAMED).matches(text.encode())) == expected


@given(TEXTS)
def test_a_pattern_set_that_ignores_case_finds_what_re2_finds(text):
    """In folded text a set that ignores case finds what RE2 finds in the text itself."""
    alone = [re2.compile(pattern, options(ignore_case=True)) for pattern in NAMED]
    expected = [i for i, pattern in enumerate(alone) if pattern.search(text)]
    assert list(PatternSet(NAMED, ignore_case=True).matches(folded(text.encode()))) == expected


def by_re2(text):
    """Return crawlerdetect's opinion with all of its patterns in RE2, browsers' words removed one by one."""
    either = "|".join(f"(?:{pattern})" for pattern in exclusion_patterns)
    rest = re2.compile(either, options(ignore_case=True)).sub(b"", text.strip().encode()).decode()
    fast = "|".join(f"(?:{pattern})" for pattern in crawler_patterns if not refused(pattern))
    slow = "|".join(f"(?:{pattern})" for pattern in crawler_patterns if refused(pattern))
    return bool(rest) and bool(
        re2.compile(fast, options(ignore_case=True)).search(rest) or re.search(slow, rest, re.IGNORECASE)
    )


@given(TEXTS)
@example("x64ch\u212aro\u017fx64")
@example("bSafari.1ot")
def test_the_opinion_by_patterns_is_that_of_re2(text):
    """Folding and grouping by first letters change nothing in what is removed, nor in what is found in the rest."""
    assert OURS(text) == by_re2(text)


@given(TEXTS)
@example("Mozilla/5.0 fetch\u0130fetchapi")
@example("Mozilla/5.0 by a by x.ORG")
@example("Mozilla/5.0 by a.\u0130O by b.i\u212a")
def test_the_opinion_by_signature_is_the_package_s(text):
    """Spelling otherwise what decides nothing changes no verdict of is-crawler."""
    assert by_signature(text) == is_crawler.__wrapped__(text)


@given(TEXTS)
def test_a_claim_is_the_first_one_that_is_not_like_another(text):
    """The first crawler that a user agent names counts, in any case, unless "like " stands before it."""
    groups = "|".join(f"({crawler.claim})" for crawler in CRAWLERS)
    found = re.search(f"(?<!like )(?:{groups})", text, re.IGNORECASE)
    assert claimed(text) == (0 if found is None else CRAWLERS[found.lastindex - 1].number)


@given(TEXTS, st.booleans())
def test_grouped_alternatives_match_what_they_match_in_a_row(text, ordered):
    """Alternatives under their first letters find the same matches as one after the other; one that may begin as
    others do keeps them all in their order.
    """
    patterns = [*exclusion_patterns, "[sf]a"] if ordered else list(exclusion_patterns)
    row = re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE | re.ASCII)
    text = folded(text.encode()).decode()
    assert [m.span() for m in one_of(patterns).finditer(text)] == [m.span() for m in row.finditer(text)]
