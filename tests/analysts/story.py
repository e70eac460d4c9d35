"""A small story of known actors, for what generated traffic does not do, with known answers for the cookbook."""

from collections.abc import Iterator
from typing import Any

import orjson

START_MS = 1_736_500_000_000  # days after the generated traffic, since log time only rises
MINUTE_MS = 60_000
BROWSER = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
PUBLISHER, RIVAL = 777_001, 777_002
READER_IP, FARM_IPS = "81.2.69.10", tuple(f"81.2.{third}.10" for third in range(70, 76))


def event(number: int, at_ms: int, **changes: Any) -> dict[str, Any]:
    """Return an impression of PUBLISHER by `reader`, changed."""
    return {
        "event_type": "impression", "event_id": f"s-{number}", "event_time": START_MS + at_ms, "publisher_id": PUBLISHER,
        "site_id": 1, "campaign_id": 5, "creative_id": 6, "advertiser_id": 7, "user_id": "reader", "ip": READER_IP,
        "user_agent": BROWSER, "page_url": "https://news.example/today", "price_micros": 2_000_000, "currency": "USD",
    } | changes  # fmt: skip


def click(number: int, of: int, at_ms: int, **changes: Any) -> dict[str, Any]:
    """Return a click on impression `of`."""
    changes = {"event_type": "click", "impression_id": f"s-{of}", "price_micros": 500_000} | changes
    return event(number, at_ms, **changes)


def story() -> Iterator[dict[str, Any]]:
    """Yield the story's events, in the order of time.

    reader: an honest reader. farmer: one cookie on six networks. metronome: impressions a minute apart. hasty: five clicks
    on one impression. thief: a click of RIVAL on the reader's impression, and one at another campaign. c1 to c8: a crawler,
    a library, a blank user agent, a hidden ad, a prefetch, a test, addresses that no visitor has.
    """
    yield event(1, 0)
    yield click(2, 1, 4_000)
    yield click(3, 1, 9_000, campaign_id=99)  # mismatch
    yield click(4, 999, 11_000, creative_id=60)  # its impression never came
    yield click(5, 1, 3 * MINUTE_MS, creative_id=61)  # too late where the limit is a minute, and one too many
    yield event(
        6, 4 * MINUTE_MS, price_micros=9_000_000, event_id="s-1"
    )  # conflict: the same impression at another price
    for k, ip in enumerate(FARM_IPS):
        yield event(20 + k, 5 * MINUTE_MS + 1_000 * k, user_id="farmer", ip=ip)
    for k in range(8):
        yield event(40 + k, 6 * MINUTE_MS + k * MINUTE_MS, user_id="metronome", ip="81.2.80.1")
    at = 15 * MINUTE_MS
    yield event(60, at, user_id="hasty", ip="81.2.81.1")
    for k in range(5):
        yield click(61 + k, 60, at + 3_000 + 4_000 * k, user_id="hasty", ip="81.2.81.1", creative_id=100 + k)
    at = 16 * MINUTE_MS
    yield event(
        70,
        at,
        user_id="c1",
        user_agent="Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    )
    yield event(71, at + 1, user_id="c2", user_agent="curl/8.5.0")
    yield event(72, at + 2, user_id="c3", user_agent="")
    yield event(73, at + 3, user_id="c4", width=1, height=1)
    yield event(74, at + 4, user_id="c5", is_prefetch=True)
    yield event(75, at + 5, user_id="c6", is_test=True)
    yield event(76, at + 6, user_id="c7", ip="192.168.1.7")
    yield event(77, at + 7, user_id="c8", ip="2001:db8::7")
    yield event(78, at + 8, user_id="", ip="2a02:c7c:1234::1")  # nobody's cookie, an honest one
    yield click(79, 78, at + 300, user_id="", ip="2a02:c7c:1234::1")  # too fast
    yield event(1, at + 400, publisher_id=RIVAL)  # the same id at another publisher: another event
    yield event(90, at + 500, price_micros="much")  # malformed


def lines() -> bytes:
    """Return the story as JSON lines."""
    return b"".join(orjson.dumps(e) + b"\n" for e in story())
