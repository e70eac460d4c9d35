"""Addresses: data centres, reserved ranges, and crawlers' own ranges."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from adledger.pipeline.kernels import lists as kernels
from adledger.pipeline.lists.ranges import Layer, Network, Range, address_table
from adledger.pipeline.lists.user_agents import Evidence
from adledger.pipeline.records.columns import U16, U32, U64, Bool


@dataclass(frozen=True, slots=True)
class AddressList:
    """Ranges of one list that set the same flags (kernels.IP_...), with the name of each (a provider, a network)."""

    list_name: str
    flags: int
    v4: tuple[Range, ...] = field(repr=False)
    v4_names: tuple[str, ...] = field(repr=False)
    v6: tuple[Range, ...] = field(repr=False)
    v6_names: tuple[str, ...] = field(repr=False)

    @classmethod
    def of(cls, list_name: str, flags: int, networks: Sequence[tuple[Network, str]]) -> Self:
        """Return the list of some networks and their names."""
        v4 = [(net, name) for net, name in networks if net.version == 4]
        v6 = [(net, name) for net, name in networks if net.version == 6]
        return cls(
            list_name,
            flags,
            tuple(_range(net) for net, _ in v4),
            tuple(name for _, name in v4),
            tuple(_range(net) for net, _ in v6),
            tuple(name for _, name in v6),
        )

    def __len__(self) -> int:
        return len(self.v4) + len(self.v6)


def _range(net: Network) -> Range:
    return int(net.network_address), int(net.broadcast_address)


class AddressLists:
    """The lists of addresses as one table. Immutable and safe to use in several threads."""

    def __init__(self, lists: Sequence[AddressList]) -> None:
        self.lists = tuple(lists)
        self._table = address_table([Layer(each.flags, each.v4, each.v6) for each in lists])

    @property
    def size_bytes(self) -> int:
        """Bytes of memory of the table (without the ranges and names behind `explain`)."""
        return sum(column.nbytes for column in self._table)

    def classify(self, ip_hi: U64, ip_lo: U64) -> U32:
        """Return the flags (kernels.IP_...) of n addresses, as EventColumns keeps them."""
        flags = np.empty(len(ip_hi), np.uint32)
        kernels.address_flags(self._table, ip_hi, ip_lo, flags)
        return flags

    def explain(self, ip_hi: int, ip_lo: int) -> tuple[Evidence, ...]:
        """Return the entries that hold an address."""
        address = ipaddress.IPv6Address(ip_hi << 64 | ip_lo)
        mapped = address.ipv4_mapped
        number = int(address if mapped is None else mapped)
        bits = 128 if mapped is None else 32
        return tuple(
            Evidence(each.list_name, f"{name} {_text(first, last, bits)}")
            for each in self.lists
            for (first, last), name in zip(
                *((each.v6, each.v6_names) if mapped is None else (each.v4, each.v4_names)), strict=True
            )
            if first <= number <= last
        )


def _text(first: int, last: int, bits: int) -> str:
    kind = ipaddress.IPv4Address if bits == 32 else ipaddress.IPv6Address
    nets = list(ipaddress.summarize_address_range(kind(first), kind(last)))
    return str(nets[0]) if len(nets) == 1 else f"{kind(first)}-{kind(last)}"


def impostors(ua_flags: U16, ip_flags: U32) -> Bool:
    """Return which rows claim to be a crawler from an address that is not its operator's."""
    claim = (ua_flags >> kernels.UA_CLAIM_SHIFT).astype(np.uint32)
    owns = (ip_flags >> (claim + np.uint32(kernels.IP_OWNER_SHIFT))) & np.uint32(1)
    return (claim != 0) & (owns == 0)
