"""What live pages cost: bytes and CPU of a rollups message, and the monitor's events a CPU-second.

Target: 100,000 events/s. Batches are of generated traffic: full ones, and those of 16 lanes that close a batch every second
at that rate (about 6,000 events each).
"""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.control.monitor import PublisherMonitor
from adledger.pipeline.control.rollups_message import COLUMNS, decode, encode, split
from adledger.schemas.classes import Class

EVENTS = 4_000_000
SECONDS = 40
LANES = 16
FULL_ROWS = 131_072
RATE = EVENTS // SECONDS
EPOCH = "an-epoch-as-long-as-they-are-in-deployments"
EVENT_KEY = ("publisher_id", "minute", "event_type_code", "class_code", "currency_code")

pytestmark = pytest.mark.benchmark


@pytest.fixture(scope="module")
def records() -> Any:
    """Return decodable records of 16 lanes at RATE, by arrival, as the generator classifies them."""
    model = TrafficModel(
        events=EVENTS, partitions=LANES, duration_hours=SECONDS / 3600, day_peak_to_trough=1.0
    )
    rows = np.concatenate([chunk.rows for chunk in Generator(model).rows()])
    rows = rows[rows["class_code"] != Class.MALFORMED]
    return rows[np.argsort(rows["log_time"], kind="stable")]


def rollup_of(rows: Any) -> dict[str, Any]:
    """Return the rollup of a batch's records, as columns, in an order that does not help."""
    columns = {
        "publisher_id": rows["publisher_id"],
        "minute": rows["event_time"] // 60_000 * 60,
        "event_type_code": np.maximum(rows["event_type"], 1),
        "class_code": rows["class_code"],
        "currency_code": rows["currency_code"],
    }
    order = np.lexsort([columns[name] for name in EVENT_KEY])
    keys = np.stack([columns[name][order].astype(np.int64) for name in EVENT_KEY])
    begin = np.flatnonzero(np.concatenate([[True], (keys[:, 1:] != keys[:, :-1]).any(axis=0)]))
    groups = {name: keys[i, begin].astype(COLUMNS[name]) for i, name in enumerate(EVENT_KEY)}
    groups["records"] = np.diff(np.append(begin, len(order))).astype("u4")
    groups["money_nanos"] = np.add.reduceat(rows["money_nanos"][order], begin)
    shuffled = np.random.default_rng(1).permutation(len(begin))
    return {name: values[shuffled] for name, values in groups.items()}


def batches(records: Any, rows_max: int) -> Iterator[tuple[int, int, int, dict[str, Any]]]:
    """Return (lane, batch number, watermark, rollup) of every lane's batches, and how many records they have."""
    for lane in range(LANES):
        mine = records[records["partition"] == lane]
        for number, begin in enumerate(range(0, len(mine), rows_max)):
            rows = mine[begin : begin + rows_max]
            yield lane, number, int(rows["log_time"].max()), rollup_of(rows)


def cpu_of(work: Callable[[], Any]) -> tuple[Any, float]:
    """Return the result of some work, and its CPU seconds."""
    begin = time.process_time()
    found = work()
    return found, time.process_time() - begin


@pytest.mark.parametrize("rows_max", [FULL_ROWS, RATE // LANES])
def test_messages_and_monitor(records: Any, rows_max: int) -> None:
    """From rollup rows to figures: split and encode at the announcer, decode and absorb at the monitor."""
    made = list(batches(records, rows_max))
    rows = sum(len(rollup["records"]) for *_, rollup in made)
    for _ in ("compiling", "measured"):
        parts, splitting = cpu_of(lambda: [part for batch in made for part in split(EPOCH, *batch)])
        sent, encoding = cpu_of(lambda p=parts: [encode(part) for part in p])
        got, decoding = cpu_of(lambda s=sent: [decode(data) for data in s])
        monitor = PublisherMonitor()
        _, absorbing = cpu_of(lambda g=got, m=monitor: [m.absorb(message) for message in g])
        again, repeats = cpu_of(lambda g=got, m=monitor: [m.absorb(message) for message in g])
        assert not any(again)
    page, paging = cpu_of(lambda: [monitor.live(1000 + i) for i in range(100)])
    assert page[0]["totals"]["received"]
    per = 1e3 / len(sent)
    print(
        f"\n{len(records):,} records in {len(made)} batches, {len(sent)} messages, {rows / len(sent):,.0f} rows each"
        f"\n  bytes a message: mean {sum(map(len, sent)) / len(sent):,.0f}, largest {max(map(len, sent)):,}; "
        f"{sum(map(len, sent)) / rows:.2f} a row"
        f"\n  CPU ms a message: split {splitting * per:.2f}, encode {encoding * per:.2f}, "
        f"decode {decoding * per:.2f}, absorb {absorbing * per:.2f}, repeat {repeats * per:.3f}"
        f"\n  announcer {len(records) / (splitting + encoding):,.0f} events/CPU-s, "
        f"monitor {len(records) / (decoding + absorbing):,.0f} events/CPU-s: "
        f"{RATE * (decoding + absorbing) / len(records):.2%} of a core at {RATE:,} events/s"
        f"\n  a page {paging * 10:.2f} ms; {monitor.publisher_minutes:,} publisher-minutes in {monitor.bytes_held:,} bytes"
    )
