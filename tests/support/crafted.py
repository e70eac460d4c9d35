"""Record batches that no honest producer writes, with valid checksums: a broker accepts them from any producer."""

import struct
from collections.abc import Sequence

import cramjam
import google_crc32c
from aiokafka import AIOKafkaProducer

from adledger.pipeline.log.kafka.codecs import GZIP, LZ4, SNAPPY, ZSTD
from adledger.pipeline.records.batch_format import HEADER_BYTES, varint

LZ4_HEADER = b"\x04\x22\x4d\x18\x60\x70\x73"
"""Of a frame of independent blocks of up to 4 MiB."""


class RawBatch:
    """A batch's bytes, in the form in which aiokafka's producer takes a finished batch."""

    def __init__(self, data: bytes, records: int) -> None:
        self._data, self._records = data, records

    def close(self) -> None:
        """Do nothing: it was never open."""

    def closed(self) -> bool:
        return True

    def size(self) -> int:
        return len(self._data)

    def record_count(self) -> int:
        return self._records

    def _build(self) -> bytes:
        return self._data


async def send_raw(
    producer: AIOKafkaProducer, topic: str, partition: int, data: bytes, records: int = 1
) -> int:
    """Send a batch unchanged; return the offset that the broker gave its first record. Raises the broker's refusal."""
    future = await producer.send_batch(RawBatch(data, records), topic, partition=partition)
    return int((await future).offset)


def sealed(data: bytearray) -> bytes:
    """Put the right checksum on a batch."""
    data[17:21] = struct.pack(">I", google_crc32c.value(bytes(data[21:])))
    return bytes(data)


def record(delta: int, key: bytes | None, value: bytes | None) -> bytes:
    """A record with any offset delta."""
    texts = b"".join(varint(-1) if text is None else varint(len(text)) + text for text in (key, value))
    body = b"\0" + varint(0) + varint(delta) + texts + varint(0)
    return varint(len(body)) + body


def with_deltas(deltas: Sequence[int], last: int, values: Sequence[bytes], time: int = 0) -> bytes:
    """An uncompressed batch whose records have any offset deltas."""
    records = b"".join(record(d, b"user", v) for d, v in zip(deltas, values, strict=True))
    return wrapped(records, len(deltas), 0, last=last, base_time=time)


def wrapped(
    records: bytes,
    count: int,
    codec: int,
    *,
    last: int | None = None,
    attributes: int = 0,
    base_time: int = 0,
    max_time: int = 7,
) -> bytes:
    """A batch with any bytes as its (compressed) records, and a valid checksum."""
    header = struct.pack(
        ">qiibIhiqqqhii", 0, HEADER_BYTES - 12 + len(records), 0, 2, 0, codec | attributes, count - 1 if last is None else last,
        base_time, max_time, -1, -1, -1, count,
    )  # fmt: skip
    return sealed(bytearray(header + records))


def one_byte_blocks_of(data: bytes) -> bytes:
    """Return an LZ4 frame of blocks of 1 byte each, in a frame whose blocks may be 4 MiB: 57 KB would allocate 48 GB."""
    return LZ4_HEADER + b"".join(b"\x02\x00\x00\x00\x10%c" % byte for byte in data) + bytes(4)


def one_byte_blocks(blocks: int) -> bytes:
    """Return an LZ4 frame of this many blocks of 1 byte each."""
    return one_byte_blocks_of(b"a" * blocks)


def snappy_bomb(blocks: int, first: bytes = b"\0") -> bytes:
    """Return a xerial stream of a raw block, and others that each declare 1 GiB."""
    bomb = struct.pack(">i", 5) + b"\x80\x80\x80\x80\x04"
    return b"\x82SNAPPY\x00" + struct.pack(">iii", 1, 1, len(first)) + first + bomb * blocks


def lz4_block() -> bytes:
    """Return a block of an LZ4 frame that expands to 256 KiB."""
    block = bytes(cramjam.lz4.compress_block(bytes(256 << 10), store_size=False))
    return struct.pack("<I", len(block)) + block


BOMBS = {
    "lz4 blocks of one byte": (LZ4, one_byte_blocks(9_500)),
    "many lz4 blocks": (LZ4, LZ4_HEADER + lz4_block() * 4_000 + bytes(4)),
    "snappy declares 12 GiB": (SNAPPY, snappy_bomb(12)),
    "raw snappy declares 4 GiB": (SNAPPY, b"\xff\xff\xff\xff\x0f"),
    "zstd of 300 MiB": (ZSTD, bytes(cramjam.zstd.compress(bytes(300 << 20)))),
    "gzip of 100 MiB": (GZIP, bytes(cramjam.gzip.compress(bytes(100 << 20)))),
}
