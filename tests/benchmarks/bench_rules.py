"""What the rules cost: CPU an event by rule, all of them, and the memory of the windows.

python -m pytest -q -s tests/benchmarks/bench_rules.py

One lane of events like the real ones: 2,000,000 users with sessions of five impressions, 2 % clicks, at 2,200 events a
second of log time, so that an hour's window is full (8 million events) before anything is measured.
"""

import time
from collections.abc import Callable
from datetime import date

import numpy as np
import pytest
import xxhash

from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.lists.publishers import PublisherRow, PublisherSnapshot, PublisherStatus
from adledger.pipeline.records.columns import Decoded, EventColumns, RecordRefs
from adledger.pipeline.rules.compiled import LaneEvaluator, RuleEvaluator
from adledger.pipeline.rules.loader import DEFAULT, load_rules
from adledger.pipeline.rules.registry import RULES
from adledger.pipeline.rules.rule import Mode
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.pipeline.rules.windows import WINDOWED
from adledger.schemas.wire import EventType

ROWS = 131_072
PER_SECOND = 2_200
WARM_BATCHES, BATCHES = 61, 12
START_MS = 1_767_225_600_000
AGENTS = [
    f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/{n}.0.0.0 Safari/537.36".encode() for n in range(500)
]


def batch(number: int, users: int = 2_000_000) -> tuple[Decoded, np.ndarray]:
    """Return one batch of the lane, and the watermark at its rows."""
    rng = np.random.default_rng(number)
    c = EventColumns.zeros(ROWS)
    clock = START_MS + (number * ROWS + np.arange(ROWS)) * 1000 // PER_SECOND
    # a session's five impressions lie within a few batches: its user is drawn from a moving part of all users
    user = (rng.integers(0, users // 8, ROWS) + number * users // 16) % users
    hashed = user.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(0x5555)
    click = rng.random(ROWS) < 0.02
    ids = (np.uint64(number * ROWS) + np.arange(ROWS, dtype=np.uint64)) * np.uint64(0xBF58476D1CE4E5B9)
    c.event_type_code[:] = np.where(click, EventType.CLICK, EventType.IMPRESSION)
    c.event_time[:] = clock - rng.integers(100, 2_000, ROWS)
    c.publisher_id[:] = rng.integers(1, 400_000, ROWS)
    c.creative_id[:], c.campaign_id[:] = rng.integers(1, 50_000, ROWS), rng.integers(1, 20_000, ROWS)
    c.id_hash[:], c.user_hash[:] = ids, hashed
    impressions = np.maximum(np.arange(ROWS) - rng.integers(20_000, 60_000, ROWS), 0)
    c.impression_hash[:] = np.where(click, ids[impressions], 0)
    c.publisher_id[click] = c.publisher_id[impressions[click]]
    hashes = np.array([xxhash.xxh64_intdigest(agent) for agent in AGENTS], np.uint64)
    agent = rng.integers(0, len(AGENTS), ROWS)
    c.ua_hash[:] = hashes[agent]
    c.ip_lo[:] = np.uint64(0xFFFF_0000_0000) + hashed % np.uint64(2**32)
    first = {int(a): i for i, a in reversed(list(enumerate(agent.tolist())))}
    none = np.full(ROWS, -1, np.int32)
    texts = {i: (AGENTS[a], b"") for a, i in first.items()}
    status = np.zeros(ROWS, np.uint8)
    return Decoded(nowhere(), c, status, none, none, none, none, texts), clock.astype(np.int64)


def nowhere() -> RecordRefs:
    """Return records of which nothing is read, since their user agents are passed in."""
    wide, narrow, none = (np.zeros(ROWS, dtype) for dtype in (np.int64, np.int32, np.uint32))
    return RecordRefs(np.zeros(ROWS, np.uint8), wide, wide, wide, narrow, wide, narrow, none, ())


def only(rules: RuleSet, names: set[str]) -> RuleSet:
    """Return the set with all other rules off."""
    text = rules.text()
    for reason in RULES:
        if reason.name not in names:
            head = f"[rules.{reason.name}]\n"
            before, after = text.split(head)
            text = before + head + after.replace(after.split("\n")[0], 'mode = "off"', 1)
    return RuleSet.parse(text, "bench")


def microseconds(evaluator: RuleEvaluator, warm: int) -> tuple[float, LaneEvaluator]:
    """Return CPU an event in the steady state, the median of batches."""
    lane = LaneEvaluator(evaluator)
    none = np.zeros(ROWS, np.uint8)
    took = []
    for number in range(warm + BATCHES):
        decoded, clock = batch(number)
        began = time.thread_time()
        lane.hits(decoded, clock, none)
        took.append((time.thread_time() - began) / ROWS * 1e6)
    return float(np.mean(took[warm:])), lane


@pytest.fixture(scope="module")
def make() -> Callable[[RuleSet], RuleEvaluator]:
    """Compile a rule set with the lists of this installation and 400,000 publishers."""
    lists = load_lists(date(2026, 1, 15), age_days_max=3_650)
    rows = (PublisherRow(n, PublisherStatus.ACTIVE, 1) for n in range(1, 400_001))
    publishers = PublisherSnapshot.of(rows)
    return lambda rules: RuleEvaluator(rules, lists, publishers)


@pytest.mark.benchmark
def test_bench_rules(make):
    """Print the figures; no time is asserted."""
    rules = load_rules(DEFAULT)
    total, lane = microseconds(make(rules), WARM_BATCHES)
    print(f"\nall rules, an hour of {PER_SECOND:,}/s in the windows: {total:.3f} us of CPU an event")
    for name, size in lane.windows.size_bytes.items():
        print(f"  {name:<24}{size / 2**20:8.1f} MiB")
    by_event = {r.name for r, s in rules.rules.items() if s.mode != Mode.OFF and r not in WINDOWED}
    for label, names in [("lists and parameters", by_event), *((r.name, {r.name}) for r in WINDOWED)]:
        cost, _ = microseconds(make(only(rules, names)), WARM_BATCHES // 2)
        print(f"  {label:<24}{cost:8.3f} us")
