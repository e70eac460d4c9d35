"""The compiled hashes equal their plain twins, and those equal published values."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from adledger.pipeline.kernels.hashing import hash_all
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.stages.plain_hashes import int_hash64, murmur2, partition_of, splitmix64, xxh64


@given(st.lists(st.binary(max_size=150), max_size=10), st.integers(1, 1000))
@example([bytes(range(n)) for n in range(130)], 16)
def test_kernels_equal_their_twins(texts, partitions):
    """Law: xxHash64 and murmur2's partition equal the twins', for every length."""
    refs = RecordRefs.of(texts, [None] * len(texts))
    hashes, parts = np.zeros(len(texts), np.uint64), np.zeros(len(texts), np.uint64)
    hash_all(refs.value_addr, refs.value_len.astype(np.int64), np.uint64(partitions), hashes, parts)
    assert hashes.tolist() == [xxh64(text) for text in texts]
    assert parts.tolist() == [partition_of(text, partitions) for text in texts]


@pytest.mark.parametrize(
    ("text", "signed"),
    [
        (b"21", -973932308),
        (b"foobar", -790332482),
        (b"a-little-bit-long-string", -985981536),
        (b"a-little-bit-longer-string", -1486304829),
        (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971),
        (b"abc", 479470107),
    ],
)
def test_murmur2_is_kafkas(text, signed):
    """Law: murmur2 gives what Kafka's own test expects (org.apache.kafka.common.utils.UtilsTest)."""
    assert murmur2(text) == signed % 2**32


def test_hashes_of_others():
    """Law: xxh64 is ClickHouse's xxHash64(), int_hash64 its intHash64() (26.9), and
    splitmix64 the published generator's (seeds 0 and golden)."""
    assert xxh64(b"") == 17241709254077376921
    assert xxh64(b"u123") == 12641147614113064100
    assert [int_hash64(0), int_hash64(2**64 - 1)] == [4761183170873013810, 14600443904207254319]
    assert [splitmix64(0), splitmix64(0x9E3779B97F4A7C15)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]
