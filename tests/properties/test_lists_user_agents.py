"""User agents by hash: the cache returns what classifying every row would, however small it is."""

import json
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adledger.pipeline.kernels import lists as kernels
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.lists.user_agents import OPINION_CHARS_MAX, PatternList, UserAgentFlags, UserAgentLists
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.stages.decode import DecodeContext, decode, user_agents
from adledger.schemas.wire import EVENT_TIME_MS_MIN, Malformed, currency_code

FLAGS = (0, kernels.UA_BLANK, kernels.UA_KNOWN_BOT | 1 << 8, kernels.UA_NON_BROWSER, kernels.UA_ALLOWED)
KEYS = st.sampled_from([0, 1, 4, 8, 2**63, 2**64 - 1]) | st.integers(0, 40) | st.integers(0, 2**64 - 1)
BATCHES = st.lists(st.lists(st.tuples(KEYS, st.booleans()), max_size=40), max_size=4)


class CountedLists(UserAgentLists):
    """A user agent's string is its hash's digits, and its flags follow from them."""

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
    """Each live row has its string's flags, other rows 0; a string is classified once for its hash until the cache is
    emptied.
    """
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


def test_a_failed_classification_leaves_no_trace():
    """Where classifying fails, pending hashes are not taken for classified afterwards."""
    cache = UserAgentFlags(CountedLists(), 16)
    hashes, live = np.array([2, 3], np.uint64), np.ones(2, np.bool_)

    def gone(rows):
        raise LookupError("the record's memory is gone")

    with pytest.raises(LookupError):
        cache.classify_hashes(hashes, live, gone)
    found = cache.classify_hashes(hashes, live, lambda rows: [str(h).encode() for h in hashes[rows].tolist()])
    assert found.tolist() == [flags_of(2), flags_of(3)]


AGENTS = (
    ("", kernels.UA_BLANK),
    ("curl/8.5.0", kernels.UA_NON_BROWSER),
    ("Googlebot/2.1", kernels.UA_KNOWN_BOT | 1 << kernels.UA_CLAIM_SHIFT),
    ('caf\u00e9 "Googlebot/2.1" \\ \U0001f6d2', kernels.UA_KNOWN_BOT | 1 << kernels.UA_CLAIM_SHIFT),
    ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/131.0.0.0 Safari/537.36", 0),
)


@pytest.fixture(scope="module")
def real_lists():
    return load_lists(date(2026, 11, 23), age_days_max=3_650).user_agents


def record(number, agent, *, ascii_only):
    event = {
        "event_type": "impression", "event_id": f"e{number}", "event_time": EVENT_TIME_MS_MIN, "publisher_id": 1,
        "site_id": 1, "campaign_id": 1, "creative_id": 1, "advertiser_id": 1, "user_id": "u", "ip": "86.128.10.23",
        "user_agent": agent, "page_url": "", "price_micros": 1,
    }  # fmt: skip
    return json.dumps(event, ensure_ascii=ascii_only).encode()


@settings(max_examples=30)
@given(
    rows=st.lists(st.tuples(st.sampled_from(AGENTS), st.booleans(), st.booleans()), min_size=1, max_size=20)
)
def test_a_batch_of_records_is_flagged_by_its_user_agents(real_lists, rows):
    """From records to flags: on either path, escaped or not, each decodable row has the flags of its user agent."""
    values = [
        record(k, agent, ascii_only=escaped) if sound else b"{}"
        for k, ((agent, _), escaped, sound) in enumerate(rows)
    ]
    refs = RecordRefs.of(values, [b"u"] * len(rows), log_times=[EVENT_TIME_MS_MIN] * len(rows))
    decoded = decode(refs, DecodeContext(0, 1, (1,), currency_code("USD")))
    live = decoded.status == Malformed.OK
    assert live.tolist() == [sound for *_, sound in rows]
    found = UserAgentFlags(real_lists, 4).classify_hashes(
        decoded.columns.ua_hash, live, lambda rows: user_agents(decoded, rows)
    )
    assert found.tolist() == [flags if sound else 0 for (_, flags), _, sound in rows]


def test_detectors_see_the_beginning_of_a_user_agent_and_lists_all_of_it(real_lists):
    """A program's name behind 256 characters is no detector's concern; a list's name counts wherever it is."""
    hidden = b"x" * OPINION_CHARS_MAX
    assert real_lists.classify(
        [b"Ezooms/1.0 help@moz.com" + hidden, hidden + b"Ezooms/1.0 help@moz.com"]
    ).tolist() == [
        kernels.UA_NON_BROWSER,
        0,
    ]
    assert real_lists.classify([hidden + b" bingbot"])[0] & kernels.UA_KNOWN_BOT
