"""Comparing rollups finds exactly what differs."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adledger.loadtest.traffic.ground_truth import ROLLUP
from adledger.loadtest.verification.differences import differences, differing, publisher_spans

keys = st.tuples(
    st.integers(0, 3), st.sampled_from([0, 60]), st.integers(1, 2), st.integers(1, 5), st.integers(1, 2)
)
values = st.tuples(st.integers(1, 3), st.integers(-(10**12), 10**12))
rollups = st.dictionaries(keys, values, max_size=30)


def table(rows: dict) -> np.ndarray:
    return np.array([(*key, *value) for key, value in sorted(rows.items())], ROLLUP)


@given(rollups, rollups)
def test_every_difference_is_found_and_nothing_else(expected: dict, found: dict):
    """Keys whose records or nanos differ are found, with both sides; a missing row counts as zero."""
    wrong = differing(table(expected), table(found))
    reported = differences("rollup_minute", table(expected), table(found), wrong)
    due = {key for key in {*expected, *found} if expected.get(key) != found.get(key)}
    assert {row.key for row in reported} == due
    for row in reported:
        assert row.expected == expected.get(row.key, (0, 0))
        assert row.found == found.get(row.key, (0, 0))
        assert "rollup_minute: publisher" in str(row)


@given(rollups, st.integers(1, 10))
def test_spans_cover_every_publisher_once(rows: dict, rows_max: int):
    """Spans follow one another from 0 to 2^32."""
    spans = list(publisher_spans(table(rows), rows_max))
    assert spans[0][0] == 0
    assert spans[-1][1] == 2**32
    assert all(one[1] == other[0] for one, other in itertools.pairwise(spans))
    assert all(begin < end for begin, end in spans)
