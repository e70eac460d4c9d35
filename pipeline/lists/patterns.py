"""Many patterns searched at once, in time linear in the text: nearly all are literals, and RE2 takes the rest.

Literals run in an Aho-Corasick automaton, which is built once. RE2 builds its automaton as texts need it and drops it at a
limit of memory: with 1,500 patterns, user agents that each take another way through it cost 0.9 ms a KB. The few
patterns that are not literals cost it little.
"""

import re
from collections.abc import Iterable, Sequence

import ahocorasick_rs
import re2

SET_BYTES_MAX = 32 * 1024 * 1024
"""Memory of RE2's automaton, which grows with the texts it searches; at the limit RE2 drops states and rebuilds them."""

_LITERAL = re.compile(r"(?:[^\\.*+?()\[\]{}|^$]|\\[^A-Za-z0-9])+")
"""Patterns without operators; punctuation may be escaped."""


def options(*, ignore_case: bool = False) -> re2.Options:
    """Return RE2's options: quiet, with our limit of memory."""
    chosen = re2.Options()
    chosen.log_errors = False
    chosen.max_mem = SET_BYTES_MAX
    chosen.case_sensitive = not ignore_case
    return chosen


def refused(pattern: str) -> str:
    """Return why RE2 does not take a pattern; "" where it does."""
    try:
        re2.compile(pattern, options())
    except re2.error as e:
        return str(e.args[0].decode() if isinstance(e.args[0], bytes) else e.args[0])
    return ""


def folded(text: bytes) -> bytes:
    """Return a UTF-8 text with the capitals A-Z small, and the two other characters that equal a letter where case is ignored."""
    if not text.isascii():
        text = text.replace("\u017f".encode(), b"s").replace("\u212a".encode(), b"k")
    return text.lower()


def folded_pattern(pattern: str) -> str:
    r"""Return a pattern that matches in folded texts what `pattern` matches where case is ignored: `\D` stays `\D`."""
    return re.sub(r"\\.|[A-Z]+", lambda part: part[0] if part[0][0] == "\\" else part[0].lower(), pattern)


class PatternSet:
    """Patterns that RE2 takes (`refused` says which). Safe to use in several threads.

    With `ignore_case` texts must be `folded`.
    """

    def __init__(self, patterns: Sequence[str], *, ignore_case: bool = False) -> None:
        if ignore_case:
            patterns = [folded_pattern(pattern) for pattern in patterns]
        literal = [i for i, pattern in enumerate(patterns) if _LITERAL.fullmatch(pattern)]
        other = [i for i, pattern in enumerate(patterns) if not _LITERAL.fullmatch(pattern)]
        self._numbers, self._others = literal, other
        self._literals = self._set = None
        if literal:
            self._literals = ahocorasick_rs.BytesAhoCorasick(
                [re.sub(r"\\(.)", r"\1", patterns[i], flags=re.DOTALL).encode() for i in literal],
                implementation=ahocorasick_rs.Implementation.ContiguousNFA,
            )
        if other:
            self._set = re2.Set.SearchSet(options(ignore_case=ignore_case))
            for i in other:
                self._set.Add(patterns[i])
            self._set.Compile()

    def matches(self, text: bytes) -> Sequence[int]:
        """Return the indexes of the patterns that occur in a text, in order."""
        found: set[int] = set()
        if self._literals is not None:
            found.update(
                self._numbers[i] for i, _, _ in self._literals.find_matches_as_indexes(text, overlapping=True)
            )
        if self._set is not None:
            found.update(self._others[i] for i in self._set.Match(text) or ())
        return sorted(found) if found else ()


_OPTIONAL_START = re.compile(r"\(([^()|\\]+)\)\?(.+)", re.DOTALL)
_FIRST = re.compile(r"(\\[^A-Za-z0-9]|[^\\.*+?()\[\]{}|^$])(?![*+?{])(.*)", re.DOTALL)


def one_of(patterns: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern of `re`, for folded texts, that matches what the first of `patterns` that fits does, case ignored.

    `re` tries all alternatives at each place of a text. Under their first letters they are dismissed together, which
    takes a third of the time.
    """
    folded_ones = [folded_pattern(pattern).replace("[ ]", " ") for pattern in patterns]
    by_letter: dict[str, list[str]] = {}
    for pattern in (each for one in folded_ones for each in _starts(one)):
        begins = _FIRST.fullmatch(pattern)
        if begins is None:  # it may begin as others do: the order counts
            return re.compile("|".join(f"(?:{one})" for one in folded_ones), re.ASCII)
        by_letter.setdefault(begins[1], []).append(begins[2])
    groups = (
        f"{letter}(?:{'|'.join(f'(?:{rest})' for rest in rests)})" for letter, rests in by_letter.items()
    )
    return re.compile("|".join(groups), re.ASCII)


def _starts(pattern: str) -> tuple[str, ...]:
    """Return a pattern as those that begin with a letter, where its beginning is optional."""
    optional = _OPTIONAL_START.fullmatch(pattern)
    return (pattern,) if optional is None else (optional[1] + optional[2], optional[2])
