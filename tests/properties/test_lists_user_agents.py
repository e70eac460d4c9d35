"""User agents by hash: the cache gives what classifying every row would, however small it is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels import lists as kernels
from pipeline.lists.user_agents import PatternList, UserAgentFlags, UserAgentLists

FLAGS = (0, kernels.UA_BLANK, kernels.UA_KNOWN_BOT | 1 << 8, kernels.UA_NON_BROWSER, kernels.UA_ALLOWED)
KEYS = st.sampled_from([0, 1, 4, 8, 2**63, 2**64 - 1]) | st.integers(0, 40) | st.integers(0, 2**64 - 1)
BATCHES = st.lists(st.lists(st.tuples(KEYS, st.booleans()), max_size=40), max_size=4)


class CountedLists(UserAgentLists):
    """A user agent's text is its hash's digits; its flags follow from them."""

    __slots__ = ("texts",)

    def __init__(self):
        super().__init__(PatternList("none", _Nothing(), (), ()), ())
        object.__setattr__(self, "texts", [])

    def classify(self, texts):
        self.texts.extend(texts)
        return np.array([flags_of(int(text)) for text in texts], np.uint16)


class _Nothing:
    def matches(self, text):
        return ()


def flags_of(key):
    return FLAGS[key % len(FLAGS)]


@given(BATCHES, st.sampled_from([4, 8, 1 << 10]))
def test_flags_by_hash_equal_those_of_every_row(batches, slots):
    """Each live row has its text's flags, other rows 0; a hash's text is asked for once while the cache is not emptied."""
    lists = CountedLists()
    cache = UserAgentFlags(lists, slots)
    for batch in batches:
        hashes = np.array([key for key, _ in batch], np.uint64)
        live = np.array([alive for _, alive in batch], np.bool_)
        found = cache.classify_hashes(
            hashes, live, lambda rows, hashes=hashes: [str(h).encode() for h in hashes[rows].tolist()]
        )
        assert found.dtype == np.uint16
        assert found.tolist() == [flags_of(key) if alive else 0 for key, alive in batch]
    if not cache.emptied:
        assert len(lists.texts) == len(set(lists.texts)) == cache.classified


def test_a_text_that_can_not_be_had_leaves_no_trace():
    """Where classifying fails, what was pending is not taken for classified afterwards."""
    cache = UserAgentFlags(CountedLists(), 16)
    hashes, live = np.array([2, 3], np.uint64), np.ones(2, np.bool_)

    def gone(rows):
        raise LookupError("the record's memory is gone")

    with pytest.raises(LookupError):
        cache.classify_hashes(hashes, live, gone)
    found = cache.classify_hashes(hashes, live, lambda rows: [str(h).encode() for h in hashes[rows].tolist()])
    assert found.tolist() == [flags_of(2), flags_of(3)]
