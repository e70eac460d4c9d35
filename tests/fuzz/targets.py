"""What is fuzzed: record batches as a broker may return them, and records as producers may write them.

A target makes one case from a random source, from the corpus or from nothing, and raises where a law is broken.
"""

import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import cramjam

from adledger.pipeline.errors import LogError
from adledger.pipeline.kernels.walk import walk_plain
from adledger.pipeline.log.kafka.batches import decode_batches
from adledger.pipeline.log.kafka.codecs import GZIP, LZ4, SNAPPY, ZSTD
from adledger.pipeline.log.kafka.progress import reaches
from adledger.pipeline.records.encoded import EncodedBatch, Fetched
from adledger.pipeline.stages.walk import dead_batch, walk
from tests.support.crafted import record, sealed, wrapped
from tests.support.one_record import BOTH, CLICKS, IMPRESSIONS, decode_one
from tests.support.records import Stored, read_back
from tests.support.wire_texts import fuzzed

CORPUS = Path(__file__).parent / "corpus"
NONE = 0
CODECS = (NONE, GZIP, SNAPPY, LZ4, ZSTD, 5, 7)
EXTREMES = (0, 1, 2, 7, 255, 256, 2**18, 2**18 + 1, 2**31 - 2, 2**31 - 1)
HEADER_FIELDS = ((8, ">i"), (16, ">b"), (21, ">h"), (23, ">i"), (27, ">q"), (35, ">q"), (57, ">i"))
"""(offset, format) of what a header says: length, magic, attributes, last offset delta, times, count."""


def corpus(target: str) -> list[bytes]:
    """Return a target's corpus: each entry once found a fault, or is an example of a kind."""
    return [path.read_bytes() for path in sorted((CORPUS / target).iterdir())]


def fuzz_batches(rng: random.Random, kept: Sequence[bytes]) -> None:
    """One fetch of a few batches: every offset is in one row at most, twins agree, only damage is an error, and what is
    whole is progress.
    """
    data = b"".join(_batch(rng, kept) for _ in range(rng.randrange(1, 4)))
    if rng.random() < 0.2:
        data = data[: rng.randrange(len(data) + 1)]  # as a limit cuts it off
    check_fetch(data, rng.choice((0, 0, 0, 1, 3, 2**40)))


def check_fetch(data: bytes, position: int) -> None:
    """Check the laws of a fetch on any bytes."""
    try:
        found = decode_batches(data, position, (), "record", "fuzz-0")
    except LogError:
        return  # a checksum, a format or a header that no broker passes on: detected and reported
    refs = walk(Fetched(0, position, found.next_offset, found.next_offset, found.batches))
    expected = [row for batch in found.batches for row in _plain(batch, position)]
    assert read_back(refs) == [row for row, _ in expected]
    assert refs.span.tolist() == [span for _, span in expected]
    for batch in found.batches:
        assert batch.base_offset < batch.next_offset
    assert found.next_offset >= position
    assert not len(refs) or int(refs.offset.min()) >= position
    assert (found.next_offset > position) == reaches(data, position), (
        "a fetch brings the lane further, or is refused"
    )


def fuzz_records(rng: random.Random, kept: Sequence[bytes]) -> None:
    """One record: the fast and the slow path agree on it, and neither raises."""
    value, key = fuzzed(rng)
    if kept and rng.random() < 0.3:
        value = _spoiled(rng.choice(kept), rng)
    decode_one(value, key, rng.choice((IMPRESSIONS, CLICKS, BOTH)))


TARGETS: dict[str, Callable[[random.Random, Sequence[bytes]], None]] = {
    "batches": fuzz_batches,
    "records": fuzz_records,
}


def _plain(batch: EncodedBatch, position: int) -> list[tuple[Stored, int]]:
    """Return (row, span) of a batch, by the plain twin."""
    try:
        return [(row, 0) for row in walk_plain(batch) if row[0] >= position]
    except ValueError:
        offset = max(batch.base_offset, position)
        return [((offset, _time(batch), *dead_batch(batch)), batch.next_offset - offset)]


def _time(batch: EncodedBatch) -> int:
    return batch.base_timestamp if batch.append_time < 0 else batch.append_time


def _batch(rng: random.Random, kept: Sequence[bytes]) -> bytes:
    """Return a batch: honest, or with a false header or records, compressed well or badly; mostly with a right checksum."""
    data = bytearray(rng.choice(kept) if kept and rng.random() < 0.3 else _made(rng))
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        at, form = rng.choice(HEADER_FIELDS)
        if len(data) >= at + struct.calcsize(form):
            bits = 8 * struct.calcsize(form) - 1
            number = rng.choice((*EXTREMES, rng.getrandbits(bits), -rng.getrandbits(bits)))
            struct.pack_into(form, data, at, max(-(2**bits), min(number, 2**bits - 1)))
    if rng.random() < 0.3:
        data[61:] = _spoiled(bytes(data[61:]), rng)
    if rng.random() < 0.9 and len(data) >= 61:
        struct.pack_into(">i", data, 8, len(data) - 12)
    return sealed(data) if rng.random() < 0.95 and len(data) >= 61 else bytes(data)


def _made(rng: random.Random) -> bytes:
    count = rng.choice((0, 1, 1, 2, 5, 60))
    deltas = list(range(count))
    if rng.random() < 0.3:
        deltas = [rng.choice((0, 1, count, 2**31 - 1, -1, delta)) for delta in deltas]
    texts = (None, b"", b"u-14", b"x" * rng.choice((1, 200, 70_000)))
    records = b"".join(record(delta, rng.choice(texts), rng.choice(texts)) for delta in deltas)
    if rng.random() < 0.2:
        records = _spoiled(records, rng)
    codec = rng.choice(CODECS)
    last = rng.choice((None, None, None, 0, count, *EXTREMES))
    attributes = rng.choice((0, 0, 8))
    return wrapped(
        _compressed(records, codec, rng), rng.choice((count, count, count, count + 1, -1)), codec,
        last=last if last is not None else max(0, count - 1), attributes=attributes,
    )  # fmt: skip


def _compressed(data: bytes, codec: int, rng: random.Random) -> bytes:
    if codec == SNAPPY and rng.random() < 0.5:
        blocks = [
            bytes(cramjam.snappy.compress_raw(data[at : at + 32_768])) for at in range(0, len(data), 32_768)
        ]
        return (
            b"\x82SNAPPY\x00"
            + struct.pack(">ii", 1, 1)
            + b"".join(struct.pack(">i", len(b)) + b for b in blocks)
        )
    compress: dict[int, Callable[[bytes], object]] = {
        GZIP: cramjam.gzip.compress, SNAPPY: cramjam.snappy.compress_raw,
        LZ4: cramjam.lz4.compress, ZSTD: cramjam.zstd.compress,
    }  # fmt: skip
    return bytes(compress[codec](data)) if codec in compress else data  # type: ignore[call-overload]


def _spoiled(data: bytes, rng: random.Random) -> bytes:
    """Return bytes with a few changed, removed, inserted or repeated."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(4):
            case 0 if out:
                out[at % len(out)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 1:
                del out[at : at + rng.choice((1, 4, 100))]
            case 2:
                out[at:at] = rng.randbytes(rng.choice((1, 4, 40)))
            case _:
                out[at:at] = out[max(0, at - 30) : at] * rng.choice((1, 2, 50))
    return bytes(out)
