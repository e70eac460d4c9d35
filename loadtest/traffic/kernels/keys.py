"""Ids and addresses as text, and the partitioners of Kafka's clients, written independently of the pipeline.

murmur2 is org.apache.kafka.common.utils.Utils.murmur2; crc32 is the hash of librdkafka's default partitioner.
"""

import zlib

import numpy as np

from adledger.loadtest.traffic.kernels.draw import mix64
from adledger.loadtest.traffic.kernels.memory import put_byte, put_decimal, put_hex
from adledger.pipeline.kernels.intrinsics import load8, load32
from adledger.pipeline.kernels.jit import inline_kernel

KEY_BYTES_MAX = 48

_CRC32 = np.array([zlib.crc32(bytes([i ^ 0xFF])) ^ 0xFF000000 for i in range(256)], np.uint32)
_M = np.uint32(0x5BD1E995)
_SEED = np.uint32(0x9747B28C)


@inline_kernel
def put_id(at, number, long):
    """Write an id: 16 hex digits, or a UUID of 36 bytes whose first half is computed from the second."""
    if not long:
        return put_hex(at, number, 16)
    more = mix64(number)
    at = put_byte(put_hex(at, more >> np.uint64(32), 8), 45)
    at = put_byte(put_hex(at, more >> np.uint64(16), 4), 45)
    at = put_byte(put_hex(at, more, 4), 45)
    at = put_byte(put_hex(at, number >> np.uint64(48), 4), 45)
    return put_hex(at, number, 12)


@inline_kernel
def _put_group(at, group):
    """Write a group of an IPv6 address, without leading zeros."""
    for digit in range(3, -1, -1):
        nibble = np.int64(group >> np.uint64(4 * digit)) & 15
        if digit == 0 or group >> np.uint64(4 * digit) != np.uint64(0):
            at = put_byte(at, nibble + (48 if nibble < 10 else 87))
    return at


@inline_kernel
def put_ip(at, hi, lo, ip6):
    """Write an address: dotted IPv4, or all eight groups of IPv6 without leading zeros."""
    if not ip6:
        at = put_byte(put_decimal(at, np.int64(lo >> np.uint64(24)) & 255), 46)
        at = put_byte(put_decimal(at, np.int64(lo >> np.uint64(16)) & 255), 46)
        at = put_byte(put_decimal(at, np.int64(lo >> np.uint64(8)) & 255), 46)
        return put_decimal(at, np.int64(lo) & 255)
    for k in range(8):
        half = hi if k < 4 else lo
        if k:
            at = put_byte(at, 58)
        at = _put_group(at, (half >> np.uint64(48 - 16 * (k & 3))) & np.uint64(0xFFFF))
    return at


@inline_kernel
def murmur2(data, n):
    """Return murmur2 of the n bytes at an address with Kafka's seed, as uint32."""
    h = _SEED ^ np.uint32(n)
    whole = n & ~3
    for i in range(0, whole, 4):
        k = np.uint32(np.uint32(load32(data + i)) * _M)
        k ^= k >> np.uint32(24)
        h = np.uint32(h * _M) ^ np.uint32(k * _M)
    rest = n - whole
    if rest == 3:
        h ^= np.uint32(load8(data + whole + 2)) << np.uint32(16)
    if rest >= 2:
        h ^= np.uint32(load8(data + whole + 1)) << np.uint32(8)
    if rest >= 1:
        h = np.uint32((h ^ np.uint32(load8(data + whole))) * _M)
    h ^= h >> np.uint32(13)
    h = np.uint32(h * _M)
    return h ^ (h >> np.uint32(15))


@inline_kernel
def crc32(data, n):
    """Return CRC-32 (zlib's) of the n bytes at an address, as uint32."""
    crc = np.uint32(0xFFFFFFFF)
    for i in range(n):
        crc = _CRC32[(crc ^ np.uint32(load8(data + i))) & np.uint32(255)] ^ (crc >> np.uint32(8))
    return crc ^ np.uint32(0xFFFFFFFF)


@inline_kernel
def key_partition(data, n, partitions):
    """Return the partition that Java's default partitioner picks for the n bytes at an address."""
    return np.int64(murmur2(data, n) & np.uint32(0x7FFFFFFF)) % partitions


@inline_kernel
def crc32_partition(data, n, partitions):
    """Return the partition that librdkafka's default partitioner picks for the n bytes at an address."""
    return np.int64(crc32(data, n)) % partitions
