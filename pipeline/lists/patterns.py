"""Patterns in RE2: all searched in one pass over the text, in time linear in its length whatever the patterns are."""

from collections.abc import Sequence

import re2

SET_BYTES_MAX = 32 * 1024 * 1024
"""Memory of a set's automaton, which grows with the texts it searches; at the limit RE2 drops states and rebuilds them."""


def options(*, ignore_case: bool = False, captures: bool = True) -> re2.Options:
    """Return RE2's options: quiet, with our limit of memory. Without captures the bounds of a match are found faster."""
    chosen = re2.Options()
    chosen.log_errors = False
    chosen.max_mem = SET_BYTES_MAX
    chosen.case_sensitive = not ignore_case
    chosen.never_capture = not captures
    return chosen


def refused(pattern: str) -> str:
    """Return why RE2 does not take a pattern; "" where it does."""
    try:
        re2.compile(pattern, options())
    except re2.error as e:
        return str(e.args[0].decode() if isinstance(e.args[0], bytes) else e.args[0])
    return ""


class PatternSet:
    """Patterns that RE2 takes (`refused` says which), as one automaton. Safe to use in several threads."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._set = None
        if patterns:
            self._set = re2.Set.SearchSet(options())
            for pattern in patterns:
                self._set.Add(pattern)
            self._set.Compile()

    def matches(self, text: bytes) -> Sequence[int]:
        """Return the indexes of the patterns that occur in a text, in order."""
        found = None if self._set is None else self._set.Match(text)
        return () if found is None else sorted(found)
