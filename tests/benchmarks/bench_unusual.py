"""What 1 % of malformed records, or of good ones that are unusual, leave of the clean rate: decode alone, and a whole batch.

Each kind is measured beside the clean records of the same batch, in turns, so that the ratios are of one machine state.
Target: 70 % of the clean rate or more, of each kind that whole fleets of producers send.
"""

import gc
import json
import time
from collections.abc import Callable, Mapping
from datetime import date
from typing import Any

import numpy as np
import pytest

from adledger.pipeline.lanes.compute import LaneState, compute
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.rules.compiled import LaneEvaluator, RuleEvaluator
from adledger.pipeline.rules.loader import DEFAULT, load_rules
from adledger.pipeline.stages.decode import DecodeContext, decode
from adledger.pipeline.stages.dedupe import DedupeState, SeenHashes
from adledger.pipeline.stages.merge import DAY_MS
from adledger.schemas.periods import CLOSE_DELAY_MINUTES, CloseDelays
from adledger.schemas.wire import FUTURE_MS_MAX, Malformed, currency_code
from tests.benchmarks.bench_hostile import event
from tests.support.wire_texts import LOG_TIME

RECORDS, EACH, TURNS = 20_000, 100, 7
CONTEXT = DecodeContext(0, 1, (1,), currency_code("USD"))
DELAYS = CloseDelays.same(CLOSE_DELAY_MINUTES)

pytestmark = pytest.mark.benchmark


def without(name: str) -> Callable[[dict[str, Any]], Any]:
    return lambda fields: {key: value for key, value in fields.items() if key != name}


def changed(**changes: Any) -> Callable[[dict[str, Any]], Any]:
    return lambda fields: fields | changes


def torn(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()[:-40]


KINDS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "missing field": without("price_micros"),
    "wrong type: a number in quotes": changed(price_micros="1000000"),
    "wrong type: a fraction": changed(price_micros=0.5),
    "wrong type: null": changed(publisher_id=None),
    "out of range: negative": changed(price_micros=-1),
    "out of range: seconds": changed(event_time=LOG_TIME // 1000),
    "out of range: no time zone": changed(event_time="2023-11-14 22:13:20"),
    "out of range: currency": changed(currency="usd"),
    "out of range: address": changed(ip="unknown"),
    "out of range: long id": changed(event_id="x" * 80),
    "half a surrogate": changed(page_url="https://a/\ud800"),
    "from the future": changed(event_time=LOG_TIME + FUTURE_MS_MAX + 10**6),
    "wrong topic": changed(event_type="click", impression_id="i"),
    "not JSON: torn": torn,
    "not JSON: a line of text": lambda _: b"2023-11-14 22:13:20 INFO served ad 17 to 10.0.0.1",
    "not an object": lambda _: b'["impression", 1]',
    "tombstone": lambda _: b"",
    "too large": changed(x="x" * 20_000),
    "a key twice": lambda fields: json.dumps(fields).encode()[:-1] + b',"ip":"10.0.0.1"}',
    "good: leap second": changed(event_time="2016-12-31T23:59:60Z"),
    "good: 40 unknown fields": changed(**{f"custom_field_{n}": n for n in range(40)}),
    "good: an escaped address": lambda fields: json.dumps(fields).replace('"ip": "1', '"ip": "\\u0031').encode(),
}  # fmt: skip


def batch(kind: Callable[[dict[str, Any]], Any] | None) -> RecordRefs:
    """Return ordinary records, every 100th of a kind."""
    rng = np.random.default_rng(7)
    values, keys = [], []
    for number in range(RECORDS):
        fields = event(rng, number, {"event_time": LOG_TIME})
        made = kind(fields) if kind is not None and number % EACH == 0 else fields
        values.append(made if isinstance(made, bytes) else json.dumps(made).encode())
        keys.append(str(fields["user_id"]).encode())
    return RecordRefs.of(values, keys, log_times=[LOG_TIME] * RECORDS)


def seconds(function: Callable[[], object]) -> float:
    began = time.thread_time()
    function()
    return time.thread_time() - began


def test_bench_unusual():
    """Print the share of the clean rate that each kind leaves; no time is asserted."""
    evaluator = RuleEvaluator(load_rules(DEFAULT), load_lists(date(2026, 1, 15), age_days_max=3_650))

    def whole(refs: RecordRefs) -> None:
        state = LaneState(
            DedupeState(DAY_MS), LaneEvaluator(evaluator), SeenHashes.of(1 << 16), SeenHashes.of(1 << 16)
        )
        compute(refs, refs.log_time, state, CONTEXT, DAY_MS, DELAYS)

    clean = batch(None)
    whole(clean)  # compiles
    gc.freeze()
    print(f"\n{'1 % of':<34}{'decode':>8}{'us each':>9}{'batch':>8}  of the clean rate")
    for name, kind in KINDS.items():
        refs = batch(kind)
        outcomes = {Malformed(int(code)).name.lower() for code in np.unique(decode(refs, CONTEXT).status)}
        took = {of: [np.inf, np.inf] for of in ("decode", "whole")}
        for _ in range(TURNS):
            for which, records in enumerate((clean, refs)):
                took["decode"][which] = min(
                    took["decode"][which], seconds(lambda records=records: decode(records, CONTEXT))
                )
                took["whole"][which] = min(
                    took["whole"][which], seconds(lambda records=records: whole(records))
                )
        (clean_s, kind_s), (clean_whole, kind_whole) = took["decode"], took["whole"]
        each = (kind_s - clean_s) / (RECORDS / EACH) * 1e6
        print(
            f"{name:<34}{clean_s / kind_s:8.0%}{each:9.1f}{clean_whole / kind_whole:8.0%}"
            f"  {', '.join(sorted(outcomes - {'ok'}))}"
        )
    print(
        f"clean: decode {clean_s / RECORDS * 1e6:.2f} us, batch {clean_whole / RECORDS * 1e6:.2f} us a record"
    )
