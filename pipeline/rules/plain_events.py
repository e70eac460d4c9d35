"""The plain twins of the rules that look at one event."""

from dataclasses import dataclass

from adledger.pipeline.kernels import lists
from adledger.pipeline.lists.publishers import PublisherStatus
from adledger.schemas.classes import Reason
from adledger.schemas.wire import Flag


@dataclass(frozen=True, slots=True)
class EventFacts:
    """The facts of one event: what the lists say about it, and its own fields (sides in px, None: not stated)."""

    ua_flags: int
    ip_flags: int
    publisher: PublisherStatus
    flags: int
    width: int | None
    height: int | None


def event_hits(facts: EventFacts, side_px_max: int) -> set[Reason]:
    """Return the rules that an event hits."""
    claim = facts.ua_flags >> lists.UA_CLAIM_SHIFT
    owned = facts.ip_flags >> lists.IP_OWNER_SHIFT >> claim & 1
    says = {
        Reason.UA_BLANK: facts.ua_flags & lists.UA_BLANK,
        Reason.UA_KNOWN_BOT: facts.ua_flags & lists.UA_KNOWN_BOT,
        Reason.UA_NON_BROWSER: facts.ua_flags & lists.UA_NON_BROWSER,
        Reason.IP_DATACENTER: facts.ip_flags & lists.IP_DATACENTER,
        Reason.IP_RESERVED: facts.ip_flags & lists.IP_RESERVED,
        Reason.CRAWLER_IMPOSTOR: claim and not owned,
        Reason.PREFETCH: facts.flags >> Flag.PREFETCH & 1,
        Reason.TEST_TRAFFIC: facts.flags >> Flag.TEST & 1,
        Reason.INVALID_PLACEMENT: any(
            side is not None and side <= side_px_max for side in (facts.width, facts.height)
        ),
        Reason.UNKNOWN_PUBLISHER: facts.publisher == PublisherStatus.UNKNOWN,
        Reason.PUBLISHER_SUSPENDED: facts.publisher == PublisherStatus.SUSPENDED,
    }
    return {reason for reason, said in says.items() if said}
