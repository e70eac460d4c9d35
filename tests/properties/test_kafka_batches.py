"""A fetch's response becomes exactly its committed records; whatever else the bytes are is a LogError."""

import json
import random
import struct
from contextlib import suppress
from ipaddress import IPv4Address

import cramjam
import numpy as np
import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import LogError, UnreadableBatch
from adledger.pipeline.kernels.encode import encode_plain
from adledger.pipeline.log.kafka.batches import DECODED_BYTES_MAX, DecodedBatches, decode_batches
from adledger.pipeline.log.kafka.codecs import GZIP, LZ4, SNAPPY, ZSTD, Arena, UndecodableError
from adledger.pipeline.log.record_block import Record
from adledger.pipeline.records.batch_format import varint
from adledger.pipeline.records.encoded import READ_AHEAD_BYTES, Fetched
from adledger.pipeline.stages.walk import walk
from adledger.schemas.wire import BATCH_BYTES_MAX, BATCH_RECORDS_MAX
from tests.support.crafted import BOMBS, one_byte_blocks, sealed, wrapped
from tests.support.records import RECORDS, Stored, read_back, stored
from tests.support.wire_texts import IMPRESSION, LOG_TIME

BROKER_BATCH_BYTES_MAX = 1_048_588
"""Kafka's default max.message.bytes."""
NONE = 0
CODECS = st.sampled_from([NONE, GZIP, SNAPPY, LZ4, ZSTD])
NO_PRODUCER = -1


def batch(
    records: list[Record], base_offset: int = 0, codec: int = NONE, producer: int = NO_PRODUCER, *, transactional: bool = False
) -> bytes:  # fmt: skip
    """Encode a batch as aiokafka's producer does, at an offset as the broker assigns it."""
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
    """From any position, truncated anywhere, the whole batches' records are read, and the next offset is after them."""
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
    """Whatever the order of producers' batches and markers, a record stays unless its transaction was aborted."""
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


@given(RECORDS, CODECS, st.data())
def test_a_changed_byte_is_found(records, codec, data):
    """No byte under the checksum can change unnoticed."""
    encoded = bytearray(batch(records, 0, codec))
    at = data.draw(st.integers(17, len(encoded) - 1))
    encoded[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(LogError):
        read(bytes(encoded))


@given(RECORDS, st.sampled_from([GZIP, SNAPPY, LZ4, ZSTD, 5, 7]), st.binary(max_size=200), st.data())
def test_an_undecodable_batch_is_one_dead_letter(records, codec, noise, data):
    """Bytes under a right checksum that can't be decompressed or parsed are one row for all offsets of the header."""
    encoded = bytearray(batch(records, 0, codec if codec <= ZSTD else NONE))
    encoded[22] = encoded[22] & ~7 | codec
    at = data.draw(st.integers(61, len(encoded)))
    encoded[at : at + len(noise)] = noise
    encoded[8:12] = struct.pack(">i", len(encoded) - 12)
    decoded = decode_batches(sealed(encoded), 0, (), "record", "topic-1")
    refs = walk(Fetched(0, 0, decoded.next_offset, 1 << 40, decoded.batches))
    assert decoded.next_offset == len(records)
    assert int(refs.records.sum()) == len(records)
    if len(refs) != len(records):
        assert (refs.offset.tolist(), refs.span.tolist()) == ([0], [len(records)])


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
    """Raw snappy, LZ4 with linked blocks, checksums and sizes, and several pieces of one arena round-trip."""
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


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_takes_no_more_than_a_batch_may(name, monkeypatch):
    """Whatever bytes declare or expand to, at most BATCH_BYTES_MAX is allocated, and the batch is one dead letter."""
    codec, data = BOMBS[name]
    asked: list[int] = []
    room = Arena.room
    monkeypatch.setattr(Arena, "room", lambda self, size: asked.append(size) or room(self, size))
    decoded = decode_batches(wrapped(data, 3, codec), 0, (), "record", "topic-1")
    refs = walk(Fetched(0, 0, decoded.next_offset, 1 << 40, decoded.batches))
    assert max(asked, default=0) <= BATCH_BYTES_MAX
    assert refs.records.tolist() == [3]


def test_room_is_for_what_a_codec_can_make(monkeypatch):
    """An LZ4 frame of tiny blocks gets the memory that they can expand to, not a whole block's for each."""
    asked: list[int] = []
    room = Arena.room
    monkeypatch.setattr(Arena, "room", lambda self, size: asked.append(size) or room(self, size))
    frame = one_byte_blocks(100)
    with suppress(UndecodableError):
        Arena(len(frame)).decompress(memoryview(frame), LZ4)
    assert max(asked) <= 255 * len(frame)


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_the_bytes_alone_decide(codec):
    """A batch of exactly the limit is read, and one byte more is not, whatever was allocated before."""
    compress = {
        GZIP: cramjam.gzip.compress, ZSTD: cramjam.zstd.compress, LZ4: cramjam.lz4.compress,
        SNAPPY: cramjam.snappy.compress_raw,
    }[codec]  # fmt: skip
    for before in (1, 1 << 10, 1 << 30):
        arena = Arena(before)
        arena.room(before // 1024)
        *_, size = arena.decompress(memoryview(bytes(compress(bytes(BATCH_BYTES_MAX)))), codec)
        assert size == BATCH_BYTES_MAX
        with pytest.raises(UndecodableError):
            Arena(before).decompress(memoryview(bytes(compress(bytes(BATCH_BYTES_MAX + 1)))), codec)


@pytest.mark.parametrize("codec", [NONE, GZIP, SNAPPY, LZ4, ZSTD])
def test_no_memory_is_no_dead_letter(codec, monkeypatch):
    """A lack of memory is reported as such, and no batch is called undecodable for it."""
    monkeypatch.setattr(Arena, "room", lambda *_: (_ for _ in ()).throw(MemoryError("no room")))
    with pytest.raises(UnreadableBatch) as refused:
        decode_batches(batch([(1, b"k", b"v" * 100)] * 9, 0, codec), 0, (), "record", "topic-1")
    assert refused.value.no_memory


def damaged(data: bytes) -> bytes:
    """Return a batch with a byte of its records changed, so that its checksum does not match."""
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("codec", [NONE, LZ4])
def test_a_damaged_batch_ends_a_fetch_and_then_refuses_one(codec):
    """What precedes it is read first; then the error names exactly the batch's offsets, and what follows can be read."""
    whole = [batch([(1, b"k", b"v" * 9)] * 3, 3 * i, codec) for i in range(3)]
    data = whole[0] + damaged(whole[1]) + whole[2]
    assert decode_batches(data, 0, (), "record", "topic-1").next_offset == 3
    with pytest.raises(UnreadableBatch, match="checksum does not match") as refused:
        decode_batches(data[len(whole[0]) :], 3, (), "record", "topic-1", topic=1)
    assert (refused.value.topic, refused.value.start, refused.value.end) == (1, 3, 6)
    assert not refused.value.no_memory
    assert decode_batches(whole[2], 6, (), "record", "topic-1").next_offset == 9


@given(st.binary(min_size=61, max_size=61), st.integers(0, 9))
def test_the_end_of_a_damaged_batch_is_after_its_beginning(header, position):
    """Whatever a header says, the offset to go on at is a later one, and not beyond a batch that follows."""
    data = header[:8] + (49).to_bytes(4, "big") + header[12:] + batch([(1, b"k", b"v")], position + 7, NONE)
    try:
        goes_on_at = decode_batches(data, position, (), "record", "topic-1").next_offset
    except UnreadableBatch as refused:
        goes_on_at = refused.end
    assert position < goes_on_at < 1 << 62


def test_a_codec_without_memory_is_not_damage(monkeypatch):
    """zstd's error for a lack of memory is not taken for damage."""

    def no_memory(*_: object) -> int:
        raise cramjam.DecompressionError("Allocation error : not enough memory")

    monkeypatch.setattr(cramjam.zstd, "decompress_into", no_memory)
    with pytest.raises(MemoryError):
        Arena(9).decompress(memoryview(b"123"), ZSTD)


def test_a_fetch_over_its_memory_yields_fewer_batches():
    """A fetch of batches that expand far ends after the one that fills it; the next fetch returns the others."""
    value = bytes(24 << 20)
    data = b"".join(batch([(1, None, value)], i, ZSTD) for i in range(8))
    position, fetches = 0, 0
    while position < 8:
        decoded = decode_batches(data, position, (), "record", "topic-1")
        assert sum(one.size for one in decoded.batches) <= DECODED_BYTES_MAX + BATCH_BYTES_MAX
        assert [one.base_offset for one in decoded.batches] == list(range(position, decoded.next_offset))
        position, fetches = decoded.next_offset, fetches + 1
    assert fetches > 1


@pytest.mark.parametrize(
    ("count", "last", "attributes", "base_time"),
    [
        (2, 0, 0, 0),  # more records than offsets
        (-1, 3, 0, 0),
        (2**31 - 1, 2**31 - 1, 0, 0),
        (0, 3, 0, 0),  # bytes, and no records
        (1, 0, 0, 2**63 - 1),
    ],
)
def test_false_headers(count, last, attributes, base_time):
    """A false header field that no broker checks makes a dead letter for the covered offsets, never an error."""
    data = wrapped(
        batch([(1, b"k", b"v")])[61:], count, NONE, last=last, attributes=attributes, base_time=base_time
    )
    decoded = decode_batches(data, 0, (), "record", "topic-1")
    refs = walk(Fetched(0, 0, decoded.next_offset, 1 << 40, decoded.batches))
    assert decoded.next_offset == last + 1
    assert (refs.offset.tolist(), refs.records.tolist()) == ([0], [last + 1])


def test_an_unused_base_time():
    """Under the broker's append time a producer's base timestamp may be anything, since it is no record's time."""
    data = wrapped(batch([(1, b"k", b"v")])[61:], 1, NONE, attributes=8, base_time=2**63 - 1)
    decoded = decode_batches(data, 0, (), "append", "topic-1")
    assert read_back(walk(Fetched(0, 0, 1, 1, decoded.batches))) == [(0, 7, b"k", b"v")]


def test_too_many_records_are_a_dead_letter():
    """A batch of more records than BATCH_RECORDS_MAX, which a few bytes can encode, is one dead letter."""
    count = BATCH_RECORDS_MAX + 1
    body = b"".join(varint(len(r)) + r for r in (b"\0\0" + varint(i) + b"\1\1\0" for i in range(count)))
    data = wrapped(bytes(cramjam.zstd.compress(body)), count, ZSTD)
    decoded = decode_batches(data, 0, (), "record", "topic-1")
    assert walk(Fetched(0, 0, count, count, decoded.batches)).records.tolist() == [count]


@pytest.mark.parametrize("codec", [GZIP, LZ4, ZSTD])
def test_honest_batches_fit(codec):
    """Generated events, in batches whose compressed size is a broker's default of 1 MB, are far below the limits."""
    compress = {GZIP: cramjam.gzip.compress, LZ4: cramjam.lz4.compress, ZSTD: cramjam.zstd.compress}[codec]
    rng = random.Random(7)
    events = [
        IMPRESSION | {
            "event_id": f"{rng.getrandbits(128):032x}", "user_id": f"{rng.getrandbits(64):016x}",
            "ip": str(IPv4Address(rng.getrandbits(32))), "event_time": LOG_TIME + i,
            "page_url": f"https://example.com/{rng.randrange(1000)}",
        }
        for i in range(20_000)
    ]  # fmt: skip
    plain = encode_plain(
        [(LOG_TIME, event["user_id"].encode(), json.dumps(event).encode()) for event in events]
    )
    ratio = len(plain) / len(bytes(compress(plain)))
    assert 2 * ratio * BROKER_BATCH_BYTES_MAX < BATCH_BYTES_MAX
    assert 2 * ratio * BROKER_BATCH_BYTES_MAX / (len(plain) / len(events)) < BATCH_RECORDS_MAX
