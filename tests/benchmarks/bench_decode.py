"""What decode costs an event, on records that are out of cache: CPU of one core, best of five.

Target: at most 0.25 us for ordinary records; 1 % odd ones must not double it.
"""

import json
import random
import re
import time
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from adledger.loadtest.traffic.recipes import MALFORMED_RECIPES
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.stages.decode import DecodeContext, decode
from adledger.pipeline.stages.identity import identity
from adledger.schemas import wire

RECORDS = 100_000
RUNS = 5
START = 1_700_000_000_000
CONTEXT = DecodeContext(lane=3, partitions=16, kinds=(1, 2), default_currency=wire.currency_code("USD"))


def on_the_slow_path(value: bytes) -> bytes:
    """Return the same record with an escape that only the slow path reads."""
    return re.sub(rb'"(impression|click)"', lambda found: b'"\\u%04x%b"' % (found[1][0], found[1][1:]), value)


COMPACT, DUMPS = (",", ":"), (", ", ": ")

AGENTS = (
    *(
        f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{v}.0.0.0 Safari/537.36"
        for v in range(90, 125)
    ),
    *(
        f"Mozilla/5.0 (iPhone; CPU iPhone OS 17_{v} like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.{v} Mobile/15E148 Safari/604.1"
        for v in range(9)
    ),
    *(f"Mozilla/5.0 (X11; Linux x86_64; rv:{v}.0) Gecko/20100101 Firefox/{v}.0" for v in range(60, 90)),
)

pytestmark = pytest.mark.benchmark


def an_event(rng: random.Random, n: int) -> dict[str, Any]:
    is_click = rng.random() < 0.02
    event = {
        "event_type": "click" if is_click else "impression",
        "event_id": f"{rng.getrandbits(128):032x}",
        "event_time": START + n,
        "publisher_id": int(rng.paretovariate(0.5)) % 400_000,
        "site_id": rng.randrange(10**6),
        "campaign_id": rng.randrange(10_000),
        "creative_id": rng.randrange(50_000),
        "advertiser_id": rng.randrange(1_000),
        "placement_id": rng.randrange(30),
        "user_id": "" if rng.random() < 0.03 else f"{rng.getrandbits(64):016x}",
        "ip": str(IPv4Address(rng.getrandbits(32))),
        "user_agent": rng.choice(AGENTS),
        "page_url": f"https://www.site{rng.randrange(1_000)}.example/news/article-{rng.randrange(10 ** rng.randrange(1, 8))}",
        "price_micros": rng.randrange(100_000, 9_000_000),
        "currency": "USD",
        "country": "DE",
        "width": 300,
        "height": 250,
    }
    return event | {"impression_id": f"{rng.getrandbits(128):032x}"} if is_click else event


Change = Callable[[random.Random, dict[str, Any]], dict[str, Any]]


def measure(
    what: str,
    *,
    separators: tuple[str, str] = COMPACT,
    change: Change = lambda _rng, event: event,
    spoil: Callable[[random.Random, bytes], bytes] = lambda _rng, value: value,
) -> None:
    """Decode `RECORDS` events, each changed before or spoiled after it is written, and print the cost of one."""
    rng = random.Random(1)
    events = [change(rng, an_event(rng, n)) for n in range(RECORDS)]
    refs = RecordRefs.of(
        [
            spoil(rng, json.dumps(event, separators=separators, ensure_ascii=False).encode())
            for event in events
        ],
        [(event["user_id"] or event["ip"]).encode() for event in events],
        topics=[int(event["event_type"] == "click") for event in events],
        log_times=[START + n for n in range(RECORDS)],
    )
    seconds = []
    for _ in range(RUNS):
        begin = time.process_time()
        decoded = decode(refs, CONTEXT)
        seconds.append(time.process_time() - begin)
    cost = min(seconds) / RECORDS * 1e6
    print(
        f"\n{what}: {cost:.3f} us an event ({refs.value_len.mean() / cost / 1e3:.1f} GB/s, "
        f"{refs.value_len.mean():.0f} bytes each, {len(decoded.slow_texts) / RECORDS:.1%} by the slow path)"
    )


def test_ordinary():
    """Compact JSON, as most producers write it."""
    measure("compact", change=lambda _rng, event: event)
    measure("with json.dumps's spaces", separators=DUMPS)


def test_kinds_of_content():
    """IPv6, optional fields, UTF-8, escapes and unknown fields, all on the fast path."""
    measure(
        "IPv6",
        change=lambda rng, event: event | {"ip": str(IPv6Address(0x20010DB8 << 96 | rng.getrandbits(64)))},
    )
    measure(
        "a fifth without size, a fifth without country",
        change=lambda rng, event: {
            name: value
            for (name, value), absent in zip(
                event.items(),
                [False] * 15 + [rng.random() < 0.2, *[rng.random() < 0.2] * 2, False],
                strict=False,
            )
            if not absent
        },
    )
    measure("UTF-8 pages", change=lambda _rng, event: event | {"page_url": event["page_url"] + "/zürich"})
    measure("escaped slashes", spoil=lambda _rng, value: value.replace(b"/", b"\\/"))
    measure(
        "unknown fields",
        change=lambda _rng, event: event | {"sdk": {"name": "pixel", "v": [1, 2.5]}, "x": None},
    )
    measure(
        "null for a fifth of the optional fields",
        change=lambda rng, event: (
            event
            | {name: None for name in ("placement_id", "country", "width", "height") if rng.random() < 0.2}
        ),
    )
    measure("countries in small letters", change=lambda _rng, event: event | {"country": "de"})
    measure(
        "pages of 3,000 bytes, truncated",
        change=lambda _rng, event: event | {"page_url": "https://" + "x" * 2_992},
    )
    measure("RFC 3339 times", change=lambda _rng, event: event | {"event_time": "2023-11-14T22:13:20.123Z"})


def test_one_percent_odd():
    """One record in a hundred takes the slow path, or the second reading."""
    measure(
        "1 % with an escape in its type, by the slow path",
        spoil=lambda rng, value: on_the_slow_path(value) if rng.random() < 0.01 else value,
    )
    measure(
        "1 % with long and escaped names",
        change=lambda rng, event: event | {"n" * 33: 1, '"': 1} if rng.random() < 0.01 else event,
    )
    recipes = [recipe for recipe in MALFORMED_RECIPES if not recipe.other_topic]

    def spoil(rng: random.Random, value: bytes) -> bytes:
        return rng.choice(recipes).make(value, START) or b"" if rng.random() < 0.01 else value

    measure("1 % malformed, of every kind", spoil=spoil)


def test_slow_path():
    """Every record takes the slow path."""
    measure("slow path alone", spoil=lambda _rng, value: on_the_slow_path(value))


def test_identity():
    """Keys and fingerprints from columns."""
    rng = random.Random(1)
    values = [json.dumps(an_event(rng, n)).encode() for n in range(RECORDS)]
    columns = decode(RecordRefs.of(values, [None] * RECORDS), CONTEXT).columns
    seconds = []
    for _ in range(RUNS):
        begin = time.process_time()
        identity(columns)
        seconds.append(time.process_time() - begin)
    print(f"\nidentity: {min(seconds) / RECORDS * 1e6:.4f} us an event")
