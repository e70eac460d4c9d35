"""Lists of addresses: iporigin's data centres, IANA's reserved ranges, the ranges that crawlers' operators publish."""

import ipaddress
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

import numpy as np

from adledger.pipeline.kernels.lists import IP_DATACENTER, IP_OWNER_SHIFT, IP_RESERVED
from adledger.pipeline.lists.addresses import AddressList
from adledger.pipeline.lists.crawlers import CRAWLERS, Crawler
from adledger.pipeline.lists.facts import (
    ADDRESSES_BACK_DAYS_MAX,
    CRAWLER_RANGES,
    DATACENTRES,
    RESERVED,
    ListFacts,
    NotAsKnownError,
    content_hash,
)
from adledger.pipeline.lists.packaged import Loaded, load_or_missing, own_file, package_file, version_of
from adledger.pipeline.lists.ranges import Range

UNLICENSED = frozenset(
    {"BunnyCDN", "BuyVM", "CDN77", "Cogent", "Contabo", "DataCamp", "GTHost", "GleSYS", "Melbicom", "Scalaxy", "Vercel"}
)  # fmt: skip
"""Providers that iporigin has from a source without a licence (its NOTICE). Cogent also serves offices and homes."""

MACHINES = frozenset({"hosting", "bot"})
"""Kinds in iporigin that no visitor browses from. Relays (vpn, tor) carry visitors, and at times so do edges (cdn)."""

CARRY_PEOPLE = frozenset({"Google"})
"""Of those, providers that visitors browse through: Google's own addresses, apart from its cloud's, hold the relays of
phones' built-in VPN and of its browser."""

_HEADER = struct.Struct("<8sHQHII")
_V4 = np.dtype([("first", "<u4"), ("last", "<u4"), ("label", "<u2")])
_V6 = np.dtype([("first", "V16"), ("last", "V16"), ("label", "<u2")])


@dataclass(frozen=True, slots=True)
class Origins:
    """iporigin's data: ranges with the number of their label, and (provider, kind) of each label."""

    built: date
    version: str
    labels: tuple[tuple[str, str], ...]
    v4: tuple[tuple[int, int, int], ...]
    v6: tuple[tuple[int, int, int], ...]


def read_origins() -> Origins:
    """Read iporigin's file. Raises NotAsKnownError, ImportError, OSError."""
    version = version_of("iporigin")
    data = package_file("iporigin", "data/ranges.bin")
    try:
        return parse_origins(data, version)
    except (ValueError, struct.error, UnicodeDecodeError, IndexError) as e:
        raise NotAsKnownError(f"iporigin {version}: {e}") from e


def parse_origins(data: bytes, version: str) -> Origins:
    """Parse iporigin's format 1. Raises ValueError, struct.error, UnicodeDecodeError."""
    magic, form, built, label_count, v4_count, v6_count = _HEADER.unpack_from(data)
    if (magic, form) != (b"IPORIGIN", 1):
        raise ValueError(f"data of form {magic!r} {form}, not of the form 1 that we know")
    at = _HEADER.size
    labels = []
    for _ in range(label_count):
        (length,) = struct.unpack_from("<H", data, at)
        provider, _, kind = data[at + 2 : at + 2 + length].decode().partition("\t")
        labels.append((provider, kind))
        at += 2 + length
    v4 = np.frombuffer(data, _V4, v4_count, at)
    v6 = np.frombuffer(data, _V6, v6_count, at + v4.nbytes)
    if len(data) != at + v4.nbytes + v6.nbytes:
        raise ValueError(f"{len(data):,} bytes, not as many as its header says")
    if max(v4["label"].max(initial=0), v6["label"].max(initial=0)) >= label_count:
        raise ValueError("a range refers to a label that does not exist")
    return Origins(
        datetime.fromtimestamp(built, UTC).date(),
        version,
        tuple(labels),
        tuple(zip(*(v4[name].tolist() for name in ("first", "last", "label")), strict=True)),
        tuple((_number(r[0]), _number(r[1]), int(r[2])) for r in v6.tolist()),
    )


def _number(sixteen: bytes) -> int:
    return int.from_bytes(sixteen, "big")


def data_centres(age_days_max: int) -> Loaded[AddressList]:
    """Load the addresses of hosting providers and of crawlers."""
    return load_or_missing(
        DATACENTRES, "iporigin", _empty(DATACENTRES, IP_DATACENTER), lambda: _data_centres(age_days_max)
    )


def _data_centres(age_days_max: int) -> Loaded[AddressList]:
    origins = read_origins()
    unused = UNLICENSED | CARRY_PEOPLE
    kept = {n for n, (name, kind) in enumerate(origins.labels) if kind in MACHINES and name not in unused}
    found = _list_of(DATACENTRES, IP_DATACENTER, origins, kept)
    facts = ListFacts(
        DATACENTRES,
        "iporigin",
        "MIT; data of the providers, CC0-1.0",
        origins.version,
        origins.built,
        len(found),
        _content([found]),
        age_days_max,
        ADDRESSES_BACK_DAYS_MAX,
        left_out=len(origins.v4) + len(origins.v6) - len(found),
    )
    return Loaded(facts, found)


def _list_of(name: str, flags: int, origins: Origins, kept: set[int]) -> AddressList:
    v4 = [(r, origins.labels[r[2]][0]) for r in origins.v4 if r[2] in kept]
    v6 = [(r, origins.labels[r[2]][0]) for r in origins.v6 if r[2] in kept]
    return AddressList(
        name,
        flags,
        tuple(r[:2] for r, _ in v4),
        tuple(label for _, label in v4),
        tuple(r[:2] for r, _ in v6),
        tuple(label for _, label in v6),
    )


def reserved() -> Loaded[AddressList]:
    """Load the reserved ranges: ours, so they are always there."""
    data = own_file("reserved.toml")
    found = AddressList.of(
        RESERVED, IP_RESERVED, [(ipaddress.ip_network(net), why) for net, why in data["networks"].items()]
    )
    version = data["date"].isoformat()
    facts = ListFacts(
        RESERVED, data["source"], data["licence"], version, data["date"], len(found), _content([found]), None
    )
    return Loaded(facts, found)


def crawler_ranges(age_days_max: int) -> Loaded[tuple[AddressList, ...]]:
    """Load the ranges of each crawler, in the order of CRAWLERS."""
    return load_or_missing(
        CRAWLER_RANGES, "data/crawlers.toml, iporigin", (), lambda: _crawler_ranges(age_days_max)
    )


def _crawler_ranges(age_days_max: int) -> Loaded[tuple[AddressList, ...]]:
    published, origins = own_file("crawlers.toml"), read_origins()
    found = tuple(_ranges_of(crawler, published[crawler.name], origins) for crawler in CRAWLERS)
    facts = ListFacts(
        CRAWLER_RANGES,
        "data/crawlers.toml, iporigin",
        "facts that the operators publish",
        f"{max(part['date'] for part in published.values())}, iporigin {origins.version}",
        min(part["date"] for part in published.values()),
        sum(len(each) for each in found),
        _content(found),
        age_days_max,
        ADDRESSES_BACK_DAYS_MAX,
    )
    return Loaded(facts, found)


def _ranges_of(crawler: Crawler, published: Mapping[str, Any], origins: Origins) -> AddressList:
    flags = 1 << (IP_OWNER_SHIFT + crawler.number)
    own = AddressList.of(
        CRAWLER_RANGES, flags, [(ipaddress.ip_network(net), crawler.name) for net in published["networks"]]
    )
    kept = {n for n, (name, kind) in enumerate(origins.labels) if kind == "bot" and name in crawler.labels}
    more = _list_of(CRAWLER_RANGES, flags, origins, kept)
    return AddressList(
        CRAWLER_RANGES, flags,
        own.v4 + more.v4, own.v4_names + more.v4_names, own.v6 + more.v6, own.v6_names + more.v6_names,
    )  # fmt: skip


def _content(lists: Sequence[AddressList]) -> str:
    def lines(ranges: Sequence[Range], flags: int, bits: int) -> list[str]:
        return [f"{flags} {bits} {first:x} {last:x}" for first, last in ranges]

    return content_hash(
        line for each in lists for line in (*lines(each.v4, each.flags, 32), *lines(each.v6, each.flags, 128))
    )


def _empty(name: str, flags: int) -> AddressList:
    return AddressList(name, flags, (), (), (), ())
