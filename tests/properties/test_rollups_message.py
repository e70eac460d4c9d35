"""Laws of the `ad.rollups` message: nothing is lost on the way, it always fits, and invalid bytes are refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.control.rollups_message import (
    COLUMNS,
    EPOCH_BYTES_MAX,
    PART_ROWS_MAX,
    RollupsMessageError,
    decode,
    encode,
    record_key,
    split,
)
from tests.support.rollups import MINUTE, columns_of, many_rows, message, rows, rows_of

MESSAGE_BYTES_MAX = 1_048_588 - 1_024
"""Kafka's default max.message.bytes, with room for the record batch around the value."""

CLOCK = MINUTE * 1000
some_rows = st.lists(rows(st.integers(0, MINUTE // 60).map(lambda m: m * 60), st.integers(0, 2**32 - 1)))
epochs = st.text(st.characters(exclude_categories=["Cs"]), max_size=EPOCH_BYTES_MAX // 4)


@given(epochs, st.integers(0, 2**16 - 1), st.integers(0, 2**64 - 1), some_rows, st.randoms())
def test_a_message_round_trips(epoch, lane, batch_no, found, random):
    """Decoding returns what was encoded, and the order of a batch's rows makes no difference to the bytes."""
    (sent,) = split(epoch, lane, batch_no, CLOCK, columns_of(found))
    data = encode(sent)
    got = decode(data)
    identity = (got.epoch, got.lane, got.batch_no, got.clock_after, got.part, got.parts)
    assert identity == (epoch, lane, batch_no, CLOCK, 0, 1)
    assert rows_of(got) == rows_of(sent)
    assert sorted(rows_of(got)) == sorted(found)
    assert {name: v.dtype for name, v in got.rollup.items()} == {n: np.dtype(d) for n, d in COLUMNS.items()}
    keys = [row[:5] for row in found]
    if len(set(keys)) == len(keys):  # as roll_up makes them
        shuffled = random.sample(found, len(found))
        assert encode(split(epoch, lane, batch_no, CLOCK, columns_of(shuffled))[0]) == data


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(0, 300))
def test_other_bytes_are_refused_and_nothing_else_happens(noise, tail, cut):
    """Bytes that are not a message, or one truncated, changed or extended, are a RollupsMessageError, or a message."""
    data = encode(message(3, 9, [(5, MINUTE, 1, 1, 7, 2, 9), (6, MINUTE, 2, 3, 7, 1, 4)], CLOCK))
    for other in (noise, data[:cut], data[:cut] + tail, data[:5] + noise, data[:33] + noise):
        try:
            found = decode(other)
        except RollupsMessageError:
            continue
        assert found.rows <= PART_ROWS_MAX
        assert decode(encode(found)).rows == found.rows


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d[:20], "20 bytes"),
        (lambda d: b"JSON" + d[4:], "begins with"),
        (lambda d: d[:4] + b"\x02" + d[5:], "version 2"),
        (lambda d: d[:24] + b"\x01\x00" + d[26:], "part 1 of 1"),
        (lambda d: d[:28] + b"\xff\xff\xff\x7f" + d[32:], "at most"),
        (lambda d: d[:28] + b"\x01\x00\x00\x00" + d[32:], "decompressed"),
        (lambda d: d[:28] + b"\x03\x00\x00\x00" + d[32:], "columns of 48"),
        (lambda d: d[:-1], "decompressed"),
        (lambda d: d[:32] + b"\xff" + d[33:], "not UTF-8"),
    ],
)
def test_the_error_names_the_cause(change, words):
    """The error names what is wrong with the bytes."""
    data = encode(message(3, 9, [(5, MINUTE, 1, 1, 7, 2, 9), (6, MINUTE, 2, 3, 7, 1, 4)], CLOCK))
    with pytest.raises(RollupsMessageError, match=words):
        decode(change(data))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ((5, MINUTE + 1, 1, 1, 7, 2, 9), "minutes"),
        ((5, MINUTE + 360, 1, 1, 7, 2, 9), "beyond"),
        ((5, MINUTE, 3, 1, 7, 2, 9), "event type"),
        ((5, MINUTE, 1, 6, 7, 2, 9), "class"),
        ((5, MINUTE, 1, 1, 7, 0, 9), "without records"),
    ],
)
def test_rows_that_no_batch_has_are_refused(row, words):
    """A decoded message's rows are always valid."""
    with pytest.raises(RollupsMessageError, match=words):
        decode(encode(message(3, 9, [row], CLOCK)))


def test_the_worst_batch_fits_in_parts():
    """Incompressible rows are split into parts, each below Kafka's default limit; none is lost."""
    columns = many_rows(2 * PART_ROWS_MAX + 1)
    parts = [encode(part) for part in split("e" * EPOCH_BYTES_MAX, 7, 1, CLOCK, columns)]
    assert max(map(len, parts)) <= MESSAGE_BYTES_MAX
    found = [decode(part) for part in parts]
    assert [(m.part, m.parts, m.rows) for m in found] == [
        (0, 3, PART_ROWS_MAX),
        (1, 3, PART_ROWS_MAX),
        (2, 3, 1),
    ]
    for name in COLUMNS:
        together = np.sort(np.concatenate([m.rollup[name] for m in found]))
        assert (together == np.sort(columns[name])).all(), name


def test_a_batch_without_rows_still_advances_the_watermark():
    """An idle lane's batch is a message of no rows."""
    (only,) = split("e", 1, 4, CLOCK, columns_of([]))
    found = decode(encode(only))
    assert (found.rows, found.clock_after, found.parts) == (0, CLOCK, 1)


def test_the_key_is_the_lane():
    """Records are keyed by the lane, in decimal."""
    assert record_key(12) == b"12"
