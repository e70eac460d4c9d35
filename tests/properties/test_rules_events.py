"""Rules that look at one event: the kernel equals the plain twin, and rules that are off or not evaluated have no hits."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.kernels import lists
from adledger.pipeline.kernels.rules_events import event_hits
from adledger.pipeline.lists.publishers import PublisherStatus
from adledger.pipeline.rules.plain_events import EventFacts
from adledger.pipeline.rules.plain_events import event_hits as plain_hits
from adledger.pipeline.rules.registry import NO_REASON, RULE_BITS, RULES, primary_reasons
from adledger.schemas.classes import Class, Reason
from adledger.schemas.wire import Flag

SIDES = st.none() | st.integers(0, 3) | st.just(300)
AGENTS = st.builds(
    lambda flags, claim: flags | claim << lists.UA_CLAIM_SHIFT, st.integers(0, 15), st.integers(0, 24)
)
ADDRESSES = st.integers(0, 7) | st.integers(0, 2**32 - 1)
FACTS = st.builds(
    EventFacts, AGENTS, ADDRESSES, st.sampled_from(PublisherStatus), st.integers(0, 15), SIDES, SIDES
)


@given(st.lists(st.tuples(FACTS, st.booleans()), max_size=20), st.integers(0, 2), st.integers(0, RULE_BITS))
def test_the_kernel_equals_the_plain_rules(events, side, run):
    """Each live event has the hits of the rules that are run, a malformed one has none."""
    n = len(events)
    hits = np.zeros(n, np.uint64)
    flags = [
        f.flags & ~3 | (f.width is not None) << Flag.HAS_WIDTH | (f.height is not None) << Flag.HAS_HEIGHT
        for f, _ in events
    ]
    event_hits(
        np.array([f.ua_flags for f, _ in events], np.uint16), np.array([f.ip_flags for f, _ in events], np.uint32),
        np.array([f.publisher for f, _ in events], np.uint8), np.array(flags, np.uint16),
        np.array([f.width or 0 for f, _ in events], np.uint16), np.array([f.height or 0 for f, _ in events], np.uint16),
        np.array([live for _, live in events], np.bool_), side, np.uint64(run), hits,
    )  # fmt: skip
    reference = [plain_hits(f, side) if live else set() for f, live in events]
    assert hits.tolist() == [sum(1 << r for r in reasons) & run for reasons in reference]


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)), min_size=1, max_size=10))
def test_the_primary_reason_is_the_first_by_precedence(sets):
    """It is the first enforced rule, in the order of RULES, among the hits; without a rule there is no reason."""
    for reasons, enforced in sets:
        expected = next((int(r) for r in RULES if reasons & enforced & 1 << r), NO_REASON)
        assert primary_reasons(np.array([reasons], np.uint64), enforced).tolist() == [expected]


def test_general_invalid_traffic_comes_first():
    """GIVT is before SIVT, and every rule's reason is one of adledger.schemas.classes."""
    classes = [rule.event_class for rule in RULES.values()]
    assert classes == sorted(classes)
    assert set(classes) == {Class.GIVT, Class.SIVT}
    assert set(RULES) == set(Reason) - {Reason.MISROUTED, Reason.DUPLICATE_CONFLICT}
