"""Wire events as strings, good and bad, for hypothesis strategies and seeded fuzzing of decode."""

import json
import random
from typing import Any

from adledger.pipeline.stages.plain_hashes import partition_of

LOG_TIME = 1_700_000_000_000
PARTITIONS = 4
LANE = partition_of(b"u-14", PARTITIONS)

IMPRESSION: dict[str, Any] = {
    "event_type": "impression",
    "event_id": "7ed4d57b1e2feb89c6eccb1b78e51061",
    "event_time": LOG_TIME,
    "publisher_id": 399_999,
    "site_id": 220_153,
    "campaign_id": 0,
    "creative_id": 4_294_967_295,
    "advertiser_id": 29,
    "placement_id": 28,
    "user_id": "u-14",
    "ip": "195.134.187.196",
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:65.0) Gecko/20100101 Firefox/65.0",
    "page_url": "https://www.site443.example/news/article-99913",
    "price_micros": 1_000_000_000,
    "currency": "EUR",
    "country": "DE",
    "width": 300,
    "height": 65_535,
    "is_prefetch": False,
    "is_test": True,
}
CLICK = IMPRESSION | {"event_type": "click", "event_id": "c-1", "impression_id": "7ed4d57b1e2feb89"}

HOSTILE_VALUES = (
    "0", "-0", "00", "01", "-1", "+1", "1.0", "1e3", "1E400", "-1e400", "1E+99", "1e100", "1.25e-07", "1e", "1e+", "1.5", ".5", "1.", "1e-400", "NaN", "Infinity",
    "65535", "65536", "1000000000", "1000000001", "4294967295", "4294967296", "18446744073709551615",
    "18446744073709551616", "9999999999999999", "10000000000000000", "1" * 300, "1" * 400, "0." + "1" * 40, "1" * 101,
    "946684799999", "946684800000", "4102444799999", "4102444800000", "1700000300000", "1700000300001",
    "true", "false", "null", "tru", "True", "{}", "[]", '{"a":1}', '[1,[2,{"b":null}]]', '{"a":1,"a":2}',
    '{"a":{"b":1,"\\u0062":2}}', "[" * 63 + "]" * 63, "[" * 64 + "]" * 64, "[" * 65, "[1,]", "{,}", "[}",
    '""', '"a"', '"impression"', '"click"', '"Click"', '"click "', '"1"', '"' + "x" * 64 + '"', '"' + "x" * 65 + '"',
    '"' + "y" * 1024 + '"', '"' + "y" * 1025 + '"', '"' + "z" * 2048 + '"', '"' + "z" * 2049 + '"',
    '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\ude00\\ud83d"', '"\\ud83dx"', '"\\u00fC"', '"\\/\\"\\\\\\b\\f\\n\\r\\t"',
    '"\\x"', '"\\u12"', '"\\', '"', '"\x01"', '"\x7f"', '"ü€😀"', '"\\u0061"', '"' + "\\u20ac" * 21 + '"', '"' + "€" * 22 + '"',
    '"EUR"', '"USD"', '"eur"', '"EURO"', '"EU"', '"DE"', '"de"', '"D1"', '"\\u0044E"', '"ZZZ"', '"AAA"',
    '"1.2.3.4"', '"01.2.3.4"', '"256.1.1.1"', '"1.2.3"', '"1.2.3.4.5"', '"1..2.3"', '"1.2.3.4 "', '"0.0.0.0"', '"255.255.255.255"',
    '"::"', '"::1"', '"2001:db8::ff00:42:8329"', '"::ffff:1.2.3.4"', '"1:2:3:4:5:6:7:8"', '"1:2:3:4:5:6:7::"', '"1::2::3"',
    '"fe80::1%eth0"', '"12345::"', '":1"', '"1:"', '":::"', '"1:2:3:4:5:6:1.2.3.4"', '"1:2:3:4:5:6:7:1.2.3.4"', '"::01.2.3.4"',
    '"2023-11-14T22:13:20Z"', '"2023-11-14t22:13:20.123456z"', '"2023-11-14 23:13:20+01:00"', '"2023-11-14T22:13:20"', '"2023-02-30T00:00:00Z"',
    '"2016-12-31T23:59:60Z"', '"2016-12-30T23:59:60Z"', '"1999-12-31T23:59:59.999Z"', '"2000-01-01T00:00:00Z"', '"2100-01-01T00:00:00Z"',
    '"2023-11-14T22:13:20+0000"', '"2023-11-14T17:13:20.5-0500"', '"2023-11-14T22:13:20+00"', '"2023-11-14T22:13:20+000"', '"2016-12-31T23:59:60-0000"',
    '"De"', '"dE"', '"d3"', '"ß"', '"\\u0064e"', '"' + "y" * 1022 + '€"', '"' + "y" * 1023 + '\\ud83d\\ude00"', '"' + "z" * 2046 + '\\u20ac\\u20ac"',
    '"' + "é" * 513 + '"', '"' + "😀" * 513 + '"', '"' + "\\u00e9" * 1025 + '"', '"' + "y" * 1024 + '\\ud800"', '["\\udead", 1e999, -' + "1" * 600 + "]",
)  # fmt: skip
"""Texts to put in place of a value; not all of them are JSON."""

HOSTILE_NAMES = (
    '"event_id"', '"user_id"', '"price_micros"', '"event\\u005fid"', '"Event_id"', '"x"', '"y"', '""', '"\\u0078"', '"ü"',
    '"impression_id"', '"is_test"', '"' + "n" * 32 + '"', '"' + "n" * 33 + '"', '"event_id', "event_id", "1",
)  # fmt: skip
SPACES = ("",) * 12 + (" ", " ", "\n", "\t", "\r\n", "    ", " " * 40, "\x0b", "\u00a0")
HOSTILE_BYTES = (b"\x00", b"\x1f", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b" ", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"0", b"e", b"-")  # fmt: skip


def json_text(members: list[tuple[str, str]], space: str = "") -> str:
    """Return an object of (name, value) strings with `space` between all tokens."""
    body = ",".join(f"{space}{name}{space}:{space}{value}{space}" for name, value in members)
    return f"{space}{{{body}}}{space}"


def members_of(event: dict[str, Any]) -> list[tuple[str, str]]:
    """Return an event's members as strings."""
    return [(json.dumps(name), json.dumps(value, ensure_ascii=False)) for name, value in event.items()]


def fuzzed(rng: random.Random) -> tuple[bytes | None, bytes | None]:
    """Return (value, key) of a record: a good event, spoiled in a few ways or none."""
    event = dict(rng.choice((IMPRESSION, CLICK)))
    for name in ("placement_id", "currency", "country", "width", "height", "is_prefetch", "is_test"):
        if rng.random() < 0.2:
            del event[name]
    members = members_of(event)
    for _ in range(rng.choice((0, 0, 0, 1, 1, 2, 3))):
        _spoil_members(members, rng)
    space = rng.choice(SPACES)
    value = json_text(members, space).encode()
    if rng.random() < 0.1:
        value = value.replace(b"/", b"\\/")
    if rng.random() < 0.3:
        value = _spoil_bytes(value, rng)
    key = rng.choice((b"u-14", b"u-14", b"u-14", b"195.134.187.196", b"", b"u-15", None))
    return (None if rng.random() < 0.005 else value), key


def nested(rng: random.Random, levels: int = 4) -> str:
    """Return an array or object of hostile values, by hostile names."""
    space = rng.choice(SPACES)
    items = [
        nested(rng, levels - 1) if levels and rng.random() < 0.4 else rng.choice(HOSTILE_VALUES)
        for _ in range(rng.randrange(3))
    ]
    if rng.random() < 0.5:
        return f"{space}[{space}{','.join(items)}]{space}"
    return json_text([(rng.choice(HOSTILE_NAMES), item) for item in items], space)


def _spoil_members(members: list[tuple[str, str]], rng: random.Random) -> None:
    at = rng.randrange(len(members))
    name, _ = members[at]
    match rng.randrange(8):
        case 0 | 1:
            members[at] = (name, rng.choice(HOSTILE_VALUES))
        case 2:
            members.insert(at, (rng.choice(HOSTILE_NAMES), rng.choice(HOSTILE_VALUES)))
        case 3:
            members.insert(at, (f'"n{rng.randrange(100)}"', rng.choice(HOSTILE_VALUES)))
        case 4:
            rng.shuffle(members)
        case 5:
            members.insert(at, rng.choice(members))
        case 6:
            members.insert(at, ('"x"', nested(rng)))
        case 7:
            del members[at]


def _spoil_bytes(value: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(value) + 1)
    match rng.randrange(5):
        case 0:
            return value[:at]
        case 1:
            return value[:at] + rng.choice(HOSTILE_BYTES) + value[at:]
        case 2:
            return value[:at] + value[at + 1 :]
        case 3:
            return value[:at] + bytes([rng.randrange(256)]) + value[at + 1 :]
        case _:
            return value + rng.choice((b" ", b"\n", b"x", b"{}", b"\x00", b" " * 16_384))
