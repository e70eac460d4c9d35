"""Laws of the publisher monitor: it equals a dictionary, repeats change nothing, and its memory is bounded."""

from collections import Counter
from datetime import datetime

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.control import monitor as m
from adledger.pipeline.control.monitor import MonitorLimits, PublisherMonitor
from adledger.pipeline.control.rollups_message import split
from adledger.schemas.classes import Class
from adledger.schemas.wire import EventType
from tests.support.rollups import MINUTE, columns_of, message, rows

MINUTES = 5
ABOUT = st.integers(-9, 9).map(lambda n: MINUTE + 60 * n)
PUBLISHERS = st.integers(0, 5) | st.sampled_from([2**32 - 1, 1 << 16, 1 << 31])


class Model:
    """The monitor's plain twin: a dictionary of everything that forgets nothing."""

    def __init__(self):
        self.counts = Counter()  # (publisher, minute, figure) -> records
        self.seen = set()
        self.clock = 0
        self.late = 0

    @property
    def since(self):
        return self.clock // 60_000 * 60 - (MINUTES - 1) * 60

    def absorb(self, sent):
        identity = (sent.epoch, sent.lane, sent.batch_no, sent.part)
        if identity in self.seen:
            return
        self.seen.add(identity)
        self.clock = max(self.clock, sent.clock_after)
        columns = (
            sent.rollup[c].tolist()
            for c in ("publisher_id", "minute", "event_type_code", "class_code", "records")
        )
        for publisher, minute, kind, code, records in zip(*columns, strict=True):
            if minute < self.since:
                self.late += records
                continue
            self.counts[publisher, minute, "received"] += records
            if code == Class.BILLABLE:
                self.counts[publisher, minute, "clicks" if kind == EventType.CLICK else "impressions"] += (
                    records
                )
            elif code == Class.DUPLICATE:
                self.counts[publisher, minute, "duplicates"] += records
            elif code in {Class.GIVT, Class.SIVT}:
                self.counts[publisher, minute, "invalid"] += records

    def figures(self, since):
        return {key: n for key, n in self.counts.items() if n and key[1] >= since}


def figures(monitor, publishers):
    """Return the monitor's figures of some publishers, as the model has them."""
    found = {}
    for publisher in publishers:
        page = orjson.loads(orjson.dumps(monitor.live(publisher)))
        for minute in page["minutes"]:
            at = int(datetime.fromisoformat(minute["minute"]).timestamp())
            for figure in ("received", "impressions", "clicks", "duplicates", "invalid"):
                found[publisher, at, figure] = minute[figure]
                page["totals"][figure] -= minute[figure]
            assert minute["ctr"] == (
                minute["clicks"] / minute["impressions"] if minute["impressions"] else None
            )
            assert minute["duplicate_share"] == minute["duplicates"] / minute["received"]
            assert minute["invalid_share"] == minute["invalid"] / minute["received"]
        assert not any(
            page["totals"][f] for f in ("received", "impressions", "clicks", "duplicates", "invalid")
        )
    return {key: n for key, n in found.items() if n}


@st.composite
def batches(draw):
    """One lane's batch: rows up to the watermark."""
    found = draw(st.lists(rows(ABOUT, PUBLISHERS), max_size=12))
    clock = max([draw(ABOUT), *(row[1] for row in found)]) * 1000 + draw(st.integers(0, 59_999))
    lane, batch_no = draw(st.integers(0, 2)), draw(st.integers(0, 3))
    return message(lane, batch_no, found, clock, draw(st.sampled_from(["a", "b"])))


@given(st.lists(batches(), max_size=12))
def test_it_equals_a_dictionary(sent):
    """Whatever messages come, in any order and any number of times, the figures of the kept minutes are the model's."""
    monitor, model = PublisherMonitor(MonitorLimits(minutes=MINUTES)), Model()
    for each in sent:
        known = len(model.seen)
        model.absorb(each)
        assert monitor.absorb(each) == (len(model.seen) > known)
        publishers = {key[0] for key in model.counts} | {0}
        assert figures(monitor, publishers) == model.figures(model.since)
    assert monitor.counts.late_records == model.late
    assert monitor.counts.records == sum(n for key, n in model.counts.items() if key[2] == "received")
    assert monitor.counts.messages + monitor.counts.repeats == len(sent)
    assert monitor.publisher_minutes == len({k[:2] for k in model.figures(model.since)})


@given(st.lists(batches(), max_size=8), st.data())
def test_repeats_change_nothing(sent, data):
    """Repeated messages, immediate or later, leave every figure unchanged."""
    once, again = PublisherMonitor(), PublisherMonitor()
    for i, each in enumerate(sent):
        once.absorb(each)
        again.absorb(each)
        assert not again.absorb(data.draw(st.sampled_from(sent[: i + 1])))
    publishers = {int(p) for each in sent for p in each.rollup["publisher_id"]}
    assert [again.live(p) for p in publishers] == [once.live(p) for p in publishers]


@given(st.lists(batches(), max_size=8, unique_by=lambda b: (b.epoch, b.lane, b.batch_no)), st.randoms())
def test_the_order_of_messages_makes_no_difference(sent, random):
    """Within the horizon, lanes and batches may come in any order."""
    one, other = PublisherMonitor(), PublisherMonitor()
    for each in sent:
        one.absorb(each)
    for each in random.sample(sent, len(sent)):
        other.absorb(each)
    publishers = {int(p) for each in sent for p in each.rollup["publisher_id"]}
    assert [one.live(p) for p in publishers] == [other.live(p) for p in publishers]


@given(st.integers(0, 2**32 - 1), st.integers(2, 6))
def test_memory_is_bounded(seed, tables):
    """However many publishers come, the tables stay within the limit, and the reported minutes are complete."""
    limits = MonitorLimits(minutes=MINUTES, slots_max=tables * m.SLOTS_MIN)
    monitor, model, rng = PublisherMonitor(limits), Model(), np.random.default_rng(seed)
    for batch_no in range(4):
        n = int(rng.integers(1, 3 * m.SLOTS_MIN))
        columns = columns_of([(0, MINUTE, 1, 1, 1, 1, 0)] * n)
        columns["publisher_id"] = rng.integers(0, 2 * m.SLOTS_MIN, n, "u4")
        columns["minute"] = (MINUTE + 60 * (batch_no - rng.integers(0, 3, n))).astype("u4")
        for part in split("e", 0, batch_no, (MINUTE + 60 * batch_no) * 1000, columns):
            monitor.absorb(part)
            model.absorb(part)
        assert monitor.bytes_held <= limits.slots_max * 24
        since = int(datetime.fromisoformat(monitor.as_of()["since"]).timestamp())
        assert since == model.since or (since > model.since and monitor.counts.minutes_given_up)
        kept = model.figures(since)
        publishers = {int(p) for p in rng.integers(0, 2 * m.SLOTS_MIN, 200)}
        assert figures(monitor, publishers) == {k: n for k, n in kept.items() if k[0] in publishers}
    assert monitor.counts.records + monitor.counts.late_records == model.late + sum(
        n for key, n in model.counts.items() if key[2] == "received"
    )


def test_memory_of_lanes_is_bounded():
    """Batches before the newest are distinguished up to a limit, and older ones count as repeats; so do lanes beyond a
    limit.
    """
    monitor = PublisherMonitor()
    last = 3 * m.BATCHES_REMEMBERED
    for batch_no in range(0, last + 1, 2):
        assert monitor.absorb(message(0, batch_no, [], MINUTE * 1000))
    assert monitor.absorb(message(0, last - m.BATCHES_REMEMBERED + 1, [], MINUTE * 1000))
    assert not monitor.absorb(message(0, last - m.BATCHES_REMEMBERED - 1, [], MINUTE * 1000))
    for lane in range(m.LANES_MAX + 9):
        monitor.absorb(message(lane, 0, [], MINUTE * 1000))
    assert len(monitor.as_of()["lanes"]) == m.LANES_MAX


def test_staleness_is_reported():
    """Each lane's watermark is reported, and the oldest and newest; an unknown publisher has no minutes."""
    monitor = PublisherMonitor()
    assert monitor.live(7)["as_of"] == {"oldest": None, "newest": None, "lanes": {}, "since": None}
    monitor.absorb(message(10, 0, [], MINUTE * 1000 + 1))
    monitor.absorb(message(2, 5, [], (MINUTE - 120) * 1000))
    page = monitor.live(7)
    assert list(page["as_of"]["lanes"]) == ["2", "10"]
    assert page["as_of"]["newest"] == page["as_of"]["lanes"]["10"]
    assert page["as_of"]["oldest"] == page["as_of"]["lanes"]["2"]
    assert page["as_of"]["newest"].endswith(".001Z")
    assert page["minutes"] == []
    assert page["totals"]["ctr"] is None


@pytest.mark.parametrize("rows_in_one", [1, 2_000, 40_000])
def test_a_table_grows_without_losing_a_publisher(rows_in_one):
    """One minute with more publishers than its table holds keeps every one."""
    monitor = PublisherMonitor()
    columns = columns_of([(0, MINUTE, 1, 1, 1, 3, 0)] * rows_in_one)
    columns["publisher_id"] = np.arange(rows_in_one, dtype="u4") * np.uint32(65_536)  # equal low bits
    for part in split("e", 0, 0, MINUTE * 1000, columns):
        monitor.absorb(part)
    expected = Counter(columns["publisher_id"].tolist())
    assert monitor.publisher_minutes == len(expected)
    for publisher in list(expected)[:: max(1, rows_in_one // 50)]:
        assert monitor.live(publisher)["totals"]["impressions"] == 3 * expected[publisher]
