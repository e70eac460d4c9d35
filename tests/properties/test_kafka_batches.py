"""What a fetch brought becomes exactly its committed records; whatever else the bytes are is a LogError."""

import struct

import cramjam
import google_crc32c
import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.kafka.batches import DecodedBatches, decode_batches
from adledger.pipeline.log.kafka.codecs import GZIP, LZ4, SNAPPY, ZSTD, Arena, UndecodableError
from adledger.pipeline.log.record_block import Record
from adledger.pipeline.records.encoded import READ_AHEAD_BYTES, Fetched
from adledger.pipeline.stages.walk import walk
from tests.support.records import RECORDS, Stored, read_back, stored

NONE = 0
CODECS = st.sampled_from([NONE, GZIP, SNAPPY, LZ4, ZSTD])
NO_PRODUCER = -1


def batch(
    records: list[Record], base_offset: int = 0, codec: int = NONE, producer: int = NO_PRODUCER, *, transactional: bool = False
) -> bytes:  # fmt: skip
    """Encode a batch as aiokafka's producer does, at an offset as the broker gives it."""
    builder = DefaultRecordBatchBuilder(2, codec, int(transactional), producer, 0, 0, 1 << 24)
    for i, (time, key, value) in enumerate(records):
        builder.append(i, time, key, value, [])
    return struct.pack(">q", base_offset) + bytes(builder.build())[8:]


def read(
    data: bytes, position: int = 0, aborted: tuple[tuple[int, int], ...] = ()
) -> tuple[DecodedBatches, list[Stored]]:
    """Decode and walk."""
    decoded = decode_batches(data, position, aborted, "record", "topic-1")
    for one in decoded.batches:
        assert len(one.buffer) >= one.start + one.size + READ_AHEAD_BYTES
    return decoded, read_back(walk(Fetched(0, position, decoded.next_offset, 1 << 40, decoded.batches)))


@given(st.lists(st.tuples(RECORDS, CODECS, st.integers(0, 5)), min_size=1, max_size=5), st.data())
def test_batches_of_any_codec_become_their_records(parts, data):
    """From any position, cut off anywhere, the whole batches' records come, and the next offset is behind them."""
    encoded, expected, ends, offset = b"", [], [(0, 0)], 0
    for records, codec, gap in parts:
        offset += gap  # as compaction leaves it
        encoded += batch(records, offset, codec)
        expected += stored(records, offset)
        offset += len(records)
        ends.append((len(encoded), offset))
    size = data.draw(st.integers(0, len(encoded)))
    position = data.draw(st.integers(0, offset))
    decoded, found = read(encoded[:size], position)
    whole = max(end for at, end in ends if at <= size)
    assert found == [record for record in expected if position <= record[0] < whole]
    assert decoded.next_offset == max(position, whole)


@given(
    st.lists(st.tuples(st.integers(1, 3), st.sampled_from(["plain", "in", "commit", "abort"])), max_size=25)
)
def test_aborted_transactions_are_left_out(steps):
    """Whatever the order of producers' batches and markers: a record stays unless its transaction was aborted."""
    encoded, offset = b"", 0
    open_: dict[int, list[Stored]] = {}
    kept: list[Stored] = []
    aborted: list[tuple[int, int]] = []
    for producer, step in steps:
        records: list[Record] = [(offset, b"%d" % producer, step.encode())]
        if step == "plain":
            encoded += batch(records, offset)
            kept += stored(records, offset)
        elif step == "in":
            encoded += batch(records, offset, producer=producer, transactional=True)
            open_.setdefault(producer, []).extend(stored(records, offset))
        else:
            encoded += marker(offset, producer, commits=step == "commit")
            mine = open_.pop(producer, [])
            if step == "commit":
                kept += mine
            elif mine:
                aborted.append((producer, mine[0][0]))
        offset += 1
    for producer, mine in open_.items():  # the broker's end would be before them: here they end as aborted
        aborted.append((producer, mine[0][0]))
    decoded, found = read(encoded, 0, tuple(aborted))
    assert found == sorted(kept)
    assert decoded.next_offset == offset


def marker(offset: int, producer: int, *, commits: bool) -> bytes:
    """A control batch, as the transaction coordinator writes it."""
    plain = bytearray(
        batch(
            [(0, struct.pack(">hh", 0, int(commits)), b"\0" * 6)],
            offset,
            producer=producer,
            transactional=True,
        )
    )
    plain[22] |= 0x20  # attributes, low byte
    return sealed(plain)


def sealed(data: bytearray) -> bytes:
    """Put the right checksum on a batch."""
    data[17:21] = struct.pack(">I", google_crc32c.value(bytes(data[21:])))
    return bytes(data)


@given(RECORDS, CODECS, st.data())
def test_a_changed_byte_is_found(records, codec, data):
    """No byte that the checksum covers can change unseen."""
    encoded = bytearray(batch(records, 0, codec))
    at = data.draw(st.integers(17, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(LogError):
        read(bytes(encoded))


@given(RECORDS, st.sampled_from([GZIP, SNAPPY, LZ4, ZSTD, 5, 7]), st.binary(max_size=200), st.data())
def test_bytes_that_their_codec_does_not_know_are_an_error(records, codec, noise, data):
    """A good checksum over what can't be decompressed, or is no record: an error that names the offset, nothing else."""
    encoded = bytearray(batch(records, 0, codec if codec <= ZSTD else NONE))
    encoded[22] = encoded[22] & ~7 | codec
    at = data.draw(st.integers(61, len(encoded)))
    encoded[at : at + len(noise)] = noise
    encoded[8:12] = struct.pack(">i", len(encoded) - 12)
    try:
        read(sealed(encoded))
    except LogError as error:
        assert "offset 0" in error.message  # noqa: PT017 - it need not be raised


@given(st.sampled_from([GZIP, SNAPPY, LZ4, ZSTD]), st.binary(max_size=300))
def test_noise_is_undecodable(codec, noise):
    """Bytes of any kind decompress or raise UndecodableError."""
    heads = {
        LZ4: b"\x04\x22\x4d\x18\x60\x40\x82",
        SNAPPY: b"\x82SNAPPY\x00" + b"\0" * 8,
        GZIP: b"\x1f\x8b\x08",
        ZSTD: b"\x28\xb5\x2f\xfd",
    }
    for data in (noise, heads[codec] + noise):
        try:
            memory, start, size = Arena(len(data)).decompress(memoryview(data), codec)
        except UndecodableError:
            continue
        assert start + size + READ_AHEAD_BYTES <= len(memory)


@given(st.lists(st.tuples(st.binary(max_size=200), st.integers(1, 2_000)), min_size=1, max_size=8))
def test_every_form_of_a_codec_is_understood(texts):
    """Raw snappy, LZ4 with linked blocks, checksums and sizes, several pieces of one arena: all as they went in."""
    arena = Arena(1)
    for text, times in texts:
        plain = text * times
        for codec, data in (
            (SNAPPY, cramjam.snappy.compress_raw(plain)),
            (LZ4, cramjam.lz4.compress(plain)),
            (LZ4, cramjam.lz4.compress(plain, level=9)),
            (GZIP, cramjam.gzip.compress(plain)),
            (ZSTD, cramjam.zstd.compress(plain)),
        ):
            memory, start, size = arena.decompress(memoryview(bytes(data)), codec)
            assert memory[start : start + size].tobytes() == plain
            assert memory.dtype == np.uint8


@pytest.mark.parametrize("magic", [0, 1])
def test_old_formats_are_refused(magic):
    """Messages from before Kafka 0.11 are refused by name, never misread."""
    builder = LegacyRecordBatchBuilder(magic, 0, 1 << 16)
    builder.append(0, timestamp=1, key=b"k", value=b"v" * 100)
    with pytest.raises(LogError, match=f"message format {magic}"):
        read(bytes(builder.build()))
    short = LegacyRecordBatchBuilder(magic, 0, 1 << 16)
    short.append(0, timestamp=1, key=None, value=b"")
    with pytest.raises(LogError, match=f"message format {magic}"):
        read(bytes(short.build()))
