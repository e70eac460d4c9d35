"""What metrics count of a batch: malformed records and events by reason, as a plain count has them."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.lanes.compute import Computed
from adledger.schemas.classes import Reason
from adledger.schemas.wire import Malformed

REASONS = st.lists(st.frozensets(st.sampled_from(Reason), max_size=4), max_size=40)
DEAD = st.lists(
    st.tuples(st.sampled_from([m for m in Malformed if m]), st.integers(1, 2**32 - 1)), max_size=40
)


@given(REASONS, DEAD)
def test_reasons_are_counted_as_a_plain_count_has_them(reasons, dead):
    """Each bit of each event counts once; a dead letter counts the records that it stands for; zeros are absent."""
    bits = np.array([sum(1 << r for r in of_one) for of_one in reasons], np.uint64)
    codes, records = np.array([c for c, _ in dead], np.uint8), np.array([n for _, n in dead], np.uint32)
    computed = Computed({"reasons": bits}, {"reason_code": codes, "records": records}, {}, 1, {})
    assert computed.events_by_reason == Counter(r for of_one in reasons for r in of_one)
    expected: Counter[Malformed] = Counter()
    for reason, count in dead:
        expected[reason] += count
    assert computed.dead_by_reason == expected
    assert sum(computed.dead_by_reason.values()) == computed.malformed
