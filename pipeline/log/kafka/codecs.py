"""Decompressing the records of Kafka's record batches, many into one piece of memory.

Producers are not trusted: whatever the bytes declare, at most BATCH_BYTES_MAX come out, and memory is allocated for the
most that a codec can make of the input, not for the size it declares. The bytes alone decide whether a batch can be
decompressed: a lack of memory is a MemoryError and says nothing about the batch.

LZ4 is read block by block: a frame decoder creates and checks a context for each frame, which costs ten times as
much as the blocks themselves [measured: 65 us against 5 us for a batch of 76 KB], and the batch's own CRC already covers
what the frame's checksums cover. Frame format: https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md.
Snappy comes as one raw block (librdkafka) or as the xerial stream of Java's and aiokafka's producers.
"""

from types import ModuleType

import cramjam
import numpy as np
import numpy.typing as npt

from adledger.pipeline.records.encoded import READ_AHEAD_BYTES
from adledger.schemas.wire import BATCH_BYTES_MAX

U8 = npt.NDArray[np.uint8]

PIECE_BYTES_MIN, PIECE_BYTES_MAX = 64 << 10, 4 << 20
"""Memory is allocated in pieces of a size between these, unless a single batch needs more."""
RATIO = 8
"""Assumed compression ratio for the first piece: JSON's is 3 to 7. Untouched memory costs nothing."""

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4

_LZ4_MAGIC = b"\x04\x22\x4d\x18"
_LZ4_VERSION_MASK, _LZ4_VERSION = 0xC0, 0x40
_LZ4_INDEPENDENT, _LZ4_BLOCK_CHECKSUM, _LZ4_CONTENT_SIZE, _LZ4_DICTIONARY = 0x20, 0x10, 0x08, 0x01
_LZ4_BLOCK_BYTES = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_LZ4_HEADER_BYTES_MIN = 7
_LZ4_STORED = 0x8000_0000
_LZ4_RATIO_MAX = 255
"""The largest compression ratio of a block: one byte of a length encodes up to 255."""
_LZ4_BLOCKS_MAX = 2_048
"""Frames with more blocks than this go to the frame decoder (a client that fills its blocks has 64 KiB or more in each)."""

_NO_MEMORY = "llocation"
"""In the errors of zstd and LZ4 when they get no memory: "Allocation error", "ERROR_allocation_failed"."""

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
_XERIAL_BLOCKS_MAX = 16_384
"""Clients write blocks of 32 KiB, 2,048 of which fill BATCH_BYTES_MAX. More, smaller ones would only cost time."""


class UndecodableError(ValueError):
    """The bytes are invalid for their codec, or decompress to more than a batch may have."""


class Arena:
    """Memory for decompressed records, allotted from its beginning; a new piece where one is full.

    READ_AHEAD_BYTES more always follow what is allotted. No byte is allotted twice.
    """

    def __init__(self, compressed_bytes: int, room_bytes_max: int = BATCH_BYTES_MAX) -> None:
        """Prepare for about `compressed_bytes` in total; one request may ask for at most `room_bytes_max`."""
        self._room_bytes_max = room_bytes_max
        self._piece_bytes = min(max(compressed_bytes * RATIO, PIECE_BYTES_MIN), PIECE_BYTES_MAX)
        self._memory = np.empty(0, np.uint8)
        self._at = 0

    def room(self, size: int) -> memoryview:
        """Return the free memory, which is at least `size` bytes. Raises MemoryError."""
        if size > self._room_bytes_max:
            raise MemoryError(
                f"{size} bytes are requested at once, at most {self._room_bytes_max} are allowed"
            )
        if size > len(self._memory) - READ_AHEAD_BYTES - self._at:
            self._memory = np.empty(max(size + READ_AHEAD_BYTES, self._piece_bytes), np.uint8)
            self._at = 0
        return self._memory.data[self._at : len(self._memory) - READ_AHEAD_BYTES]

    def take(self, size: int) -> tuple[U8, int]:
        """Allot the first `size` bytes of the room; return the memory and where they begin in it."""
        begin = self._at
        self._at += size
        return self._memory, begin

    def decompress(self, data: memoryview, codec: int) -> tuple[U8, int, int]:
        """Return the memory with the decompressed bytes, where they begin in it, and their number.

        Raises UndecodableError: an unknown codec, invalid bytes, or more than BATCH_BYTES_MAX decompressed; MemoryError:
        there is no memory now.
        """
        try:
            if codec == LZ4:
                size = _lz4(data, self)
            elif codec == SNAPPY:
                size = _snappy(data, self)
            elif codec in (GZIP, ZSTD):
                size = _stream(data, self, cramjam.gzip if codec == GZIP else cramjam.zstd)
            else:
                raise UndecodableError(f"codec {codec} is unknown")
        except cramjam.DecompressionError as error:
            if _NO_MEMORY in str(error):
                raise MemoryError(str(error)) from error
            raise UndecodableError(str(error)) from error
        return *self.take(size), size


def _stream(data: memoryview, arena: Arena, codec: ModuleType) -> int:
    """Decompress a stream that does not declare its size."""
    try:
        return int(codec.decompress_into(data, arena.room(len(data) * RATIO)[:BATCH_BYTES_MAX]))
    except (
        cramjam.DecompressionError
    ):  # no room, or damaged: an attempt with all the room that a batch may have tells which
        return int(codec.decompress_into(data, arena.room(BATCH_BYTES_MAX)[:BATCH_BYTES_MAX]))


def _lz4(data: memoryview, arena: Arena) -> int:
    raw = data.tobytes()
    header = _lz4_header(raw)
    if header is None:
        return _stream(data, arena, cramjam.lz4)
    at, block_bytes_max, trailer_bytes = header
    blocks: list[tuple[int, int, bool]] = []
    most = 0
    while word := int.from_bytes(_bytes(raw, at, 4), "little"):
        size = word & ~_LZ4_STORED
        if at + 4 + size > len(raw):
            raise UndecodableError("an LZ4 frame ends within a block")
        if len(blocks) == _LZ4_BLOCKS_MAX:
            return _stream(data, arena, cramjam.lz4)
        blocks.append((at + 4, size, word != size))
        most += min(block_bytes_max, size if word != size else size * _LZ4_RATIO_MAX)
        at += 4 + size + trailer_bytes
    room = arena.room(min(most, BATCH_BYTES_MAX))[:BATCH_BYTES_MAX]
    end = 0
    for at, size, stored in blocks:
        free = room[end : end + block_bytes_max]
        if not stored:
            end += cramjam.lz4.decompress_block_into(data[at : at + size], free, output_len=len(free))
        elif size <= len(free):
            free[:size] = data[at : at + size]
            end += size
        else:
            raise UndecodableError("a stored LZ4 block is larger than its frame or a batch allows")
    return end


def _lz4_header(raw: bytes) -> tuple[int, int, int] | None:
    """Return where an LZ4 frame's first block is, the largest block size, and the number of bytes after each block.

    None for anything but one frame of independent blocks without a dictionary, as Kafka's clients write it.
    """
    if len(raw) < _LZ4_HEADER_BYTES_MIN or raw[:4] != _LZ4_MAGIC:
        return None
    flags = raw[4]
    wanted = flags & _LZ4_VERSION_MASK == _LZ4_VERSION and flags & _LZ4_INDEPENDENT
    block_bytes_max = _LZ4_BLOCK_BYTES.get(raw[5] >> 4 & 0x07)
    if not wanted or flags & _LZ4_DICTIONARY or block_bytes_max is None:
        return None
    at = _LZ4_HEADER_BYTES_MIN + (8 if flags & _LZ4_CONTENT_SIZE else 0)
    return at, block_bytes_max, 4 if flags & _LZ4_BLOCK_CHECKSUM else 0


def _snappy(data: memoryview, arena: Arena) -> int:
    head = data[:_XERIAL_HEADER_BYTES].tobytes()
    blocks = _xerial_blocks(data) if head.startswith(_XERIAL_MAGIC) else [data]
    declared = [int(cramjam.snappy.decompress_raw_len(block)) for block in blocks]
    if sum(declared) > BATCH_BYTES_MAX:
        raise UndecodableError(
            f"its snappy blocks declare {sum(declared)} bytes, at most {BATCH_BYTES_MAX} are allowed"
        )
    room = arena.room(sum(declared))
    end = 0
    for block, size in zip(blocks, declared, strict=True):
        end += cramjam.snappy.decompress_raw_into(block, room[end : end + size])
    return end


def _xerial_blocks(data: memoryview) -> list[memoryview]:
    raw = data.tobytes()
    at = _XERIAL_HEADER_BYTES
    blocks: list[memoryview] = []
    while at < len(raw):
        size = int.from_bytes(_bytes(raw, at, 4), "big")
        block = data[at + 4 : at + 4 + size]
        if len(block) != size:
            raise UndecodableError("a snappy stream ends within a block")
        if len(blocks) == _XERIAL_BLOCKS_MAX:
            raise UndecodableError(f"a snappy stream has more than {_XERIAL_BLOCKS_MAX} blocks")
        blocks.append(block)
        at += 4 + size
    return blocks


def _bytes(raw: bytes, at: int, size: int) -> bytes:
    found = raw[at : at + size]
    if len(found) != size:
        raise UndecodableError("the compressed bytes end too early")
    return found
