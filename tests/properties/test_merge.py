"""Merge: a batch is what sorting says it is, nothing is lost or doubled, and its ranges alone reproduce it."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.records.columns import I64, RecordRefs
from adledger.pipeline.stages.merge import DAY_MS, Cut, CutPosition, Pending, cut, merge_all

NO_LIMIT = 10**9
CLOCKS = st.sampled_from([0, 5, DAY_MS - 3])
TIMES = st.integers(0, 12) | st.integers(DAY_MS - 6, DAY_MS + 6) | st.integers(-3, 3 * DAY_MS)

Row = tuple[int, int, int]
"""Time, topic, offset."""


@st.composite
def topics(draw, times=TIMES) -> list[RecordRefs]:
    """Up to three topics, their offsets with gaps, their log times in any order, also backwards."""
    parts = []
    for topic in range(draw(st.integers(1, 3))):
        records = draw(st.lists(st.tuples(times, st.integers(1, 3), st.integers(-1, 4)), max_size=12))
        parts.append(
            RecordRefs.of(
                [None if size < 0 else b"x" * size for _, _, size in records],
                [None] * len(records),
                topics=[topic] * len(records),
                offsets=np.cumsum([gap for _, gap, _ in records]).tolist(),
                log_times=[time for time, _, _ in records],
            )
        )
    return parts


def positions(refs: RecordRefs, clock: I64) -> list[Row]:
    return list(zip(clock.tolist(), refs.topic.tolist(), refs.offset.tolist(), strict=True))


def plain_positions(refs: RecordRefs, clock: int) -> list[tuple[Row, int]]:
    """Return the position and value bytes of each record of one topic: the time is the running maximum."""
    rows = []
    for i in range(len(refs)):
        clock = max(clock, int(refs.log_time[i]))
        rows.append(((clock, int(refs.topic[i]), int(refs.offset[i])), max(0, int(refs.value_len[i]))))
    return rows


def plain_cut(pending: list[Pending], clock_before: int, rows_max: int, bytes_max: int) -> list[Row]:
    """Return the positions of the next batch, one record at a time: the plain twin."""
    by_topic = [plain_positions(p.refs, clock_before) for p in pending]
    if any(not rows and not p.drained for rows, p in zip(by_topic, pending, strict=True)):
        return []
    bound = min(
        (rows[-1][0] for rows, p in zip(by_topic, pending, strict=True) if not p.drained), default=None
    )
    batch: list[Row] = []
    size = 0
    for position, value_bytes in sorted(row for rows in by_topic for row in rows):
        size += value_bytes
        beyond = bound is not None and position > bound
        next_day = bool(batch) and position[0] // DAY_MS != batch[0][0] // DAY_MS
        if beyond or next_day or len(batch) == rows_max or (batch and size > bytes_max):
            break
        batch.append(position)
    return batch


@given(topics(), st.data(), CLOCKS, st.integers(1, 12), st.integers(1, 20))
def test_a_cut_is_what_sorting_says(parts, data, clock_before, rows_max, bytes_max):
    """It is by (time, topic, offset), to the smallest last position not drained, the day's end or a limit; at least one
    record.
    """
    pending = [Pending(p, data.draw(st.booleans(), label="drained")) for p in parts]
    expected = plain_cut(pending, clock_before, rows_max, bytes_max)
    found = cut(pending, clock_before, rows_max, bytes_max)
    if found is None:
        assert expected == []
        return
    assert positions(found.records.refs, found.records.clock) == expected
    assert found.position == CutPosition(*expected[-1])
    assert list(found.taken) == [sum(topic == t for _, topic, _ in expected) for t in range(len(parts))]


def cut_all(parts: list[RecordRefs], clock: int, rows_max: int, arrivals: list[int]) -> list[tuple[int, Cut]]:
    """Return (watermark before, cut) of batch after batch, the topics' records arriving `arrivals[i]` at a time."""
    come, start, cuts = [0] * len(parts), [0] * len(parts), []
    step = 0
    while any(s < len(p) for s, p in zip(start, parts, strict=True)):
        for t, p in enumerate(parts):
            come[t] = min(len(p), come[t] + arrivals[(step + t) % len(arrivals)])
        step += 1
        pending = [
            Pending(p.take(slice(s, c)), drained=c == len(p))
            for p, s, c in zip(parts, start, come, strict=True)
        ]
        found = cut(pending, clock, rows_max, NO_LIMIT)
        if found is not None:
            cuts.append((clock, found))
            start = [s + n for s, n in zip(start, found.taken, strict=True)]
            clock = int(found.records.clock[-1])
    return cuts


ARRIVALS = st.lists(st.integers(0, 5), min_size=1, max_size=6).filter(any)


@given(topics(), CLOCKS, st.integers(1, 12), ARRIVALS)
def test_cuts_return_every_record_once_in_one_order(parts, clock, rows_max, arrivals):
    """Over all batches each record comes once, each topic's in its order, and the watermark never falls.

    And however the records arrived, the concatenated batches have the one order of all.
    """
    arrivals = [n + 1 for n in arrivals]
    cuts = [found for _, found in cut_all(parts, clock, rows_max, arrivals)]
    rows = [row for found in cuts for row in positions(found.records.refs, found.records.clock)]
    assert rows == sorted(position for p in parts for position, _ in plain_positions(p, clock))
    assert all(len({time // DAY_MS for time in found.records.clock.tolist()}) == 1 for found in cuts)


@given(topics(), CLOCKS, st.integers(1, 12), ARRIVALS)
def test_the_ranges_reproduce_the_batch(parts, clock, rows_max, arrivals):
    """merge_all of a batch's ranges at its watermark is the batch, also where log times go backwards."""
    arrivals = [n + 1 for n in arrivals]
    start = [0] * len(parts)
    for clock_before, found in cut_all(parts, clock, rows_max, arrivals):
        ranges = [p.take(slice(s, s + n)) for p, s, n in zip(parts, start, found.taken, strict=True)]
        again = merge_all(ranges, clock_before)
        assert positions(again.refs, again.clock) == positions(found.records.refs, found.records.clock)
        assert again.refs.value_addr.tolist() == found.records.refs.value_addr.tolist()
        start = [s + n for s, n in zip(start, found.taken, strict=True)]


def test_nothing_is_cut_before_every_topic_is_drained_or_has_records():
    """A topic that is not drained and has no record yet may return an earlier one, so nothing is cut."""
    some = RecordRefs.of([b"x"], [None], topics=[0], log_times=[1])
    assert cut([Pending(some, drained=True), Pending(RecordRefs.empty(), drained=False)], 0, 9, 9) is None
    assert cut([Pending(RecordRefs.empty(), drained=True)], 0, 9, 9) is None
    none = merge_all([], 7)
    assert len(none.refs) == len(none.clock) == 0
