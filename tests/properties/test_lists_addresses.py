"""Addresses and publishers: the tables equal the definition, whatever the lists hold."""

import ipaddress

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from adledger.pipeline.kernels import lists as kernels
from adledger.pipeline.lists.addresses import AddressList, AddressLists, impostors
from adledger.pipeline.lists.publishers import PublisherRow, PublisherSnapshot, PublisherStatus
from adledger.pipeline.lists.ranges import Layer, plain_flags

MAPPED = 0xFFFF << 32
FLAGS = st.sampled_from(
    [kernels.IP_DATACENTER, kernels.IP_RESERVED, kernels.IP_ALLOWED, 1 << 8, 1 << 9, (1 << 31) | 1]
)
EDGES_V4 = st.sampled_from([0, 1, 0xFFFF, 0x1_0000, 0x7FFF_FFFF, 0x8000_0000, 2**32 - 2, 2**32 - 1])
EDGES_V6 = st.sampled_from(
    [
        0,
        1,
        MAPPED - 1,
        MAPPED,
        MAPPED + 2**32 - 1,
        MAPPED + 2**32,
        2**64 - 1,
        2**64,
        2**112 - 1,
        2**112,
        2**128 - 1,
    ]
)
V4 = EDGES_V4 | st.integers(0, 2**32 - 1) | st.integers(0x0A00_0000, 0x0A00_0040)
V6 = EDGES_V6 | st.integers(0, 2**128 - 1) | st.integers(0x2001_0DB8 << 96, (0x2001_0DB8 << 96) + 64)


def ranges_of(numbers):
    return st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))


LAYERS = st.lists(
    st.builds(Layer, FLAGS, st.lists(ranges_of(V4), max_size=6), st.lists(ranges_of(V6), max_size=6)),
    max_size=5,
)


def columns(numbers):
    return (
        np.array([n >> 64 for n in numbers], np.uint64),
        np.array([n & (2**64 - 1) for n in numbers], np.uint64),
    )


def around(layers):
    """Return every edge of every range, one before and one after, as IPv6 numbers."""
    for layer in layers:
        for first, last in layer.v4:
            yield from (MAPPED + n for n in (first - 1, first, last, last + 1) if 0 <= n < 2**32)
        for first, last in layer.v6:
            yield from (n for n in (first - 1, first, last, last + 1) if 0 <= n < 2**128)


@given(LAYERS, st.lists(V4.map(lambda n: MAPPED + n) | V6, max_size=30))
@example([Layer(1, [(0, 2**32 - 1)], [(0, 2**128 - 1)])], [0, MAPPED, 2**128 - 1])
@example([Layer(1, [(5, 9), (5, 5), (7, 20)], []), Layer(4, [(8, 8)], [])], [MAPPED + n for n in range(25)])
def test_the_table_equals_the_definition(layers, numbers):
    """An address has the flags of all ranges that hold it, at every edge too; an allow list removes every rejecting flag."""
    hi, lo = columns([*numbers, *around(layers)])
    lists = AddressLists(
        [
            AddressList(
                str(k),
                layer.flags,
                tuple(layer.v4),
                ("",) * len(layer.v4),
                tuple(layer.v6),
                ("",) * len(layer.v6),
            )
            for k, layer in enumerate(layers)
        ]
    )
    np.testing.assert_array_equal(lists.classify(hi, lo), plain_flags(layers, hi, lo))


@given(st.lists(st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 32)), max_size=8), V4)
def test_an_address_is_explained_by_the_networks_that_hold_it(networks, number):
    """`explain` names exactly the entries that Python's ipaddress finds."""
    nets = [ipaddress.ip_network((base, prefix), strict=False) for base, prefix in networks]
    found = AddressLists([AddressList.of("all", 1, [(net, "n") for net in nets])]).explain(0, MAPPED + number)
    address = ipaddress.IPv4Address(number)
    assert [evidence.entry for evidence in found] == [f"n {net}" for net in nets if address in net]


@given(st.lists(st.tuples(st.integers(0, 24), st.integers(0, 24), st.integers(0, 255)), max_size=20))
def test_an_impostor_claims_a_crawler_and_is_not_at_its_address(rows):
    """A user agent without a claim is none; one with a claim is, unless the address is of exactly that crawler."""
    ua = np.array([claim << 8 | other & 0x7F for claim, _, other in rows], np.uint16)
    ip = np.array([(1 << (7 + owner) if owner else 0) | other & 7 for _, owner, other in rows], np.uint32)
    expected = [claim not in (0, owner) for claim, owner, _ in rows]
    assert impostors(ua, ip).tolist() == expected


IDS = st.sampled_from([0, 1, 2**31, 2**32 - 1]) | st.integers(0, 50) | st.integers(0, 2**32 - 1)
KNOWN = st.sampled_from([PublisherStatus.ACTIVE, PublisherStatus.SUSPENDED])


@given(st.dictionaries(IDS, KNOWN, max_size=100), st.lists(IDS, max_size=50))
def test_publishers_equal_a_dictionary(statuses, asked):
    """The look-up finds each publisher's status, and UNKNOWN for the rest; the version depends on the contents alone."""
    snapshot = PublisherSnapshot(statuses)
    asked = [*asked, *statuses]
    found = snapshot.classify(np.array(asked, np.uint32)).tolist()
    assert found == [statuses.get(each, PublisherStatus.UNKNOWN) for each in asked]
    assert len(snapshot) == len(statuses)
    assert snapshot.version == PublisherSnapshot(dict(reversed(statuses.items()))).version
    assert (snapshot.why_not == "") == bool(statuses)


@given(st.lists(st.tuples(st.integers(0, 5), KNOWN), max_size=30), st.randoms(use_true_random=False))
def test_the_highest_version_of_a_publisher_counts(changes, shuffle):
    """Rows may come in any order, and the newest of each publisher counts."""
    rows = [PublisherRow(each, status, version) for version, (each, status) in enumerate(changes)]
    shuffle.shuffle(rows)
    assert PublisherSnapshot.of(rows).version == PublisherSnapshot(dict(changes)).version
