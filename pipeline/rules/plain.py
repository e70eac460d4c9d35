"""The plain twins of the windowed rules: each a function of the events of its lane before this one, by definition.

They remember nothing but the events themselves; a test compares the windows' kernels with them, event by event.
`earlier` are the lane's non-duplicate events before the one that is evaluated, in the lane's order.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from adledger.pipeline.rules.clicks import MINUTE_MS
from adledger.schemas.classes import Reason
from adledger.schemas.wire import EventType

Params = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class EventView:
    """An event as the rules see it. `clock`: the watermark (ms) at it; `user` is 0 where `cookieless`."""

    event_type: int
    event_time: int
    clock: int
    publisher: int
    campaign: int
    creative: int
    id_hash: int
    impression_hash: int
    user: int
    cookieless: bool
    ip: int
    ua_hash: int
    duplicate: bool = False

    @property
    def person(self) -> tuple[int, ...]:
        """Who did it: the user, or the address and user agent where there is none."""
        return (self.ip, self.ua_hash) if self.cookieless else (self.user,)

    @property
    def network(self) -> tuple[int, int]:
        """The network of the address: /24 of IPv4, /64 of IPv6."""
        return (4, self.ip >> 8) if self.ip >> 32 == 0xFFFF else (6, self.ip >> 64)


def within(earlier: Sequence[EventView], event: EventView, window_ms: int) -> Iterator[EventView]:
    """Yield the earlier events in the window, the newest first."""
    return (e for e in reversed(earlier) if event.clock - e.clock <= window_ms)


def impression_of(earlier: Sequence[EventView], event: EventView, horizon_ms: int) -> EventView | None:
    """Return a click's impression: the newest of its publisher with the id, or else the newest that the person saw."""
    shown = [
        e
        for e in within(earlier, event, horizon_ms)
        if e.event_type == EventType.IMPRESSION and e.id_hash == event.impression_hash
    ]
    own = next((e for e in shown if e.publisher == event.publisher), None)
    return own or next((e for e in shown if e.person == event.person), None)


def gap_ms(event: EventView, impression: EventView) -> int:
    """Return how long after its impression a click came, by log time where event times say that it came first."""
    gap = event.event_time - impression.event_time
    return gap if gap >= 0 else event.clock - impression.clock


def click_no_impression(earlier: Sequence[EventView], event: EventView, p: Params) -> bool:
    """Tag a click without its impression in the lane within the horizon."""
    is_click = event.event_type == EventType.CLICK
    return is_click and impression_of(earlier, event, p["horizon_minutes"] * MINUTE_MS) is None


def click_too_fast(earlier: Sequence[EventView], event: EventView, p: Params) -> bool:
    """Tag a click less than `gap_min_ms` after its impression."""
    shown = impression_of(earlier, event, p["horizon_minutes"] * MINUTE_MS)
    return (
        event.event_type == EventType.CLICK and shown is not None and gap_ms(event, shown) < p["gap_min_ms"]
    )


def click_too_late(earlier: Sequence[EventView], event: EventView, p: Params) -> bool:
    """Tag a click more than `gap_max_minutes` after its impression."""
    shown = impression_of(earlier, event, p["horizon_minutes"] * MINUTE_MS)
    gap_max_ms = p["gap_max_minutes"] * MINUTE_MS
    return event.event_type == EventType.CLICK and shown is not None and gap_ms(event, shown) > gap_max_ms


def click_mismatch(earlier: Sequence[EventView], event: EventView, p: Params) -> bool:
    """Tag a click of another publisher or campaign than its impression."""
    shown = impression_of(earlier, event, p["horizon_minutes"] * MINUTE_MS)
    if event.event_type != EventType.CLICK or shown is None:
        return False
    return (shown.publisher, shown.campaign) != (event.publisher, event.campaign)


def last_click(earlier: Sequence[EventView], event: EventView, horizon_ms: int) -> EventView | None:
    """Return the newest click of a click's person on its creative (and impression, without a cookie)."""

    def what(e: EventView) -> tuple[object, ...]:
        return e.event_type, e.person, e.creative, e.impression_hash if e.cookieless else None

    return next((e for e in within(earlier, event, horizon_ms) if what(e) == what(event)), None)


def double_click(earlier: Sequence[EventView], event: EventView, p: Params) -> bool:
    """Tag a click at most `within_ms`, by event time, from the last of its person on its creative."""
    if event.event_type != EventType.CLICK or event.duplicate:
        return False
    last = last_click(earlier, event, p["horizon_minutes"] * MINUTE_MS)
    return last is not None and abs(event.event_time - last.event_time) <= p["within_ms"]


def clicks_on_impression(earlier: Sequence[EventView], event: EventView, window_ms: int) -> list[EventView]:
    """Return the clicks in the window on a click's impression."""
    return [
        e
        for e in within(earlier, event, window_ms)
        if e.event_type == EventType.CLICK
        and (e.publisher, e.impression_hash) == (event.publisher, event.impression_hash)
    ]


def repeat_click(earlier: Sequence[EventView], event: EventView, p: Params) -> bool:
    """Tag a click with `clicks_max` or more on the same impression before it in the window."""
    if event.event_type != EventType.CLICK or event.duplicate:
        return False
    return len(clicks_on_impression(earlier, event, p["window_minutes"] * MINUTE_MS)) >= p["clicks_max"]


def of_user(earlier: Sequence[EventView], event: EventView, window_ms: int) -> list[EventView]:
    """Return the user's events in the window, the newest first."""
    return [e for e in within(earlier, event, window_ms) if not e.cookieless and e.user == event.user]


def user_velocity(earlier: Sequence[EventView], event: EventView, p: Params) -> bool:
    """Tag an event with `events_max` or more of its user before it, or a click with `clicks_max` or more clicks."""
    if event.cookieless or event.duplicate:
        return False
    if len(of_user(earlier, event, p["window_seconds"] * 1000)) >= p["events_max"]:
        return True
    before = of_user(earlier, event, p["clicks_window_minutes"] * MINUTE_MS)
    clicks = sum(e.event_type == EventType.CLICK for e in before)
    return event.event_type == EventType.CLICK and clicks >= p["clicks_max"]


def other_networks(earlier: Sequence[EventView], event: EventView, window_ms: int) -> list[tuple[int, int]]:
    """Return the networks that the user was in, in the window, since it was last in the event's own."""
    recent: list[tuple[int, int]] = []
    for e in of_user(earlier, event, window_ms):
        if e.network == event.network:
            break
        if e.network not in recent:
            recent.append(e.network)
    return recent


def user_many_ips(earlier: Sequence[EventView], event: EventView, p: Params) -> bool:
    """Tag an event whose network is not among the `networks_max` that its user was last seen in, in the window."""
    if event.cookieless or event.duplicate:
        return False
    return len(other_networks(earlier, event, p["window_minutes"] * MINUTE_MS)) >= p["networks_max"]


def impression_gaps_ms(earlier: Sequence[EventView], event: EventView, horizon_ms: int) -> list[int]:
    """Return the gaps, by event time, between an impression and the seven of its user before it, the newest first."""
    seen = [e for e in of_user(earlier, event, horizon_ms) if e.event_type == EventType.IMPRESSION][:7]
    times = [e.event_time for e in (event, *seen)]
    return [later - earlier for later, earlier in itertools.pairwise(times)]


def periodic(earlier: Sequence[EventView], event: EventView, p: Params) -> bool:
    """Tag an impression that is, with the seven of its user before it, equally spaced in event time."""
    if event.cookieless or event.duplicate or event.event_type != EventType.IMPRESSION:
        return False
    gaps = impression_gaps_ms(earlier, event, p["horizon_minutes"] * MINUTE_MS)
    if len(gaps) < 7 or min(gaps) < p["gap_min_ms"]:
        return False
    return (max(gaps) - min(gaps)) * 100 <= p["tolerance_percent"] * min(gaps)


PLAIN: Mapping[Reason, Callable[[Sequence[EventView], EventView, Params], bool]] = {
    Reason.CLICK_NO_IMPRESSION: click_no_impression,
    Reason.CLICK_TOO_FAST: click_too_fast,
    Reason.CLICK_TOO_LATE: click_too_late,
    Reason.DOUBLE_CLICK: double_click,
    Reason.REPEAT_CLICK: repeat_click,
    Reason.CLICK_MISMATCH: click_mismatch,
    Reason.USER_VELOCITY: user_velocity,
    Reason.USER_MANY_IPS: user_many_ips,
    Reason.PERIODIC: periodic,
}
"""Reason -> what the rule says of an event, after the earlier ones."""


def hits(earlier: Sequence[EventView], event: EventView, params: Mapping[Reason, Params]) -> int:
    """Return the bits of the windowed rules (those in `params`) that an event hits."""
    return sum(1 << reason for reason, p in params.items() if PLAIN[reason](earlier, event, p))
