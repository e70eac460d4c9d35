"""Ranges of addresses into the table that the kernel searches, and the plain twin of that search."""

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from adledger.pipeline.kernels.lists import IP_ALLOWED, IP_OWNED_BY_ALL, AddressTable
from adledger.pipeline.records.columns import U32, U64

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Range = tuple[int, int]

RANGES_MAX = 1 << 20
"""Ranges of all lists together. A million take 40 MB of tables at most; a thousandfold of today's is a mistake."""

V4_BITS, V6_BITS = 32, 128


@dataclass(frozen=True, slots=True)
class Layer:
    """What one list says about addresses: `flags` (kernels.IP_...) for those in its ranges, first and last inclusive."""

    flags: int
    v4: Sequence[Range]
    v6: Sequence[Range]

    @classmethod
    def of(cls, flags: int, networks: Iterable[Network]) -> "Layer":
        """Return the layer of some networks."""
        v4: list[Range] = []
        v6: list[Range] = []
        for net in networks:
            (v4 if net.version == 4 else v6).append((int(net.network_address), int(net.broadcast_address)))
        return cls(flags, v4, v6)


def address_table(layers: Sequence[Layer]) -> AddressTable:
    """Return the table in which each address has the flags of all layers that hold it.

    An allow list wins over all others. Raises ValueError beyond RANGES_MAX ranges.
    """
    count = sum(len(layer.v4) + len(layer.v6) for layer in layers)
    if count > RANGES_MAX:
        raise ValueError(f"{count:,} ranges of addresses, more than {RANGES_MAX:,}")
    v4 = segments(((layer.flags, layer.v4) for layer in layers), V4_BITS)
    v6 = segments(((layer.flags, layer.v6) for layer in layers), V6_BITS)
    return AddressTable(
        _index([start for start, _ in v4], V4_BITS),
        np.array([start for start, _ in v4], np.uint32),
        np.array([value for _, value in v4], np.uint32),
        _index([start for start, _ in v6], V6_BITS),
        np.array([start >> 64 for start, _ in v6], np.uint64),
        np.array([start & (2**64 - 1) for start, _ in v6], np.uint64),
        np.array([value for _, value in v6], np.uint32),
    )


def segments(layers: Iterable[tuple[int, Sequence[Range]]], bits: int) -> list[tuple[int, int]]:
    """Return (start, flags) of the segments that cover all addresses of `bits` bits; neighbours differ.

    A sweep over where ranges begin and end, counting for each layer how many are open.
    """
    steps: list[tuple[int, int, int]] = []
    flags_of: list[int] = []
    for number, (flags, ranges) in enumerate(layers):
        flags_of.append(flags)
        for first, last in ranges:
            steps.append((first, number, 1))
            steps.append((last + 1, number, -1))
    steps.sort()
    open_ranges = [0] * len(flags_of)
    found = [(0, 0)]
    for k, (at, number, change) in enumerate(steps):
        open_ranges[number] += change
        if (k + 1 < len(steps) and steps[k + 1][0] == at) or at == 1 << bits:
            continue
        value = combined(flags for flags, n in zip(flags_of, open_ranges, strict=True) if n)
        if found[-1][0] == at:
            found.pop()
        if not found or found[-1][1] != value:
            found.append((at, value))
    return found


def combined(flags: Iterable[int]) -> int:
    """Return what several lists' flags make together: an allowed address has none that rejects, nor is it an impostor's."""
    value = 0
    for more in flags:
        value |= more
    return IP_ALLOWED | IP_OWNED_BY_ALL if value & IP_ALLOWED else value


def _index(starts: Sequence[int], bits: int) -> U32:
    """Return, for each value of the top 16 bits, the segment of its first address; then the last segment."""
    shift = bits - 16
    tops = np.array([start >> shift for start in starts])
    inside = np.array([start & ((1 << shift) - 1) != 0 for start in starts])
    # A segment that begins at the first address of a bucket is that bucket's first; another, the next bucket's.
    begins = tops + inside
    index = np.searchsorted(begins, np.arange(1 << 16), side="right") - 1
    return np.append(index, len(starts) - 1).astype(np.uint32)


def plain_flags(layers: Sequence[Layer], ip_hi: U64, ip_lo: U64) -> U32:
    """Return the flags of n addresses: the plain twin of the kernel, one address and one range at a time."""
    out = np.zeros(len(ip_hi), np.uint32)
    for i, (hi, lo) in enumerate(zip(ip_hi.tolist(), ip_lo.tolist(), strict=True)):
        address = ipaddress.IPv6Address(hi << 64 | lo)
        mapped = address.ipv4_mapped
        number = int(address if mapped is None else mapped)
        out[i] = combined(
            layer.flags
            for layer in layers
            if any(first <= number <= last for first, last in (layer.v6 if mapped is None else layer.v4))
        )
    return out
