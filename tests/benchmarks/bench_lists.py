"""What the lists cost an event in the steady state: CPU of one core, best of five.

Target: at most 0.1 us an event for user agent and address together.
"""

import time
from collections.abc import Callable
from datetime import date

import numpy as np
import pytest

from adledger.loadtest.traffic.lookup_tables import all_user_agents, bots, datacentres, networks
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.lists.publishers import PublisherSnapshot, PublisherStatus
from adledger.pipeline.lists.user_agents import UserAgentFlags

ROWS = 131_072
RUNS = 5
PUBLISHERS = 400_000

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def lists():
    return load_lists(date(2026, 11, 23), age_days_max=3_650)


@pytest.fixture(scope="module")
def chance():
    return np.random.default_rng(6)


def best_us(work: Callable[[], object], events: int) -> float:
    work()
    seconds = []
    for _ in range(RUNS):
        start = time.thread_time()
        work()
        seconds.append(time.thread_time() - start)
    return min(seconds) / events * 1e6


def addresses(chance, v6_share):
    """Return a batch of visitors from the catalog's networks, 3 % of them from data centres."""
    nets = [net for net, _, _ in networks()[0]]
    families = [[net for net in nets if net.version == version] for version in (4, 6)]
    hosts = datacentres()
    numbers = []
    for draw in chance.random(ROWS):
        pool = hosts if draw < 0.03 else families[int(draw < 0.03 + v6_share)]
        net = pool[chance.integers(len(pool))]
        offset = int.from_bytes(chance.bytes(16), "big") & (net.num_addresses - 1)
        numbers.append(int(net.network_address) + offset + (0xFFFF << 32 if net.version == 4 else 0))
    return (
        np.array([n >> 64 for n in numbers], np.uint64),
        np.array([n & (2**64 - 1) for n in numbers], np.uint64),
    )


def test_addresses(lists, chance):
    """The catalog's visitors with different shares of IPv6, and random addresses."""
    for v6_share in (0.0, 0.35, 1.0):
        hi, lo = addresses(chance, v6_share)
        cost = best_us(lambda hi=hi, lo=lo: lists.addresses.classify(hi, lo), ROWS)
        print(f"addresses, {v6_share:4.0%} IPv6     {cost:.4f} us an event")
    lo = (np.uint64(0xFFFF) << np.uint64(32)) | chance.integers(0, 2**32, ROWS, np.uint64)
    hi = np.zeros(ROWS, np.uint64)
    cost = best_us(lambda: lists.addresses.classify(hi, lo), ROWS)
    print(f"addresses, any IPv4      {cost:.4f} us an event")
    print(f"table {lists.addresses.size_bytes:,} bytes")


def test_user_agents(lists, chance):
    """Flags by hash with few and with many distinct user agents, all of them cached."""
    live = np.ones(ROWS, np.bool_)
    for distinct in (200, 5_000, 30_000):
        agents = chance.integers(0, 2**64, distinct, np.uint64)
        rank = np.minimum(chance.zipf(1.2, ROWS) - 1, distinct - 1)
        hashes = agents[rank]
        texts = [f"Mozilla/5.0 (Linux; Android 13; M{k}) Chrome/131.0".encode() for k in range(distinct)]
        cache = UserAgentFlags(lists.user_agents)
        cache.classify_hashes(
            hashes, live, lambda rows, rank=rank, texts=texts: [texts[k] for k in rank[rows]]
        )
        cost = best_us(lambda h=hashes, c=cache: c.classify_hashes(h, live, lambda _: []), ROWS)
        print(f"user agents, {distinct:6,} seen {cost:.4f} us an event, table {cache.size_bytes:,} bytes")


def test_new_user_agents(lists):
    """What a new user agent costs: browsers, crawlers, libraries, and unknown strings."""
    crawlers, libraries = bots()
    kinds = {
        "browsers": [agent.encode() for agent in all_user_agents()[:150]],
        "bots": [agent.encode() for agent in (*crawlers, *libraries)],
        "no browser anybody knows": [f"Ezooms{k}/1.0; help@moz.com".encode() for k in range(100)],
        "1,024 bytes": [(f"{k} x" * 400)[:1_024].encode() for k in range(100)],
    }
    for kind, texts in kinds.items():
        cost = best_us(lambda t=texts: lists.user_agents.classify(t), len(texts))
        print(f"new: {kind:25} {cost:7.2f} us a text")


def test_publishers(chance):
    """Status of a publisher, of 400,000."""
    snapshot = PublisherSnapshot(dict.fromkeys(range(1, PUBLISHERS + 1), PublisherStatus.ACTIVE))
    ids = np.minimum(chance.zipf(1.1, ROWS), PUBLISHERS).astype(np.uint32)
    cost = best_us(lambda: snapshot.classify(ids), ROWS)
    print(f"publishers               {cost:.4f} us an event, table {snapshot.size_bytes:,} bytes")


def test_loading():
    """All lists from their packages: once for a process, and again with each rule set."""
    cost = best_us(lambda: load_lists(date(2026, 11, 23), age_days_max=365), 1) / 1e6
    print(f"loading                  {cost:.2f} s")
