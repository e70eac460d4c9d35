"""The record batch format: kernels, their plain twins, and aiokafka (written by others) agree on every byte."""

import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import LogError
from adledger.pipeline.kernels.encode import encode_plain
from adledger.pipeline.kernels.walk import walk_plain
from adledger.pipeline.log.record_block import Record, RecordBlock, encode_batches
from adledger.pipeline.records.batch_format import HEADER_BYTES, read_varint, varint
from adledger.pipeline.records.encoded import NO_APPEND_TIME, READ_AHEAD_BYTES, EncodedBatch, Fetched
from adledger.pipeline.records.record_batch import checksum_matches, encoded_batch, parse_header
from adledger.pipeline.stages.walk import walk
from tests.support.records import RECORDS, read_back, stored

SINCE_1970 = RECORDS.map(lambda records: [(abs(time), key, value) for time, key, value in records])
"""What aiokafka takes: no times before the epoch."""


def fetched(data: bytes, position: int = 0) -> Fetched:
    """Return a whole batch as a fetch brings it."""
    buffer = np.frombuffer(data + b"\xff" * READ_AHEAD_BYTES, np.uint8)
    header = parse_header(buffer, 0, "test")
    return Fetched(
        0, position, header.next_offset, header.next_offset, [encoded_batch(buffer, 0, header, "test")]
    )


def bare(records: bytes, count: int) -> Fetched:
    """Return records without a header as a fetch brings them."""
    buffer = np.frombuffer(records + b"\xff" * READ_AHEAD_BYTES, np.uint8)
    return Fetched(0, 0, count, count, [EncodedBatch(buffer, 0, len(records), count, 0, 0)])


def encode(records: list[Record], first_offset: int = 0) -> bytes:
    return b"".join(batch.data.tobytes() for batch in encode_batches(RecordBlock.of(records), first_offset))


@given(RECORDS, st.integers(0, 2**40))
def test_kernel_encodes_as_the_plain_twin(records, first_offset):
    """The records of a batch are the twin's bytes, and its header counts and times them."""
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
    """Walk gives back offset, log time, key and value of each record, nulls as nulls; so does the twin."""
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
        batch.buffer, batch.start, batch.size, batch.count, 0, batch.base_timestamp, append_time
    )
    refs = walk(Fetched(0, 0, batch.count, batch.count, [stamped]))
    assert refs.log_time.tolist() == [append_time] * len(records)
    assert [r[1] for r in walk_plain(stamped)] == [append_time] * len(records)


@given(RECORDS, st.data())
def test_damaged_records_are_refused_alike(records, data):
    """On bytes that were changed, cut or added, walk and its twin give the same records or both refuse."""
    whole = bytearray(encode_plain(records))
    for _ in range(data.draw(st.integers(0, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(whole[: data.draw(st.integers(0, len(whole)))]) + data.draw(st.binary(max_size=12))
    assert_alike(bare(broken, data.draw(st.integers(max(len(records) - 1, 0), len(records) + 1))))


@given(st.binary(max_size=80), st.integers(1, 5))
def test_noise_is_refused_alike(noise, count):
    """On any bytes at all, walk and its twin give the same records or both refuse."""
    assert_alike(bare(noise, count))


def assert_alike(batch: Fetched) -> None:
    try:
        expected = walk_plain(batch.batches[0])
    except ValueError:
        with pytest.raises(LogError):
            walk(batch)
    else:
        assert read_back(walk(batch)) == expected


@given(st.lists(RECORDS, min_size=1, max_size=4))
def test_a_fetch_of_several_buffers_is_one_walk(blocks):
    """Batches of a fetch may lie in different buffers; the records come in order, and the buffers are held."""
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
    """A reader that we did not write finds the same records under a checksum that it accepts."""
    batch = DefaultRecordBatch(bytearray(encode(records, 7)))
    assert batch.validate_crc()
    assert [(r.offset, r.timestamp, r.key, r.value) for r in batch] == stored(records, 7)


@given(SINCE_1970, st.lists(st.tuples(st.text(max_size=5), st.none() | st.binary(max_size=20)), max_size=3))
def test_we_read_what_aiokafka_encodes(records, headers):
    """A writer that we did not write is understood, record headers and all."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    for i, (time, key, value) in enumerate(records):
        assert builder.append(i, time, key, value, headers) is not None
    batch = fetched(bytes(builder.build()))
    assert read_back(walk(batch)) == walk_plain(batch.batches[0]) == stored(records)


@given(st.integers(-(2**63), 2**63 - 1))
def test_varints_round_trip(number):
    """Every 64-bit number is read as it was written, in at most ten bytes."""
    data = varint(number)
    assert len(data) <= 10
    assert read_varint(data, 0) == (number, len(data))


@given(st.binary(min_size=HEADER_BYTES, max_size=HEADER_BYTES))
def test_any_header_is_understood_or_refused(data):
    """61 bytes of anything make a header whose numbers can be relied on, or a LogError."""
    try:
        header = parse_header(data, 0, "test")
    except LogError as error:
        assert error.message.startswith("test: ")  # noqa: PT017
    else:
        assert header.size_bytes >= HEADER_BYTES
        assert 0 <= header.count <= header.last_offset_delta + 1


def test_walk_names_what_is_broken():
    """The error says which partition and which batch."""
    batch = EncodedBatch(np.zeros(200, np.uint8), 0, 100, 3, 4_711, 0, NO_APPEND_TIME)
    with pytest.raises(LogError, match=r"ad.clicks-3.*offset 4711.*3 records"):
        walk(Fetched(1, 0, 5_000, 5_000, [batch]), "ad.clicks-3")


def test_nothing_fetched_is_no_records():
    """An empty fetch walks to no records."""
    assert len(walk(Fetched(0, 5, 5, 5))) == 0


def test_a_compressed_batch_is_refused_by_name():
    """A batch that must be decompressed first is not taken for one that is not."""
    builder = DefaultRecordBatchBuilder(2, 1, 0, -1, -1, -1, 1 << 20)
    builder.append(0, 1, b"k", b"v" * 1000, [])
    with pytest.raises(LogError, match="compressed with gzip"):
        fetched(bytes(builder.build()))
