"""Decompressing the records of Kafka's record batches, many into one piece of memory.

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

_XERIAL_MAGIC = b"\x82SNAPPY\x00"
_XERIAL_HEADER_BYTES = 16


class UndecodableError(ValueError):
    """The bytes are not what their codec says."""


class Arena:
    """Memory for decompressed records, given out from its beginning; a new piece where one is full.

    Behind what is given out there are always READ_AHEAD_BYTES more. No byte is given out twice.
    """

    def __init__(self, compressed_bytes: int) -> None:
        """Make an arena for so many compressed bytes in all, as far as that can be told."""
        self._piece_bytes = min(max(compressed_bytes * RATIO, PIECE_BYTES_MIN), PIECE_BYTES_MAX)
        self._memory = np.empty(0, np.uint8)
        self._at = 0

    def room(self, size: int) -> memoryview:
        """Return the free memory, which is at least `size` bytes."""
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

        Raises UndecodableError: a codec that is not known, or bytes that are not what it says.
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
            raise UndecodableError(str(error)) from error
        return *self.take(size), size


def _stream(data: memoryview, arena: Arena, codec: ModuleType) -> int:
    """Decompress what does not say how large it will be."""
    try:
        return int(codec.decompress_into(data, arena.room(len(data) * RATIO)))
    except cramjam.DecompressionError:  # no room, or damaged: the form that makes its own room tells
        whole = memoryview(codec.decompress(data))
    arena.room(len(whole))[: len(whole)] = whole
    return len(whole)


def _lz4(data: memoryview, arena: Arena) -> int:
    raw = data.tobytes()
    header = _lz4_header(raw)
    if header is None:
        return _stream(data, arena, cramjam.lz4)
    at, block_bytes_max, trailer_bytes = header
    blocks = []
    while word := int.from_bytes(_bytes(raw, at, 4), "little"):
        size = word & ~_LZ4_STORED
        if at + 4 + size > len(raw):
            raise UndecodableError("an LZ4 frame ends within a block")
        blocks.append((at + 4, size, word != size))
        at += 4 + size + trailer_bytes
    room = arena.room(len(blocks) * block_bytes_max)
    end = 0
    for at, size, stored in blocks:
        if not stored:
            end += cramjam.lz4.decompress_block_into(
                data[at : at + size], room[end:], output_len=block_bytes_max
            )
        elif size <= block_bytes_max:
            room[end : end + size] = data[at : at + size]
            end += size
        else:
            raise UndecodableError("a stored LZ4 block is larger than its frame allows")
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
    if not head.startswith(_XERIAL_MAGIC):
        size = cramjam.snappy.decompress_raw_len(data)
        return int(cramjam.snappy.decompress_raw_into(data, arena.room(size)))
    raw = data.tobytes()
    at, blocks, whole = _XERIAL_HEADER_BYTES, list[memoryview](), 0
    while at < len(raw):
        size = int.from_bytes(_bytes(raw, at, 4), "big")
        block = data[at + 4 : at + 4 + size]
        if len(block) != size:
            raise UndecodableError("a snappy stream ends within a block")
        blocks.append(block)
        whole += cramjam.snappy.decompress_raw_len(block)
        at += 4 + size
    room = arena.room(whole)
    end = 0
    for block in blocks:
        end += cramjam.snappy.decompress_raw_into(block, room[end:])
    return end


def _bytes(raw: bytes, at: int, size: int) -> bytes:
    found = raw[at : at + size]
    if len(found) != size:
        raise UndecodableError("the compressed bytes end too early")
    return found
