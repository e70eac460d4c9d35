"""Compiling the lists' kernels before work begins, so that no batch's deadline pays for it."""

import numpy as np

from adledger.pipeline.lists.addresses import AddressLists
from adledger.pipeline.lists.facts import KNOWN_BOTS
from adledger.pipeline.lists.patterns import PatternSet
from adledger.pipeline.lists.publishers import PublisherSnapshot, PublisherStatus
from adledger.pipeline.lists.user_agents import PatternList, UserAgentFlags, UserAgentLists


def compile_kernels() -> None:
    """Run every look-up once on a row of no consequence: compiles, or loads what was compiled before."""
    row = np.zeros(1, np.uint64)
    agents = UserAgentFlags(UserAgentLists(PatternList(KNOWN_BOTS, PatternSet(()), (), ()), ()), 4)
    agents.classify_hashes(row, np.ones(1, np.bool_), lambda _: [b""])
    AddressLists([]).classify(row, row)
    PublisherSnapshot({1: PublisherStatus.ACTIVE}).classify(np.ones(1, np.uint32))
