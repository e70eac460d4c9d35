"""The lane's buffer: ranges join without a gap, offsets without records belong to them, memory is bounded."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.lanes.buffer import Batch, BatchLimits, LaneBuffer
from adledger.pipeline.log.record_block import RecordBlock, encode_batches
from adledger.pipeline.records.encoded import READ_AHEAD_BYTES, EncodedBatch, Fetched
from adledger.pipeline.records.record_batch import encoded_batch, parse_header
from adledger.sinks.sink import OffsetRange
from tests.support.records import read_back

LIMITS = BatchLimits(rows_max=100, bytes_max=10_000, age_ms_max=1_000)


def encoded(base_offset: int, log_times: list[int], value: bytes = b"x") -> list[EncodedBatch]:
    """Return records as a log returns them."""
    block = RecordBlock.of([(time, b"key", value) for time in log_times])
    batches = []
    for written in encode_batches(block, base_offset):
        buffer = np.concatenate([written.data, np.zeros(READ_AHEAD_BYTES, np.uint8)])
        batches.append(encoded_batch(buffer, 0, parse_header(buffer, 0, "here"), "here"))
    return batches


def fetched(
    topic: int, position: int, next_offset: int, *batches: EncodedBatch, end: int | None = None
) -> Fetched:
    """Return a fetch; drained unless `end` says that the log goes on."""
    return Fetched(topic, position, next_offset, next_offset if end is None else end, batches)


def buffer(starts: tuple[int, ...] = (0, 0), limits: BatchLimits = LIMITS) -> LaneBuffer:
    return LaneBuffer(dict(enumerate(starts)), limits)


def offsets(batch: Batch | None, topic: int) -> list[int]:
    assert batch is not None
    return batch.records.refs.offset[batch.records.refs.topic == topic].tolist()


def test_a_range_ends_at_the_first_record_left_over():
    """The records that a cut leaves begin the next range, and no offset is between two ranges."""
    buf = buffer((10, 20), BatchLimits(3, 10_000, 1_000))
    buf.add([fetched(0, 10, 14, *encoded(10, [1, 3, 5, 7])), fetched(1, 20, 22, *encoded(20, [2, 9]))])
    first = buf.cut(0)
    assert first is not None
    assert first.ranges == (OffsetRange(0, 10, 12), OffsetRange(1, 20, 21))
    assert (first.records.clock.tolist(), first.clock_before, buf.rows) == ([1, 2, 3], 0, 3)
    assert buf.positions() == {0: 12, 1: 21}
    second = buf.cut(3)
    assert second is not None
    assert second.ranges == (OffsetRange(0, 12, 14), OffsetRange(1, 21, 22))
    assert buf.cut(9) is None


def test_gaps_and_control_records_belong_to_the_range_before_them():
    """Offsets without a record are in exactly one range, that of the batch whose records they follow."""
    buf = buffer(limits=BatchLimits(2, 10_000, 1_000))
    buf.add([fetched(0, 0, 30, *encoded(5, [1, 2]), *encoded(20, [3])), fetched(1, 0, 0)])
    first, second = buf.cut(0), buf.cut(2)
    assert offsets(first, 0) == [5, 6]
    assert first.ranges == (OffsetRange(0, 0, 20), OffsetRange(1, 0, 0))
    assert offsets(second, 0) == [20]
    assert second.ranges == (OffsetRange(0, 20, 30), OffsetRange(1, 0, 0))


def test_control_records_alone_make_an_empty_batch():
    """Control records at the end still move the lane on; where no offset moved there is no batch."""
    buf = buffer((7, 4))
    assert buf.cut(50) is None
    buf.add([fetched(0, 7, 9), fetched(1, 4, 4)])
    batch = buf.cut(50)
    assert batch is not None
    assert (len(batch.records.refs), len(batch.records.clock), batch.position.time) == (0, 0, 50)
    assert batch.ranges == (OffsetRange(0, 7, 9), OffsetRange(1, 4, 4))
    assert buf.cut(50) is None


def test_a_topic_that_is_not_drained_holds_the_cut_back():
    """While a topic may still return an earlier record, no batch is cut, empty or not."""
    buf = buffer()
    buf.add([fetched(0, 0, 2, *encoded(0, [1, 2])), fetched(1, 0, 3, end=9)])
    assert buf.cut(0) is None
    assert not buf.drained
    buf.add([fetched(1, 3, 9)])
    assert offsets(buf.cut(0), 0) == [0, 1]


def test_records_below_the_position_are_left_out():
    """A log returns whole record batches, and records below the position were in an earlier batch."""
    buf = buffer((2, 0))
    buf.add([fetched(0, 2, 4, *encoded(0, [1, 2, 3, 4])), fetched(1, 0, 0)])
    assert buf.rows == 2
    assert offsets(buf.cut(0), 0) == [2, 3]


def test_a_full_topic_is_not_fetched():
    """A topic that holds a full batch, by rows or bytes, is not fetched until that is cut, so memory is bounded."""
    for limits in (BatchLimits(3, 10_000, 1_000), BatchLimits(100, 30, 1_000)):
        buf = buffer(limits=limits)
        assert buf.wanted() == {0: 0, 1: 0}
        buf.add([fetched(0, 0, 3, *encoded(0, [1, 2, 3], b"x" * 10), end=50), fetched(1, 0, 0)])
        assert buf.full
        assert buf.wanted() == {1: 0}
        assert offsets(buf.cut(0), 0) == [0, 1, 2]
        assert not buf.full
        assert buf.wanted() == {0: 3, 1: 0}


def test_two_halves_make_a_full_batch():
    """Topics that are each below the limit and reach it together make a batch, and both are fetched further."""
    buf = buffer(limits=BatchLimits(4, 10_000, 1_000))
    buf.add([fetched(0, 0, 2, *encoded(0, [1, 2])), fetched(1, 0, 2, *encoded(0, [1, 2]))])
    assert buf.full
    assert buf.wanted() == {0: 2, 1: 2}


RECORDS = st.lists(st.tuples(st.integers(0, 1), st.integers(1, 3), st.integers(0, 20)), max_size=40)


@given(RECORDS, st.integers(1, 7), st.integers(1, 5))
def test_batches_cover_the_log_once(records, rows_max, at_a_time):
    """However the log was fetched, ranges join without gap or overlap, hold their records, and cover everything."""
    buf = buffer(limits=BatchLimits(rows_max, 10_000, 1_000))
    log: list[list[tuple[int, int]]] = [[], []]
    for topic, gap, time in records:
        log[topic].append((log[topic][-1][0] + gap if log[topic] else gap, time))
    ends = [rows[-1][0] + 2 if rows else 0 for rows in log]
    seen: list[list[int]] = [[], []]
    starts, clock = [0, 0], 0
    while any(start < end for start, end in zip(starts, ends, strict=True)):
        for topic, position in buf.wanted().items():
            left = [row for row in log[topic] if row[0] >= position]
            batches = [b for offset, time in left[:at_a_time] for b in encoded(offset, [time])]
            reached = left[at_a_time][0] if len(left) > at_a_time else ends[topic]
            buf.add([fetched(topic, position, reached, *batches, end=ends[topic])])
        while (batch := buf.cut(clock)) is not None:
            assert len(batch.records.refs) <= rows_max
            assert [len(row[3] or b"") for row in read_back(batch.records.refs)] == [1] * len(
                batch.records.refs
            )
            clock = int(batch.records.clock[-1]) if len(batch.records.clock) else clock
            for r in batch.ranges:
                assert r.start == starts[r.topic]
                found = offsets(batch, r.topic)
                assert found == [o for o, _ in log[r.topic] if r.start <= o < r.end]
                seen[r.topic] += found
                starts[r.topic] = r.end
    assert seen == [[offset for offset, _ in rows] for rows in log]
    assert buf.rows == 0
