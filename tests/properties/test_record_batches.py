"""The record batch format: kernels, their plain twins, and aiokafka (independent code) agree on every byte."""

from hashlib import sha256
from itertools import pairwise

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import LogError
from adledger.pipeline.kernels.encode import encode_plain
from adledger.pipeline.kernels.walk import walk_plain
from adledger.pipeline.log.record_block import Record, RecordBlock, encode_batches
from adledger.pipeline.records.batch_format import HEADER_BYTES, NUMBER_MAX, read_varint, varint
from adledger.pipeline.records.encoded import READ_AHEAD_BYTES, EncodedBatch, Fetched
from adledger.pipeline.records.record_batch import checksum_matches, encoded_batch, is_readable, parse_header
from adledger.pipeline.stages.walk import dead_batch, walk
from adledger.schemas.wire import DEAD_LETTER_BYTES_MAX
from tests.support.records import RECORDS, read_back, stored

SINCE_1970 = RECORDS.map(lambda records: [(abs(time), key, value) for time, key, value in records])
"""What aiokafka takes: no times before the epoch."""


def fetched(data: bytes, position: int = 0) -> Fetched:
    """Return a whole batch as a fetch returns it."""
    buffer = np.frombuffer(data + b"\xff" * READ_AHEAD_BYTES, np.uint8)
    header = parse_header(buffer, 0, "test")
    return Fetched(
        0, position, header.next_offset, header.next_offset, [encoded_batch(buffer, 0, header, "test")]
    )


def bare(records: bytes, count: int, gap: int = 0) -> Fetched:
    """Return records without a header as a fetch returns them; the header covers `gap` offsets more than records."""
    buffer = np.frombuffer(records + b"\xff" * READ_AHEAD_BYTES, np.uint8)
    batch = EncodedBatch(
        buffer, 0, len(records), count, 0, 0,
        last_offset_delta=max(0, count + gap - 1), whole=buffer[: len(records)],
    )  # fmt: skip
    return Fetched(0, 0, batch.next_offset, batch.next_offset, [batch])


def encode(records: list[Record], first_offset: int = 0) -> bytes:
    return b"".join(batch.data.tobytes() for batch in encode_batches(RecordBlock.of(records), first_offset))


@given(RECORDS, st.integers(0, 2**40))
def test_kernel_encodes_as_the_plain_twin(records, first_offset):
    """The records of a batch are the twin's bytes, and its header has their count and times."""
    data = encode(records, first_offset)
    header = parse_header(data, 0, "test")
    assert data[HEADER_BYTES:] == encode_plain(records)
    assert (header.base_offset, header.count, header.size_bytes) == (first_offset, len(records), len(data))
    assert header.next_offset == first_offset + len(records)
    assert header.base_timestamp == records[0][0]
    assert header.max_timestamp == max(time for time, _, _ in records)
    assert checksum_matches(np.frombuffer(data, np.uint8), 0, header)


@given(RECORDS, st.integers(0, 2**40))
def test_what_is_encoded_is_walked(records, first_offset):
    """Walk returns offset, log time, key and value of each record, nulls as nulls; so does the twin."""
    batch = fetched(encode(records, first_offset))
    assert read_back(walk(batch)) == stored(records, first_offset)
    assert walk_plain(batch.batches[0]) == stored(records, first_offset)


@given(RECORDS, st.data())
def test_records_below_the_position_are_left_out(records, data):
    """A fetch from the middle of a batch begins with the record at its position."""
    position = data.draw(st.integers(0, len(records)))
    assert read_back(walk(fetched(encode(records), position))) == stored(records)[position:]


@given(RECORDS, st.integers(70, 2_000), st.integers(1, 20))
def test_batches_keep_their_limits(records, bytes_max, records_max):
    """However a block is cut into batches, they join without a gap, and only a single record exceeds the bytes."""
    batches, expected = [], 0
    for batch in encode_batches(RecordBlock.of(records), 5, bytes_max=bytes_max, records_max=records_max):
        header = parse_header(batch.data, 0, "test")
        assert header.base_offset == batch.base_offset == 5 + expected
        assert header.count <= records_max
        assert len(batch.data) <= bytes_max or header.count == 1
        batches += read_back(walk(fetched(batch.data.tobytes())))
        expected += header.count
    assert batches == stored(records, 5)


@given(RECORDS, st.integers(0, 2**42))
def test_append_time_is_the_log_time_of_all(records, append_time):
    """In a batch that the broker stamped, its one time is every record's log time."""
    batch = fetched(encode(records)).batches[0]
    stamped = EncodedBatch(
        batch.buffer, batch.start, batch.size, batch.count, 0, batch.base_timestamp, append_time,
        last_offset_delta=batch.count - 1, whole=batch.whole,
    )  # fmt: skip
    refs = walk(Fetched(0, 0, batch.count, batch.count, [stamped]))
    assert refs.log_time.tolist() == [append_time] * len(records)
    assert [r[1] for r in walk_plain(stamped)] == [append_time] * len(records)


@given(RECORDS, st.data())
def test_damaged_records_are_refused_alike(records, data):
    """On bytes that were changed, removed or added, walk and its twin return the same records, or the same one dead
    letter.
    """
    whole = bytearray(encode_plain(records))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(whole[: data.draw(st.integers(0, len(whole)))]) + data.draw(st.binary(max_size=12))
    count = data.draw(st.integers(max(len(records) - 1, 0), len(records) + 1))
    assert_walkers_agree(bare(broken, count, data.draw(st.integers(-1, 2))))


@given(st.binary(max_size=80), st.integers(1, 5))
def test_noise_is_refused_alike(noise, count):
    """On any bytes at all, walk and its twin return the same records, or the same one dead letter."""
    assert_walkers_agree(bare(noise, count))


@given(RECORDS, st.lists(st.integers(-3, 70), min_size=1, max_size=60), st.integers(0, 60))
def test_offsets_stay_within_the_header(records, deltas, last):
    """Records whose offsets are equal, fall, or exceed what the header covers are one dead letter, in both twins."""
    parts = []
    for (_, key, value), delta in zip(records, deltas, strict=False):
        fields = b"".join(varint(-1) if text is None else varint(len(text)) + text for text in (key, value))
        body = b"\0" + varint(0) + varint(delta) + fields + varint(0)
        parts.append(varint(len(body)) + body)
    batch = bare(b"".join(parts), len(parts), last + 1 - len(parts))
    good = all(a < b for a, b in pairwise([-1, *deltas[: len(parts)]])) and max(deltas[: len(parts)]) <= last
    assert (assert_walkers_agree(batch) > 0) == (not good)


def assert_walkers_agree(batch: Fetched) -> int:
    """Check that walk does what its twin does; return how many dead letters it made."""
    [encoded] = batch.batches
    refs = walk(batch)
    try:
        expected = walk_plain(encoded)
    except ValueError:
        assert read_back(refs) == [(encoded.base_offset, encoded.base_timestamp, *dead_batch(encoded))]
        assert refs.span.tolist() == refs.records.tolist() == [encoded.last_offset_delta + 1]
        return 1
    assert read_back(refs) == expected
    assert not refs.span.any()
    return 0


@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_a_fetch_of_several_buffers_is_one_walk(blocks):
    """Batches of a fetch may be in different buffers; the records come in order, and the buffers are kept alive."""
    expected, batches = [], []
    for records in blocks:
        batches += fetched(encode(records, len(expected))).batches
        expected += stored(records, len(expected))
    refs = walk(Fetched(1, 0, len(expected), len(expected), batches))
    del batches
    assert read_back(refs) == expected
    assert len(refs.holders) == len(blocks)
    assert set(refs.topic.tolist()) == {1}


@given(SINCE_1970)
def test_aiokafka_reads_what_we_encode(records):
    """An independent reader finds the same records under a checksum that it accepts."""
    batch = DefaultRecordBatch(bytearray(encode(records, 7)))
    assert batch.validate_crc()
    assert [(r.offset, r.timestamp, r.key, r.value) for r in batch] == stored(records, 7)


@given(SINCE_1970, st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=20)), max_size=3))
def test_we_read_what_aiokafka_encodes(records, headers):
    """An independent writer's batches are read, record headers and all."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for i, (time, key, value) in enumerate(records):
        assert builder.append(i, time, key, value, headers) is not None
    batch = fetched(bytes(builder.build()))
    assert read_back(walk(batch)) == walk_plain(batch.batches[0]) == stored(records)


@given(st.integers(-(2**63), 2**63 - 1))
def test_varints_round_trip(number):
    """Every 64-bit number reads back as written, in at most ten bytes."""
    data = varint(number)
    assert len(data) <= 10
    assert read_varint(data, 0) == (number, len(data))


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
def test_any_header_is_understood_or_refused(data):
    """Any 61 bytes make a header whose numbers are consistent, or a LogError."""
    try:
        header = parse_header(data, 0, "test")
    except LogError as error:
        assert error.message.startswith("test: ")  # noqa: PT017
    else:
        assert header.size_bytes >= HEADER_BYTES
        assert 0 <= header.base_offset < header.next_offset
        assert abs(header.append_time) < NUMBER_MAX
        assert not is_readable(header, 0) or 0 <= header.count <= header.last_offset_delta + 1


@given(st.integers(0, 12), st.integers(1, 9))
def test_a_dead_batch_counts_from_the_position(below, last):
    """Of an undecodable batch the offsets from the position on are counted: none twice, none left out."""
    buffer = np.zeros(200, np.uint8)
    batch = EncodedBatch(buffer, 0, 100, 3, 4, 9, last_offset_delta=last, whole=buffer[:100])
    position = max(0, batch.next_offset - 1 - below)
    refs = walk(Fetched(1, position, batch.next_offset, batch.next_offset, [batch]))
    assert refs.offset.tolist() == [max(4, position)]
    assert refs.offset[0] + refs.span[0] == 4 + last + 1
    assert refs.log_time.tolist() == [9]


def test_a_dead_batch_between_good_ones():
    """The batches before and after an undecodable one lose nothing, and order is kept."""
    first, second = fetched(encode([(1, b"a", b"b")])), fetched(encode([(3, b"e", b"f")], 9))
    noise = np.frombuffer(b"\7" * 40 + bytes(READ_AHEAD_BYTES), np.uint8)
    bad = EncodedBatch(noise, 0, 40, 2, 1, 2, last_offset_delta=7, whole=noise[:40])
    refs = walk(Fetched(0, 0, 10, 10, [*first.batches, bad, *second.batches]))
    assert read_back(refs) == [(0, 1, b"a", b"b"), (1, 2, *dead_batch(bad)), (9, 3, b"e", b"f")]
    assert refs.records.tolist() == [1, 8, 1]


def test_a_dead_letter_keeps_a_bounded_part():
    """Of a large batch the first bytes are kept, with the size and the hash of all."""
    whole = np.random.default_rng(1).integers(0, 256, DEAD_LETTER_BYTES_MAX + 1, np.uint8)
    key, value = dead_batch(EncodedBatch(whole, 0, 0, 1, 0, 0, last_offset_delta=0, whole=whole))
    assert value == whole[:-1].tobytes()
    assert key == b"record batch of 65537 bytes, sha256 " + sha256(whole.tobytes()).hexdigest().encode()


def test_nothing_fetched_is_no_records():
    """An empty fetch walks to no records."""
    assert len(walk(Fetched(0, 5, 5, 5))) == 0


def test_a_compressed_batch_is_refused_by_name():
    """A batch that must be decompressed first is not read as an uncompressed one."""
    builder = DefaultRecordBatchBuilder(2, 1, 0, -1, -1, -1, 1 << 20)
    builder.append(0, 1, b"k", b"v" * 1000, [])
    with pytest.raises(LogError, match="compressed with gzip"):
        fetched(bytes(builder.build()))
