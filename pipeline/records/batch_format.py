"""Kafka's record batch format, version 2 ("magic 2"): its constants and varints.

A batch is 61 bytes of header and then its records, big-endian:

    base offset i64 | batch length i32 | leader epoch i32 | magic i8 | CRC32C u32 | attributes i16 |
    last offset delta i32 | base timestamp i64 | max timestamp i64 | producer id i64 | producer epoch i16 |
    base sequence i32 | record count i32

`batch length` counts what follows it; the checksum covers everything from `attributes` on. A record is
zigzag varints around its key and value:

    length | attributes i8 | timestamp delta | offset delta | key length | key | value length | value |
    header count | headers

Source: https://kafka.apache.org/documentation/#recordbatch. The records' own loops are kernels
(`adledger.pipeline.kernels.walk`, `adledger.pipeline.kernels.encode`).
"""

HEADER_BYTES = 61
LENGTH_FIELD_END = 12
"""Bytes of a batch that its `batch length` does not count."""
RECORD_BYTES_MIN = 7
"""The smallest record: seven one-byte fields, no key, no value, no headers."""
MAGIC = 2
NUMBER_MAX = 2**62
"""Offsets and times beyond this are refused, so that their sums never overflow."""


def varint(value: int) -> bytes:
    """Return a signed integer as a zigzag varint."""
    rest = (value << 1) ^ (value >> 63)
    out = bytearray()
    while rest >= 0x80:
        out.append(rest & 0x7F | 0x80)
        rest >>= 7
    out.append(rest)
    return bytes(out)


def read_varint(data: bytes, at: int, bytes_max: int = 10) -> tuple[int, int]:
    """Return the zigzag varint at `at` and the index after it. Raises ValueError if it does not end."""
    rest = shift = 0
    for i in range(bytes_max):
        if at + i >= len(data):
            raise ValueError("a varint extends beyond the end")
        byte = data[at + i]
        rest |= (byte & 0x7F) << shift
        if byte < 0x80:
            rest &= 2**64 - 1
            return (rest >> 1) ^ -(rest & 1), at + i + 1
        shift += 7
    raise ValueError(f"a varint is longer than {bytes_max} bytes")
