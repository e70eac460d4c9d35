"""How long a lane pauses between two tries."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.lanes.deliver import pause_seconds


@given(st.integers(1, 60_000), st.lists(st.integers(0, 10**9), min_size=2))
def test_pauses_double_up_to_the_longest_and_stay_there(longest_ms: int, attempts: list[int]) -> None:
    """However long ClickHouse is away, also after a weekend of tries."""
    pauses = [pause_seconds(attempt, longest_ms) for attempt in sorted(attempts)]
    assert all(0 < before <= after <= longest_ms / 1000 for before, after in pairwise(pauses))
    assert pause_seconds(0, longest_ms) == min(0.1, longest_ms / 1000)
    assert pause_seconds(10**9, longest_ms) == longest_ms / 1000
