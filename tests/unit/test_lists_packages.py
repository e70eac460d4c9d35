"""Packaged lists recognise what they are for, tag no honest visitor, and report when they can't be used."""

import ipaddress
import json
from collections import Counter
from datetime import date, timedelta
from gzip import open as gzip_open
from importlib import resources
from pathlib import Path

import crawlerdetect
import numpy as np
import pytest

from adledger.loadtest.traffic.lookup_tables import bots, datacentres, networks, user_agents
from adledger.pipeline.importing.access_log import AccessLog
from adledger.pipeline.kernels import lists as kernels
from adledger.pipeline.lists import known_addresses, known_agents
from adledger.pipeline.lists.addresses import AddressList, AddressLists, impostors
from adledger.pipeline.lists.crawlers import CRAWLERS, claimed
from adledger.pipeline.lists.detectors import ByPatterns
from adledger.pipeline.lists.facts import (
    CRAWLER_RANGES,
    DATACENTRES,
    KNOWN_BOTS,
    NEEDED_BY,
    PACKAGED,
    RESERVED,
    ListState,
)
from adledger.pipeline.lists.known_addresses import UNLICENSED, parse_origins, read_origins
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.lists.publishers import PublisherSnapshot, PublisherStatus
from adledger.pipeline.lists.user_agents import UserAgentFlags
from adledger.pipeline.lists.warm import compile_kernels
from adledger.schemas.classes import Reason

DAY = date(2026, 11, 23)
LOG = Path(__file__).resolve().parents[2] / "loadtest/real_logs/apache_access.log.gz"
REJECTS = kernels.UA_BLANK | kernels.UA_KNOWN_BOT | kernels.UA_NON_BROWSER


@pytest.fixture(scope="module")
def lists():
    return load_lists(DAY, age_days_max=365)


def address_columns(addresses):
    numbers = [
        int(a) if a.version == 6 else 0xFFFF << 32 | int(a) for a in map(ipaddress.ip_address, addresses)
    ]
    return (
        np.array([n >> 64 for n in numbers], np.uint64),
        np.array([n & (2**64 - 1) for n in numbers], np.uint64),
    )


def flags_of(lists, *addresses):
    return lists.addresses.classify(*address_columns(addresses)).tolist()


def test_every_packaged_list_is_there_and_usable(lists):
    """All lists load, none is missing or too old, and each reason that needs lists names existing ones."""
    assert [facts.name for facts in lists.facts] == list(PACKAGED)
    for facts in lists.facts:
        assert facts.state(DAY) in (ListState.FRESH, ListState.AGEING), facts
        assert facts.entries > 0
        assert facts.licence
        assert lists.available(facts.name)
    for reason, needed in NEEDED_BY.items():
        assert reason in Reason.__members__
        assert lists.why_not(needed) == ""


def test_every_example_of_the_known_bots_is_recognised(lists):
    """The set matches every entry's own examples: RE2's memory limit loses none."""
    entries = json.loads(
        resources.files("crawleruseragents").joinpath("crawler-user-agents.json").read_text("utf-8")
    )
    examples = [example.encode() for entry in entries for example in entry["instances"]]
    missed = [
        e for e, f in zip(examples, lists.user_agents.classify(examples), strict=True) if not f & REJECTS
    ]
    assert missed == []


def test_the_detector_in_re2_equals_the_package():
    """crawlerdetect's patterns in RE2 match what the package itself matches, on bots and on browsers."""
    entries = json.loads(
        resources.files("crawleruseragents").joinpath("crawler-user-agents.json").read_text("utf-8")
    )
    texts = [*user_agents()[0], *(entry["instances"][0] for entry in entries[::3] if entry["instances"])]
    ours, theirs = ByPatterns(), crawlerdetect.CrawlerDetect()
    assert [ours(text) for text in texts] == [theirs.is_crawler(text) for text in texts]


def test_no_browser_of_the_catalog_is_tagged(lists):
    """The user agents of the generator's honest visitors have no flag."""
    agents = [agent.encode() for agent in user_agents()[0]]
    assert not lists.user_agents.classify(agents).any()


def test_bots_of_the_catalog_are_what_they_say(lists):
    """Crawlers are known bots that claim their operator; libraries and headless browsers are non-browsers."""
    crawlers, libraries = bots()
    flags = lists.user_agents.classify([text.encode() for text in crawlers])
    assert (flags & kernels.UA_KNOWN_BOT).all()
    assert [int(f) >> 8 for f in flags] == [claimed(text) for text in crawlers]
    assert {int(f) >> 8 for f in flags} == {1, 2, 3, 4}
    assert (lists.user_agents.classify([t.encode() for t in libraries]) & kernels.UA_NON_BROWSER).all()


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        (b"", kernels.UA_BLANK),
        (b" \t ", kernels.UA_BLANK),
        (b"-", kernels.UA_BLANK),
        (b"curl/8.5.0", kernels.UA_NON_BROWSER),
        (b"UniversalFeedParser/4.2 +http://feedparser.org/", kernels.UA_NON_BROWSER),
        (b"facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", kernels.UA_KNOWN_BOT),
        (b"Feedly/1.0 (+http://www.feedly.com/fetcher.html; like FeedFetcher-Google)", kernels.UA_KNOWN_BOT),
        ("\U0001f6d2 caf\u00e9 Googlebot/2.1".encode(), kernels.UA_KNOWN_BOT | 1 << kernels.UA_CLAIM_SHIFT),
        (b"x" * 1024, 0),
        (b"SAMSUNG-GT-E2232/1.0 Openwave/6.2.3 Profile/MIDP-2.0 UP.Browser/6.2.3.3.c.1.101 (GUI) MMP/2.0", 0),
        (b"Lynx/2.8.9rel.1 libwww-FM/2.14 SSL-MM/1.4.1 OpenSSL/1.1.1", 0),
        (b"Mozilla/5.0 (Linux; Android 12; CUBOT KINGKONG 7) AppleWebKit/537.36 Chrome/124.0.0.0 Mobile Safari/537.36", 0),
        (b"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148 [FBAN/FBIOS;FBAV/465]", 0),
    ],
)  # fmt: skip
def test_user_agents_by_kind(lists, text, flags):
    """Blank strings, libraries, bots and claimed crawlers are tagged; phones, text browsers and in-app browsers are not."""
    assert lists.user_agents.classify([text]).tolist() == [flags]
    assert bool(lists.user_agents.explain(text)) == bool(flags)


def test_like_googlebot_is_not_a_claim():
    """`like Googlebot` asks for equal treatment and claims nothing; of several claims the first counts."""
    assert claimed("Mozilla/5.0 (compatible; archive.org_bot; like Googlebot)") == 0
    assert claimed("Mozilla/5.0 (compatible; bingbot/2.0; like Googlebot)") == 2
    assert claimed("googlebot bingbot") == 1


def test_on_the_real_log_a_quarter_are_bots_and_no_browser_is_tagged(lists):
    """In the access log 20 to 29 % of hits have a tagged user agent, and no string that looks like a browser is tagged."""
    with gzip_open(LOG, "rb") as file:
        records = AccessLog().parse(file.read().split(b"\n"), 1)
    counts = Counter()
    for record in records:
        try:
            counts[json.loads(record.value)["user_agent"].encode()] += 1
        except (ValueError, KeyError):
            continue
    tagged = lists.user_agents.classify(list(counts)) & REJECTS != 0
    share = sum(n for (_, n), hit in zip(counts.items(), tagged, strict=True) if hit) / counts.total()
    assert 0.20 <= share <= 0.29
    words = (b"bot", b"slurp", b"preview", b"http", b"spider", b"phantom", b"google", b"fetch", b"proxy")
    for text, hit in zip(counts, tagged, strict=True):
        if hit and text.startswith(b"Mozilla/") and (b"Gecko" in text or b"MSIE" in text):
            assert any(word in text.lower() for word in words), text


def test_the_catalogs_networks_are_consumers(lists):
    """No block of the generator's honest networks, nor the one of the Open Bandit mapping, overlaps a list's range."""
    honest = [net for net, _, _ in networks()[0]] + [ipaddress.ip_network("126.0.0.0/8")]
    for net in honest:
        first, last = int(net.network_address), int(net.broadcast_address)
        for each in lists.addresses.lists:
            ranges = each.v4 if net.version == 4 else each.v6
            assert not any(low <= last and first <= high for low, high in ranges), (net, each.list_name)


def test_the_catalogs_data_centres_are_found(lists):
    """Of each data-centre block over 98 % of addresses are a data centre's."""
    chance = np.random.default_rng(6)
    for net in datacentres():
        bits = net.max_prefixlen - net.prefixlen
        tries = [net[int.from_bytes(chance.bytes(16), "big") & ((1 << bits) - 1)] for _ in range(400)]
        share = np.mean([flags & kernels.IP_DATACENTER != 0 for flags in flags_of(lists, *tries)])
        assert share > 0.98, net


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "169.254.1.1", "172.31.255.255", "192.0.2.1", "192.168.0.1",
     "198.19.0.1", "198.51.100.7", "203.0.113.9", "224.0.0.1", "255.255.255.255", "::", "::1", "fe80::1", "fd00::1",
     "ff02::1", "2001:db8::1", "3fff::1", "100::1", "4000::1", "fec0::1"],
)  # fmt: skip
def test_reserved_addresses(lists, address):
    """Addresses that no visitor can have are reserved, in both families."""
    assert flags_of(lists, address)[0] & kernels.IP_RESERVED


@pytest.mark.parametrize(
    "address", ["8.8.4.4", "1.1.1.1", "126.0.0.1", "172.32.0.1", "100.128.0.1", "11.0.0.1", "192.0.0.9", "223.255.255.255",
                "2003:c0::1", "2a00:23c0::1", "64:ff9b::1.2.3.4", "2001::1", "2002:101:101::1"],
)  # fmt: skip
def test_public_addresses_are_not_reserved(lists, address):
    """Public addresses, and IPv4 visitors inside IPv6, are not."""
    assert not flags_of(lists, address)[0] & kernels.IP_RESERVED


def test_reserved_ranges_agree_with_python(lists):
    """Every IPv4 address that Python's ipaddress calls private or multicast is reserved, and no global one is."""
    known_apart = {"192.0.0.0/24", "192.88.99.0/24"}  # anycast and AMT inside; 6to4 relays
    firsts = [
        net.network_address
        for net in ipaddress.ip_network("0.0.0.0/0").subnets(new_prefix=14)
        if not any(net.overlaps(ipaddress.ip_network(apart)) for apart in known_apart)
    ]
    for first, flags in zip(firsts, flags_of(lists, *map(str, firsts)), strict=True):
        assert bool(flags & kernels.IP_RESERVED) == (not first.is_global or first.is_multicast), first


def test_relays_and_unlicensed_providers_are_left_out():
    """Relays carry human traffic, and data that iporigin has without a licence is not used."""
    origins = read_origins()
    names = set(known_addresses.data_centres(365).value.v4_names)
    assert not names & UNLICENSED
    assert not names & {"Google", "Apple Private Relay", "Mullvad", "Tor", "Cloudflare", "Fastly"}
    assert {name for name, _ in origins.labels} >= UNLICENSED, (
        "the package's labels have changed: look at its NOTICE"
    )


def test_crawlers_own_ranges_are_theirs_alone(lists):
    """Googlebot in its own ranges is no impostor; elsewhere it is, and so is bingbot in Google's."""
    google, bing, yandex, home = "66.249.66.1", "157.55.39.1", "5.255.253.1", "86.128.10.23"
    agents = [
        b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
        b"Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
        b"Mozilla/5.0 (compatible; YandexBot/3.0; +http://yandex.com/bots)",
        b"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/131.0.0.0 Safari/537.36",
    ]
    ua = lists.user_agents.classify(agents)
    for address, owner in ((google, 0), (bing, 1), (yandex, 2), (home, -1)):
        ip = np.full(4, flags_of(lists, address)[0], np.uint32)
        assert impostors(ua, ip).tolist() == [k < 3 and k != owner for k in range(4)], address


def test_crawlers_fit_their_bits():
    """Numbers count from 1 with one bit each; each crawler has ranges, none of them wide or reserved."""
    assert [crawler.number for crawler in CRAWLERS] == list(range(1, len(CRAWLERS) + 1))
    assert len(CRAWLERS) <= kernels.CRAWLERS_MAX
    reserved = AddressLists([known_addresses.reserved().value])
    for each in known_addresses.crawler_ranges(365).value:
        assert len(each) > 0
        for first, last in each.v4:
            assert last - first < 1 << 15, ipaddress.ip_address(first)
        both = [ipaddress.ip_address(n) for n, _ in each.v4] + [ipaddress.IPv6Address(n) for n, _ in each.v6]
        assert not reserved.classify(*address_columns(both)).any()


def test_an_old_list_is_not_available_and_changes_the_version(lists):
    """The date that is passed in decides availability, and availability is part of the version."""
    later = load_lists(DAY + timedelta(days=2_000), age_days_max=365)
    assert not later.available(KNOWN_BOTS)
    assert later.available(RESERVED)
    assert "older than 365 days" in later.why_not(NEEDED_BY["IP_DATACENTER"])
    assert later.version != lists.version
    assert load_lists(DAY + timedelta(days=1), age_days_max=365).version == lists.version


def test_address_lists_are_not_used_for_old_logs(lists):
    """Address lists are not used for log days years before their date; lists of names are."""
    old, young = date(2015, 5, 17), date(2025, 1, 1)
    assert lists.why_not((DATACENTRES,), old)
    assert lists.why_not((CRAWLER_RANGES,), old)
    assert not lists.why_not((KNOWN_BOTS, RESERVED), old)
    assert not any(lists.why_not(needed, young) for needed in NEEDED_BY.values())


@pytest.mark.parametrize("spoil", [b"", b"IPORIGIN", b"XPORIGIN" + bytes(40), "cut", "form", "label"])
def test_data_of_another_form_makes_the_list_missing(monkeypatch, spoil):
    """A package whose data has an unknown form is a missing list with a reason, never half a list or a crash."""
    good = resources.files("iporigin").joinpath("data/ranges.bin").read_bytes()
    data = {
        "cut": good[:-1],
        "form": good[:8] + b"\x02\x00" + good[10:],
        "label": good[:-2] + b"\xff\xff",
    }.get(spoil, spoil)
    monkeypatch.setattr(known_addresses, "package_file", lambda *_: data)
    loaded = known_addresses.data_centres(365)
    assert loaded.facts.state(DAY) is ListState.MISSING
    assert "iporigin" in loaded.facts.problem
    assert len(loaded.value) == 0
    assert parse_origins(good, "1").labels


def test_a_package_that_is_not_there_makes_the_list_missing(monkeypatch):
    """The list of a package that is not installed is reported as missing."""

    def absent(name):
        raise ImportError(f"no package {name}")

    monkeypatch.setattr(known_agents, "version_of", absent)
    loaded = known_agents.known_bots(365)
    assert loaded.facts.why_not(DAY) == "the list known-bots is missing: no package crawler-user-agents"
    assert loaded.value.patterns.matches(b"Googlebot/2.1") == ()


def test_explanations_name_the_entry(lists):
    """Evidence names the list and the entry that matched."""
    hi, lo = address_columns(["3.208.0.1"])
    (found,) = lists.addresses.explain(int(hi[0]), int(lo[0]))
    assert found.list_name == DATACENTRES
    assert "Amazon" in found.entry
    assert lists.user_agents.explain(b"curl/8.5.0")[0].entry == "^curl"
    own = AddressLists(
        [AddressList.of("office", kernels.IP_ALLOWED, [(ipaddress.ip_network("2001:db8::/32"), "office")])]
    )
    assert own.explain(0x2001_0DB8 << 32, 1)[0].entry == "office 2001:db8::/32"


def test_kernels_are_compiled_by_their_warm_up():
    """After the warm-up a real batch's columns need no further compilation."""
    compile_kernels()
    compiled = (kernels.address_flags, kernels.cached_flags, kernels.enter_flags, kernels.publisher_statuses)
    before = [len(kernel.signatures) for kernel in compiled]
    rows = np.arange(100, dtype=np.uint64)
    AddressLists([known_addresses.reserved().value]).classify(rows, rows)
    PublisherSnapshot({1: PublisherStatus.ACTIVE}).classify(rows.astype(np.uint32))
    lists = load_lists(DAY, age_days_max=365).user_agents
    UserAgentFlags(lists, 16).classify_hashes(rows, rows > 3, lambda asked: [b"curl/8"] * len(asked))
    assert [len(kernel.signatures) for kernel in compiled] == before
