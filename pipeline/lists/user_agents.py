"""User agents: what the lists say about one, determined once for each distinct string."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from adledger.pipeline.kernels import lists as kernels
from adledger.pipeline.kernels.slots import KNOWN_SECRET, SlotSecret
from adledger.pipeline.lists.crawlers import claimed, crawler_name
from adledger.pipeline.lists.facts import KNOWN_BOTS, NON_BROWSERS
from adledger.pipeline.records.columns import I64, U16, U64, Bool

BLANK = frozenset((b"", b"-"))
"""Texts that mean no user agent, white space aside: the empty one, and the hyphen of Apache's logs."""

SLOTS_DEFAULT = 1 << 16

OPINION_CHARS_MAX = 256
"""What the general detectors see of a user agent; the lists search all of it. Both detectors run Python for each
character or word, and a producer can make each user agent new."""

Opinion = Callable[[str], bool]
"""Whether a detector takes a user agent for something else than a browser."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Which entry of which list matched."""

    list_name: str
    entry: str


class Patterns(Protocol):
    """Patterns that are searched all at once."""

    def matches(self, text: bytes) -> Sequence[int]:
        """Return the indexes of those that occur in a text."""
        ...


@dataclass(frozen=True, slots=True)
class PatternList:
    """Named patterns, each with the flags (kernels.UA_...) that a match sets."""

    list_name: str
    patterns: Patterns
    names: tuple[str, ...] = field(repr=False)
    flags: tuple[int, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class UserAgentLists:
    """The lists of user agents. Immutable and safe to use in several threads.

    `known` sets what its entries say. `opinions` are general detectors, none of them exact enough to decide alone:
    what all of them take for no browser is one that no entry names. `allowed` wins over everything, `denied` adds.
    """

    known: PatternList
    opinions: tuple[Opinion, ...]
    allowed: tuple[PatternList, ...] = ()
    denied: tuple[PatternList, ...] = ()

    def classify(self, texts: Sequence[bytes]) -> U16:
        """Return the flags (kernels.UA_..., the claimed crawler in the high byte) of n user agents (UTF-8)."""
        return np.fromiter((self._flags(text) for text in texts), np.uint16, len(texts))

    def _flags(self, text: bytes) -> int:
        if any(listed.patterns.matches(text) for listed in self.allowed):
            return kernels.UA_ALLOWED
        flags = 0
        for listed in self.denied:
            for entry in listed.patterns.matches(text):
                flags |= listed.flags[entry]
        if text.strip() in BLANK:
            return flags | kernels.UA_BLANK
        for entry in self.known.patterns.matches(text):
            flags |= self.known.flags[entry]
        if flags & kernels.UA_KNOWN_BOT:
            flags |= claimed(text.decode()) << kernels.UA_CLAIM_SHIFT
        elif not flags & kernels.UA_NON_BROWSER and self._no_browser(text):
            flags |= kernels.UA_NON_BROWSER
        return flags

    def _no_browser(self, text: bytes) -> bool:
        """Return whether all opinions agree; the cheap ones come first, and an ordinary browser needs only those."""
        as_text = text.decode()[:OPINION_CHARS_MAX]
        return bool(self.opinions) and all(opinion(as_text) for opinion in self.opinions)

    def explain(self, text: bytes) -> tuple[Evidence, ...]:
        """Return the entries that set the flags of a user agent."""
        allowed = self._entries(self.allowed, text)
        if allowed:
            return allowed
        found = list(self._entries(self.denied, text))
        if text.strip() in BLANK:
            return (*found, Evidence("blank", "no user agent"))
        found += self._entries((self.known,), text)
        flags = self._flags(text)
        if flags & kernels.UA_NON_BROWSER and not found:
            found.append(Evidence(NON_BROWSERS, "every detector considers it a non-browser"))
        if claim := flags >> kernels.UA_CLAIM_SHIFT:
            found.append(Evidence(KNOWN_BOTS, f"claims to be {crawler_name(claim)}'s"))
        return tuple(found)

    @staticmethod
    def _entries(lists: Sequence[PatternList], text: bytes) -> tuple[Evidence, ...]:
        return tuple(
            Evidence(listed.list_name, listed.names[entry])
            for listed in lists
            for entry in listed.patterns.matches(text)
        )


class UserAgentFlags:
    """A lane's cache: flags by hash, so that each distinct user agent is classified once. Not thread-safe.

    Bounded: `slots` (a power of two) of 10 bytes; when half of them are taken it is emptied, which costs time and
    changes no result. Flags are a function of the text; two texts of one xxHash64 are one user agent, as they are in
    the table `user_agents`.
    """

    def __init__(
        self, lists: UserAgentLists, slots: int = SLOTS_DEFAULT, secret: SlotSecret = KNOWN_SECRET
    ) -> None:
        assert slots >= 4, "half of the slots must hold something"
        assert slots & (slots - 1) == 0, "slots are addressed by low bits"
        self.lists = lists
        self.emptied = 0  # how often; counted, because it costs
        self.classified = 0  # texts
        self._slots = secret.slots(slots)
        self._keys = np.zeros(slots, np.uint64)
        self._values = np.zeros(slots, np.uint16)
        self._taken = 0

    @property
    def size_bytes(self) -> int:
        """Bytes of memory that the table takes."""
        return self._keys.nbytes + self._values.nbytes

    def classify_hashes(self, ua_hash: U64, live: Bool, text_of: Callable[[I64], Sequence[bytes]]) -> U16:
        """Return the flags of n rows; rows that are not `live` have 0.

        `text_of` gets row numbers of user agents that were not seen before, and returns their texts in that order.
        """
        flags = np.zeros(len(ua_hash), np.uint16)
        unknown = np.empty(min(len(ua_hash), len(self._keys) // 2), np.int64)
        start = 0
        while start < len(ua_hash):
            room = len(self._keys) // 2 - self._taken
            found, repeats, stop = kernels.cached_flags(
                self._keys, self._values, self._slots, ua_hash, live, start, room, flags, unknown
            )
            if found:
                flags[unknown[:found]] = self._enter(ua_hash, unknown[:found], text_of)
            if repeats:
                kernels.cached_flags(
                    self._keys,
                    self._values,
                    self._slots,
                    ua_hash[:stop],
                    live[:stop],
                    start,
                    0,
                    flags,
                    unknown,
                )
            if stop < len(ua_hash):
                self._empty()
                self.emptied += 1
            start = stop
        return flags

    def _enter(self, ua_hash: U64, rows: I64, text_of: Callable[[I64], Sequence[bytes]]) -> U16:
        try:
            flags = self.lists.classify(text_of(rows))
        except BaseException:
            self._empty()  # else the pending ones would be taken for classified
            raise
        kernels.enter_flags(self._keys, self._values, self._slots, ua_hash, rows, flags)
        self._taken += len(rows)
        self.classified += len(rows)
        return flags

    def _empty(self) -> None:
        self._values[:] = 0
        self._taken = 0
