"""Decompressing the records of Kafka's record batches, many into one piece of memory.

Producers are not trusted: whatever the bytes declare, at most BATCH_BYTES_MAX come out, and memory is taken for what
a codec can make of that many bytes, not for what they say of themselves. The bytes alone decide whether a batch can be
decompressed: where memory is short that is a MemoryError, and says nothing about the batch.

LZ4 is read block by block: a frame decoder makes and checks a context for each frame, which costs ten times as
much as the blocks themselves [measured: 65 us against 5 us for a batch of 76 KB], and what its checksums cover the
batch's own CRC has covered already. Frame format: https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md.
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
"""Memory is taken in pieces between these, unless a single batch needs more."""
RATIO = 8
"""Decompressed to compressed bytes, as assumed for the first piece: JSON's is 3 to 7. Untouched memory costs nothing."""

GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4

_LZ4_MAGIC = b"\x04\x22\x4d\x18"
_LZ4_VERSION_MASK, _LZ4_VERSION = 0xC0, 0x40
_LZ4_INDEPENDENT, _LZ4_BLOCK_CHECKSUM, _LZ4_CONTENT_SIZE, _LZ4_DICTIONARY = 0x20, 0x10, 0x08, 0x01
_LZ4_BLOCK_BYTES = {4: 64 << 10, 5: 256 << 10, 6: 1 << 20, 7: 4 << 20}
_LZ4_HEADER_BYTES_MIN = 7
_LZ4_STORED = 0x8000_0000
_LZ4_RATIO_MAX = 255
"""Decompressed to compressed bytes of a block, at most: a length's byte stands for 255."""
_LZ4_BLOCKS_MAX = 2_048
"""A frame of more blocks (each of 64 KiB or more, where a client fills them) is left to the frame decoder."""

_NO_MEMORY = "llocation"
"""In what zstd and LZ4 say where they get no memory: "Allocation error", "ERROR_allocation_failed"."""

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16
_XERIAL_BLOCKS_MAX = 16_384
"""Clients write blocks of 32 KiB: BATCH_BYTES_MAX has 2,048 of them. So many small ones would only cost time."""


class UndecodableError(ValueError):
    """The bytes are not what their codec says, or more of them than a batch may have."""


class Arena:
    """Memory for decompressed records, given out from its beginning; a new piece where one is full.

    Behind what is given out there are always READ_AHEAD_BYTES more. No byte is given out twice.
    """

    def __init__(self, compressed_bytes: int, room_bytes_max: int = BATCH_BYTES_MAX) -> None:
        """Make an arena for so many compressed bytes in all, as far as that can be told; at most so much room at once."""
        self._room_bytes_max = room_bytes_max
        self._piece_bytes = min(max(compressed_bytes * RATIO, PIECE_BYTES_MIN), PIECE_BYTES_MAX)
        self._memory = np.empty(0, np.uint8)
        self._at = 0

    def room(self, size: int) -> memoryview:
        """Return the free memory, which is at least `size` bytes. Raises MemoryError."""
        if size > self._room_bytes_max:
            raise MemoryError(f"{size} bytes of room are asked for at once, there are {self._room_bytes_max}")
        if size > len(self._memory) - READ_AHEAD_BYTES - self._at:
            self._memory = np.empty(max(size + READ_AHEAD_BYTES, self._piece_bytes), np.uint8)
            self._at = 0
        return self._memory.data[self._at : len(self._memory) - READ_AHEAD_BYTES]

    def take(self, size: int) -> tuple[U8, int]:
        """Give out the first `size` bytes of the room; return the memory and where they begin in it."""
        begin = self._at
        self._at += size
        return self._memory, begin

    def decompress(self, data: memoryview, codec: int) -> tuple[U8, int, int]:
        """Return the memory that holds the decompressed bytes, where they begin in it, and how many they are.

        Raises UndecodableError: a codec that is not known, bytes that are not what it says, or more than
        BATCH_BYTES_MAX of them. MemoryError: there is no room now.
        """
        try:
            if codec == LZ4:
                size = _lz4(data, self)
            elif codec == SNAPPY:
                size = _snappy(data, self)
            elif codec in (GZIP, ZSTD):
                size = _stream(data, self, cramjam.gzip if codec == GZIP else cramjam.zstd)
            else:
                raise UndecodableError(f"codec {codec} is not known")
        except cramjam.DecompressionError as error:
            if _NO_MEMORY in str(error):
                raise MemoryError(str(error)) from error
            raise UndecodableError(str(error)) from error
        return *self.take(size), size


def _stream(data: memoryview, arena: Arena, codec: ModuleType) -> int:
    """Decompress what does not say how large it will be."""
    try:
        return int(codec.decompress_into(data, arena.room(len(data) * RATIO)[:BATCH_BYTES_MAX]))
    except (
        cramjam.DecompressionError
    ):  # no room, or damaged: with all the room that a batch may have, it tells
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
    """Return where an LZ4 frame's first block is, the blocks' size at most, and the bytes behind each block.

    None for what is not one frame of independent blocks without a dictionary, as Kafka's clients write it.
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
