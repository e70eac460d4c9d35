"""Freshness: every record's age is counted once, however sender and ledger reports interleave, and the log keeps it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.loadtest.results.names import SECONDS, TAG_DUE, TAG_LOG_TIME
from adledger.loadtest.runner.freshness import Fresh, Histograms, Matcher, read_log
from adledger.loadtest.runner.outlet import Ack

COUNTS = st.lists(st.integers(1, 50), max_size=20)


@given(COUNTS, COUNTS, st.randoms(use_true_random=False))
def test_records_are_matched_in_the_logs_order(acks, batches, random):
    """Record n of a partition was due with ack n and visible with batch n, whichever is reported first."""
    acknowledged = [("ack", i, n) for i, n in enumerate(acks)]
    seen = [("seen", i, n) for i, n in enumerate(batches)]
    matcher, found = Matcher(), []
    while acknowledged or seen:
        kind, i, n = (acknowledged if acknowledged and (not seen or random.random() < 0.5) else seen).pop(0)
        if kind == "ack":
            matcher.acknowledged(Ack(1, 3, n, i, i - 1))
        else:
            matcher.done(1, 3, n, 1_000 + i)
        found += matcher.matched()
    due = [i for i, n in enumerate(acks) for _ in range(n)]
    when = [1_000 + i for i, n in enumerate(batches) for _ in range(n)]
    ages = [(fresh.due_ms, fresh.age_ms, fresh.log_age_ms) for fresh in found for _ in range(fresh.count)]
    assert ages == [(d, w - d, w - d + 1) for d, w in zip(due, when, strict=False)]


@given(
    st.lists(st.tuples(st.integers(1, 100), st.integers(0, 100_000), st.booleans()), min_size=1, max_size=30)
)
def test_the_log_holds_what_was_counted(tmp_path_factory, ages):
    """freshness.hlog reads back as the histograms of all records, warm-up included; the whole has only those after the
    warm-up.
    """
    histograms = Histograms(measured_from_ms=1_000)
    for second, (count, age, measured) in enumerate(ages):
        histograms.add(Fresh(count, 1_000 if measured else 999, age, age // 2))
        if second % 3 == 0:
            histograms.end_second(second * 1_000)
    histograms.end_second(100_000)
    path = tmp_path_factory.mktemp("log") / "freshness.hlog"
    histograms.write(path, 1_000)
    read = read_log(path)
    assert {tag: h.get_total_count() for tag, h in read.items()} == dict.fromkeys(
        (TAG_DUE, TAG_LOG_TIME), sum(count for count, _, _ in ages)
    )
    assert read[TAG_DUE].get_max_value() >= max(age for _, age, _ in ages) * 1_000
    assert histograms.whole[TAG_DUE].get_total_count() == sum(
        count for count, _, measured in ages if measured
    )


@given(st.lists(st.tuples(st.integers(1, 100), st.integers(0, 100_000)), min_size=1, max_size=30))
def test_each_second_has_its_own_percentiles(ages):
    """Percentiles of both ages rise to the largest, are columns of seconds.csv, and start over each second."""
    histograms = Histograms(measured_from_ms=0)
    for count, age in ages:
        histograms.add(Fresh(count, 0, age, age // 2))
    line, after = histograms.end_second(1_000), histograms.end_second(2_000)
    assert set(line) == {name for name in SECONDS if "freshness" in name}
    for begin, part in (("freshness", 1), ("log_time_freshness", 2)):
        values = [line[f"{begin}_{of}_ms"] for of in ("p50", "p90", "p99", "p999", "max")]
        assert values == sorted(values)
        assert values[-1] == pytest.approx(max(age for _, age in ages) // part, rel=0.002, abs=0.01)
    assert not any(value is not None for value in after.values())
