"""The kernels' strings and hashes are those of the libraries and producers that they imitate."""

import ipaddress
import uuid
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.loadtest.real_logs.expected import murmur2 as plain_murmur2
from adledger.loadtest.traffic.kernels.keys import crc32, key_partition, murmur2, put_id, put_ip
from adledger.loadtest.traffic.kernels.memory import put_decimal, put_text

KAFKA_VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
"""From org.apache.kafka.common.utils.UtilsTest.testMurmur2."""

u64 = st.integers(0, 2**64 - 1).map(np.uint64)


def written(put, *args) -> str:
    """Return what a kernel writes."""
    out = np.zeros(128, np.uint8)
    end = put(int(out.ctypes.data), *args)
    return out[: end - out.ctypes.data].tobytes().decode()


def address(data: bytes) -> tuple[np.ndarray, int]:
    kept = np.frombuffer(data + bytes(32), np.uint8)
    return kept, int(kept.ctypes.data)


@pytest.mark.parametrize(("key", "signed"), KAFKA_VECTORS.items())
def test_murmur2_is_kafkas(key: bytes, signed: int):
    """Both murmur2 functions of this package give Kafka's own test vectors."""
    kept, at = address(key)
    assert murmur2(at, len(kept) - 32) == plain_murmur2(key) == signed % 2**32


@given(st.binary(max_size=60), st.integers(1, 100))
def test_hashes_agree_with_their_twins(key: bytes, partitions: int):
    """The compiled murmur2 is the plain one, the compiled CRC-32 is zlib's, and a partition is the hash's remainder."""
    kept, at = address(key)
    assert len(kept) == len(key) + 32
    assert murmur2(at, len(key)) == plain_murmur2(key)
    assert crc32(at, len(key)) == zlib.crc32(key)
    assert key_partition(at, len(key), partitions) == (plain_murmur2(key) & 0x7FFFFFFF) % partitions


@given(st.integers(0, 10**18 - 1))
def test_decimals(value: int):
    """A decimal is what str writes."""
    assert written(put_decimal, value) == str(value)


@given(u64, u64)
def test_addresses(hi: np.uint64, lo: np.uint64):
    """Both kinds of addresses read back as the same numbers."""
    assert int(ipaddress.IPv6Address(written(put_ip, hi, lo, 1))) == int(hi) << 64 | int(lo)
    assert int(ipaddress.IPv4Address(written(put_ip, hi, lo, 0))) == int(lo) & 0xFFFFFFFF


@given(u64, u64)
def test_ids(one: np.uint64, other: np.uint64):
    """Ids are 16 hex digits, or UUIDs, and different numbers give different ids."""
    assert written(put_id, one, 0) == f"{int(one):016x}"
    assert str(uuid.UUID(written(put_id, one, 1))) == written(put_id, one, 1)
    assert (written(put_id, one, 1) == written(put_id, other, 1)) == (one == other)


@given(st.binary(max_size=90))
def test_copied_strings(text: bytes):
    """A string is copied whole, and any excess is after the returned end."""
    kept, at = address(text)
    out = np.zeros(160, np.uint8)
    assert put_text(int(out.ctypes.data), at, len(text)) == out.ctypes.data + len(text)
    assert out[: len(kept) - 32].tobytes() == text
