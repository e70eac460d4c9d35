"""The catalogs hold what honest people use, so whatever the rules tag among them is a false positive."""

import itertools
import re

from adledger.loadtest.traffic.lookup_tables import networks, user_agents


def test_networks_are_public_and_disjoint():
    """Every block is public, overlaps no other, has a country and a weight, and has room for /64 households."""
    nets, homes = networks()
    assert 0 < homes < len(nets)
    for net, country, weight in nets:
        assert net.is_global
        assert not net.is_multicast
        assert re.fullmatch("[A-Z]{2}", country)
        assert weight > 0
        assert net.prefixlen <= (64 if net.version == 6 else 24)
    for (one, *_), (other, *_) in itertools.combinations(nets, 2):
        assert one.version != other.version or not one.overlaps(other)


def test_user_agents_are_browsers():
    """Each string is a browser's, occurs once, is plain ASCII within the contract's length, and has a weight."""
    agents, weights, desktops = user_agents()
    assert len(set(agents)) == len(agents) > 100
    assert 0 < desktops < len(agents)
    assert min(weights) > 0
    for agent in agents:
        assert agent.startswith("Mozilla/5.0 (")
        assert agent.isascii()
        assert '"' not in agent
        assert "\\" not in agent
        assert len(agent) < 300
        assert not re.search(r"bot|crawl|spider|headless|curl|python|java/|http", agent, re.IGNORECASE)
