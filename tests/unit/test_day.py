"""Laws of the sampled day: what is kept of the whole, and what is extrapolated from it."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.loadtest.day.extrapolate import Coefficient, coefficients, dedupe_bytes, whole_day
from adledger.loadtest.day.measure import MeasuredSample
from adledger.loadtest.day.plan import Whole, samples
from adledger.loadtest.day.probe import Probe, dedupe_us
from adledger.pipeline.errors import UsageError
from adledger.pipeline.stages.dedupe import LOAD_MAX, DedupeState


def measured(lanes: int, events: int, *, factor: float = 1.0) -> MeasuredSample:
    """A sample in which an event costs the same whatever their number, times `factor`."""
    return MeasuredSample(
        lanes=lanes, scale=f"{lanes}/3000", events=events, generate_seconds=1.0, seconds=1.0,
        worker_cpu_seconds=events * 4e-6 * factor, server_cpu_seconds=events * 8e-6, worker_memory_bytes=1,
        batches=events // 1_000, inserts=3 * (events // 1_000), dedupe_entries=events,
        rows={"events": events, "rollup_minute": events // 2}, bytes={"events": 100 * events, "rollup_minute": 5 * events},
        text_rows=0, retention_runs=25, retention_rows=1, quarters_closed=95, problems=(),
    )  # fmt: skip


@given(lanes=st.integers(1, 50))
def test_a_sample_is_whole_lanes_at_their_own_rate(lanes):
    """At every scale a lane has as many events in an active minute, and as many users, as in the whole day."""
    whole = Whole()
    sample = samples(whole, Fraction(lanes, 3_000))[-1]
    day = sample.day
    assert sample.lanes == day.partitions == lanes
    assert day.events == whole.events * sample.scale
    per_minute = Fraction(day.events, lanes * 24)
    assert abs(per_minute - Fraction(whole.events, whole.lanes * 24 * 60)) < 1
    assert abs(day.users / lanes - whole.users / whole.lanes) < 1
    assert (day.publishers, day.duration_hours) == (whole.publishers, 24.0)


@given(lanes=st.integers(3, 50))
def test_a_scale_is_compared_with_two_smaller_ones(lanes):
    """There are three different scales, the requested one last."""
    found = [sample.lanes for sample in samples(Whole(), Fraction(lanes, 3_000))]
    assert len(found) == 3
    assert found == sorted(set(found))
    assert found[-1] == lanes


@pytest.mark.parametrize("scale", [Fraction(1, 10_000), Fraction(1, 10), Fraction(0), Fraction(-1)])
def test_a_scale_that_can_not_be_sampled_is_refused(scale):
    """Less than one lane, or more than all of them, is refused."""
    with pytest.raises(UsageError):
        samples(Whole(), scale)


@given(ids=st.integers(1, 10**9))
def test_the_dedupe_table_is_never_fuller_than_it_may_be(ids):
    """The table has a power of two of slots as large as those of a lane, 33 to 89 bytes an id above its least size."""
    lane = DedupeState(window_ms=1)
    slots, size = dedupe_bytes(ids) * lane.capacity // lane.size_bytes, dedupe_bytes(ids)
    assert slots & (slots - 1) == 0
    assert ids <= LOAD_MAX * slots
    assert slots == 4_096 or 33 <= size / ids <= 89


def test_the_whole_day_is_the_sample_times_the_scale():
    """The cost of an event is multiplied by the day's events, and cores follow from the rate; each formula is printed."""
    whole = Whole()
    found = [measured(n, n * 1_000_000) for n in (1, 3, 10)]
    known = coefficients(found)
    assert all(c.holds for c in known.values())
    figures = {figure.name: figure for figure in whole_day(whole, known, Probe(1, 0.1, 2, 1.1))}
    assert figures["worker cores, peak"].value == pytest.approx(0.5), (
        "4 us, and 1 for the larger table, 100,000 times a second"
    )
    assert figures["events rows"].value == pytest.approx(3e9)
    assert figures["events on disk"].value == pytest.approx(300)
    assert figures["inserts"].value == pytest.approx(3e9 * 3e-3 / 86_400)
    assert all(figure.formula for figure in figures.values())


def test_differences_between_scales_are_reported():
    """A coefficient beyond its tolerance does not hold; with fewer than three scales nothing is claimed."""
    found = [measured(1, 1_000_000, factor=3), measured(3, 3_000_000), measured(10, 10_000_000)]
    assert coefficients(found)["worker CPU"].holds is False
    assert coefficients(found)["events rows"].holds is True
    assert Coefficient("x", "y", (1.0, 1.0), 0.1).holds is None


def test_a_probe_of_any_size_is_timed():
    """Tables smaller than a batch are timed too."""
    assert all(dedupe_us(ids, 1_000) > 0 for ids in (1, 10_000))
