"""Rules about single events, from the lists and from the event's own fields. One pass.

adledger.pipeline.rules.plain_events has the same rules in plain Python.
"""

import numpy as np

from adledger.pipeline.kernels import lists
from adledger.pipeline.kernels.jit import kernel
from adledger.pipeline.kernels.rules_tables import ONE
from adledger.schemas.classes import Reason
from adledger.schemas.wire import Flag

ACTIVE, SUSPENDED = 1, 2
"""adledger.pipeline.lists.publishers.PublisherStatus; 0 is unknown."""

_UA_BLANK = ONE << np.uint64(Reason.UA_BLANK)
_UA_KNOWN_BOT = ONE << np.uint64(Reason.UA_KNOWN_BOT)
_UA_NON_BROWSER = ONE << np.uint64(Reason.UA_NON_BROWSER)
_IP_DATACENTER = ONE << np.uint64(Reason.IP_DATACENTER)
_IP_RESERVED = ONE << np.uint64(Reason.IP_RESERVED)
_CRAWLER_IMPOSTOR = ONE << np.uint64(Reason.CRAWLER_IMPOSTOR)
_PREFETCH = ONE << np.uint64(Reason.PREFETCH)
_TEST_TRAFFIC = ONE << np.uint64(Reason.TEST_TRAFFIC)
_INVALID_PLACEMENT = ONE << np.uint64(Reason.INVALID_PLACEMENT)
_UNKNOWN_PUBLISHER = ONE << np.uint64(Reason.UNKNOWN_PUBLISHER)
_PUBLISHER_SUSPENDED = ONE << np.uint64(Reason.PUBLISHER_SUSPENDED)
_IS_PREFETCH, _IS_TEST = 1 << int(Flag.PREFETCH), 1 << int(Flag.TEST)
_HAS_WIDTH, _HAS_HEIGHT = 1 << int(Flag.HAS_WIDTH), 1 << int(Flag.HAS_HEIGHT)


@kernel
def event_hits(ua_flags, ip_flags, status, flags, width, height, live, side_px_max, run, hits):
    """Set in hits u64[n] the bits of the rules in `run` (bits) that hit each live row.

    ua_flags u16[n], ip_flags u32[n] (kernels.lists), status u8[n] of the publisher; an ad with a side of at most
    `side_px_max` CSS pixels is invisible.
    """
    for i in range(len(hits)):
        if not live[i]:
            continue
        found = np.uint64(0)
        agent, address = np.int64(ua_flags[i]), np.int64(ip_flags[i])
        if agent & lists.UA_BLANK:
            found |= _UA_BLANK
        if agent & lists.UA_KNOWN_BOT:
            found |= _UA_KNOWN_BOT
        if agent & lists.UA_NON_BROWSER:
            found |= _UA_NON_BROWSER
        if address & lists.IP_DATACENTER:
            found |= _IP_DATACENTER
        if address & lists.IP_RESERVED:
            found |= _IP_RESERVED
        claim = agent >> lists.UA_CLAIM_SHIFT
        if claim and not (address >> (lists.IP_OWNER_SHIFT + claim)) & 1:
            found |= _CRAWLER_IMPOSTOR
        stated = np.int64(flags[i])
        if stated & _IS_PREFETCH:
            found |= _PREFETCH
        if stated & _IS_TEST:
            found |= _TEST_TRAFFIC
        thin = stated & _HAS_WIDTH and width[i] <= side_px_max
        flat = stated & _HAS_HEIGHT and height[i] <= side_px_max
        if thin or flat:
            found |= _INVALID_PLACEMENT
        if status[i] == SUSPENDED:
            found |= _PUBLISHER_SUSPENDED
        elif status[i] != ACTIVE:
            found |= _UNKNOWN_PUBLISHER
        hits[i] |= found & run
