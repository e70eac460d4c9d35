"""What a producer can make a lane spend: CPU an event and a byte of records that are chosen to be slow, end to end.

A lane that receives nothing else computes a batch of each kind: decode, dedupe, the shipped rules with their lists,
dimension strings, rollups. Every batch is new to it. Targets: no user agent costs more than three times as much a byte as
honest ones that are all new; nothing costs more than ten times as much a byte as ordinary events.
"""

import gc
import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from typing import Any

import numpy as np
import pytest

from adledger.loadtest.traffic.lookup_tables import all_user_agents, bots
from adledger.pipeline.kernels.slots import SlotSecret
from adledger.pipeline.lanes.compute import LaneState, compute, rollup_rows
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.rules.compiled import LaneEvaluator, RuleEvaluator
from adledger.pipeline.rules.loader import DEFAULT, load_rules
from adledger.pipeline.stages.decode import DecodeContext
from adledger.pipeline.stages.dedupe import DedupeState, SeenHashes
from adledger.pipeline.stages.merge import DAY_MS
from adledger.schemas.periods import CLOSE_DELAY_MINUTES, CloseDelays
from adledger.schemas.wire import PAGE_URL_BYTES_MAX, USER_AGENT_BYTES_MAX, Malformed, currency_code
from tests.support.wire_texts import IMPRESSION, LOG_TIME

BATCH, BATCHES = 2_000, 4
LARGE_BYTES = 4_096
"""Of records that are larger a batch has a twentieth."""
CONTEXT = DecodeContext(0, 1, (0,), currency_code("USD"))
DELAYS = CloseDelays.same(CLOSE_DELAY_MINUTES)
SECRET = SlotSecret(0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210)
HEX64 = 2**64

Fields = Mapping[str, Any]
Kind = Callable[[np.random.Generator, int], Fields | bytes]
"""From a source of randomness and an event's number to the fields that it has instead of an ordinary one's; or to its bytes."""

pytestmark = pytest.mark.benchmark


def event(rng: np.random.Generator, number: int, fields: Fields) -> dict[str, Any]:
    """Return an ordinary impression: a user of 1,000, a user agent of 100, a page of 200, with some fields changed."""
    return {
        **IMPRESSION,
        "event_id": f"{number:032x}",
        "event_time": LOG_TIME + number,
        "user_id": f"user-{rng.integers(1_000):04}",
        "user_agent": AGENTS[rng.integers(100)],
        "page_url": f"https://www.example.com/news/{rng.integers(200)}",
    } | dict(fields)


AGENTS = all_user_agents()[:100]
HONEST = (*all_user_agents()[:150], *bots()[0], *bots()[1])
LISTS = load_lists(date(2026, 1, 15), age_days_max=3_650)
WORDS = [re.sub(r"\\(.)", r"\1", name) for name in LISTS.user_agents.known.names]
BROWSERS_WORDS = ("Safari.1", " Chrome.3", "CPU iPhone OS 1_2 like Mac OS X", "x64", "iPod", " .NET CLR 1.1")


def agent(make: Callable[[np.random.Generator], str], head: str = "") -> Kind:
    """Return events whose user agents are each new, and as long as they may be."""
    return lambda rng, number: {"user_agent": f"{head}{number} {make(rng)}"[:USER_AGENT_BYTES_MAX]}


def pieces(words: Sequence[str], *, cut: bool) -> Callable[[np.random.Generator], str]:
    def make(rng: np.random.Generator) -> str:
        chosen = (words[k] for k in rng.integers(len(words), size=200))
        return "".join(
            word[: rng.integers(1, len(word)) if cut and len(word) > 1 else None] + " ;/.-_"[rng.integers(6)]
            for word in chosen
        )

    return make


def to_the_end(word: str, end: str) -> Callable[[np.random.Generator], str]:
    """Return a user agent that is full of a word, and that ends with another after 1,000 bytes."""
    return lambda _: (word * 400)[:990] + end


AGENT_KINDS: dict[str, Kind] = {
    "honest agents, all new": lambda rng, number: {"user_agent": f"{HONEST[rng.integers(len(HONEST))]} {number}"},
    "agent: a letter": agent(lambda _: "a" * 1_024),
    "agent: random": agent(lambda rng: rng.integers(32, 127, 1_024).astype(np.uint8).tobytes().decode()),
    "agent: browsers' words": agent(pieces(BROWSERS_WORDS, cut=False)),
    "agent: x64": agent(lambda _: "x64" * 400),
    "agent: bots' names": agent(pieces(WORDS, cut=False)),
    "agent: beginnings of names": agent(pieces(WORDS, cut=True)),
    "agent: fetch": agent(to_the_end("fetch", "api"), "Mozilla/5.0 "),
    "agent: one long word": agent(to_the_end("aaaa", "api"), "Mozilla/5.0 fetch"),
    "agent: by": agent(lambda _: "by .a " * 200, "Mozilla/5.0 @"),
    "agent: like a bot": agent(lambda _: "like ccbot " * 100),
    "agent: Yandex": agent(lambda _: "yandex" * 200, "DuckDuckBot "),
    "agent: emoji": agent(lambda _: "\U0001f600" * 250),
}  # fmt: skip


def number_of(literal: str) -> Kind:
    return lambda rng, number: raw(rng, number, literal)


def raw(rng: np.random.Generator, number: int, literal: str, name: str = "x") -> bytes:
    """Return an event with a literal as the value of one field."""
    return json.dumps(event(rng, number, {name: "@"})).replace('"@"', literal).encode()


FIELD_KINDS: dict[str, Kind] = {
    "new pages": lambda _, number: {"page_url": f"https://{number}/" + "a" * PAGE_URL_BYTES_MAX},
    "pages of %41": lambda _, number: {"page_url": (f"https://{number}/" + "%41" * 700)[:PAGE_URL_BYTES_MAX]},
    "pages of UTF-8": lambda _, number: {"page_url": f"https://{number}.\u65e5\u672c/" + "\u65e5" * 600},
    "pages over the limit": lambda _, number: {"page_url": f"https://{number}/" + "a" * 12_000},
    "new users": lambda _, number: {"user_id": f"{number:064}"},
    "users of emoji": lambda _, number: {"user_id": f"{number:08}" + "\U0001f600" * 14},
    "no user, new IPv6": lambda _, number: {"user_id": "", "ip": f"2001:db8:0:0:0:0:{number >> 16:x}:{number & 0xFFFF:x}"},
    "IPv4 in IPv6": lambda _, number: {"ip": f"0000:0000:0000:0000:0000:ffff:127.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"},
    "RFC 3339 with 30 digits": lambda _, number: {"event_time": f"2023-11-14T22:13:20.{number % 1_000:030}-00:00"},
    "RFC 3339, leap second": lambda *_: {"event_time": "2016-12-31T23:59:60.999999Z"},
    "publishers, campaigns, sites all new": lambda _, n: dict.fromkeys(("publisher_id", "campaign_id", "site_id", "placement_id", "creative_id", "advertiser_id"), n),
    "minutes all new": lambda _, n: {"event_time": LOG_TIME - 60_000 * (n % 1_000_000)},
    "currencies and countries": lambda _, n: {"currency": "".join(chr(65 + n // 26**k % 26) for k in range(3)), "country": "".join(chr(65 + n // 26**k % 26) for k in range(2))},
    "escaped names": lambda rng, n: json.dumps(event(rng, n, {})).replace('"site_id"', '"\\u0073ite_id"').encode(),
    "unknown number of 15,000 digits": number_of("1" * 15_000),
    "unknown numbers 1e-999999999": number_of("[" + ",".join(["1e-999999999"] * 1_100) + "]"),
    "price 1e3": lambda rng, n: raw(rng, n, "1e3", "price_micros"),
    "price of 15,000 digits": lambda rng, n: raw(rng, n, "1" * 15_000, "price_micros"),
    "escapes": number_of('"' + r"\u0041" * 2_500 + '"'),
    "surrogate pairs": number_of('"' + r"\ud83d\ude00" * 1_250 + '"'),
    "62 levels": number_of("[" + ",".join([62 * "[" + 62 * "]"] * 115) + "]"),
    "8,000 levels": number_of("[" * 7_700 + "]" * 7_700),
    "brackets never closed": number_of("[" * 15_000),
    "1,000 unknown fields": lambda rng, n: raw(rng, n, "0" + "".join(f',"n{n}_{k}":1' for k in range(1_000))),
    "a key twice": lambda rng, n: raw(rng, n, "0" + "".join(f',"n{k}":1' for k in range(1_400)) + ',"n0":1'),
    "white space": lambda rng, n: json.dumps(event(rng, n, {})).replace(", ", "," + " \t\r\n" * 180).encode(),
    "tombstones": lambda *_: b"",
    "{}": lambda *_: b"{}",
    "no JSON, 16 KB": lambda _, n: b"x" * 16_000,
    "no JSON, 10 bytes": lambda *_: b'{"a":1,}  ',
    "half a surrogate, known field": lambda rng, n: raw(rng, n, r'"\ud800"', "page_url"),
}  # fmt: skip


def batches(kind: Kind) -> list[RecordRefs]:
    rng = np.random.default_rng(7)
    found = []
    sample = kind(rng, 0)
    size = BATCH if not isinstance(sample, bytes) or len(sample) < LARGE_BYTES else BATCH // 20
    for first in range(0, size * BATCHES, size):
        values, keys = [], []
        for number in range(first, first + size):
            made = kind(rng, number)
            fields = {} if isinstance(made, bytes) else made
            whole = event(rng, number, fields)
            values.append(made if isinstance(made, bytes) else json.dumps(whole, ensure_ascii=False).encode())
            keys.append(str(whole["user_id"] or whole["ip"]).encode())
        times = [LOG_TIME + number for number in range(first, first + size)]
        found.append(RecordRefs.of(values, keys, log_times=times))
    return found


def seconds_of(kind: Kind, evaluator: RuleEvaluator) -> tuple[float, int, int, set[str]]:
    """Return the CPU seconds of the batches after the first, their events and bytes, and what became of them."""
    state = LaneState(
        DedupeState(DAY_MS), LaneEvaluator(evaluator), SeenHashes.of(1 << 18), SeenHashes.of(1 << 18)
    )
    took, events, size, outcomes = 0.0, 0, 0, set()
    for index, refs in enumerate(batches(kind)):
        began = time.thread_time()
        computed = compute(refs, refs.log_time, state, CONTEXT, DAY_MS, DELAYS)
        rollup_rows(computed.events, int(refs.log_time[-1]), SECRET)
        spent = time.thread_time() - began
        outcomes |= {Malformed(int(code)).name for code in np.unique(computed.dead_letters["reason_code"])}
        outcomes |= {"event"} if computed.event_rows else set()
        if index:
            took, events, size = took + spent, events + len(refs), size + int(refs.value_len.sum())
    return took, events, size, outcomes


@pytest.mark.parametrize("kinds", [AGENT_KINDS, FIELD_KINDS], ids=["user_agents", "fields"])
def test_bench_hostile(kinds):
    """Print CPU by event and byte of each kind, against ordinary events; no time is asserted."""
    evaluator = RuleEvaluator(load_rules(DEFAULT), LISTS)
    seconds_of(lambda *_: {}, evaluator)  # compiles
    gc.freeze()
    ordinary = None
    print(f"\n{'':<38}{'bytes':>7}{'us each':>9}{'ns a byte':>10}{'events/CPU-s':>14}{'us':>7}{'byte':>7}")
    for name, kind in {"ordinary": lambda *_: {}, **kinds}.items():
        took, events, size, outcomes = seconds_of(kind, evaluator)
        each, byte = took / events, took / max(size, 1)
        ordinary = ordinary or (each, byte)
        print(
            f"{name:<38}{size / events:7.0f}{each * 1e6:9.2f}{byte * 1e9:10.1f}{1 / each:14,.0f}"
            f"{each / ordinary[0]:6.1f}x{byte / ordinary[1]:6.1f}x  {', '.join(sorted(outcomes)).lower()}"
        )
