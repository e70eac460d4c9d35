"""Senders send exactly the generator's records, in order, however these are cut and shared out."""

from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adledger.loadtest.runner.check import Sent, cuts_of
from adledger.loadtest.runner.schedule import Schedule
from adledger.loadtest.runner.ticks import cut
from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.ground_truth import GroundTruthBuilder
from adledger.loadtest.traffic.labels import Label
from adledger.loadtest.traffic.model import Ramp, Scenario, TrafficModel
from adledger.pipeline.log.record_block import encode_batches

START = 1_800_000_000_000
MODEL = TrafficModel(
    seed=5, events=3_000, partitions=4, start_ms=START, ramps=(Ramp(2.0, 1.0, 3.0), Ramp(1.0, 3.0, 3.0)),
    malformed_share=0.05, duplicate_share=0.2, click_delay_ms_median=1_000, edge_margin_minutes=10,
)  # fmt: skip


def schedule(end_ms=START + 3_000, speed=1.0):
    return Schedule(start_ms=START, end_ms=end_ms, speed=speed, warm_up_seconds=0.0, seconds=3.0)


def _rows(block):
    return b"".join(bytes(batch.data)[61:] for batch in encode_batches(block, 0, records_max=1))


def sent_by(partitions, chunk_slots, plan, *, until=None):
    found, count = defaultdict(bytes), 0
    for chunk in Generator(MODEL, partitions=partitions, chunk_slots=chunk_slots).chunks():
        for tick in cut(chunk, plan, encode=False):
            if until is not None and tick.until_ms > until:
                return found, count
            count += tick.count
            for topic, partition, block in tick.blocks:
                found[topic, partition] += _rows(block)
    return found, count


WHOLE, COUNT = sent_by(range(4), 65_536, schedule())


@settings(max_examples=12)
@given(st.sampled_from([256, 1_000, 65_536]), st.floats(0.05, 40), st.sampled_from([1, 2, 4]))
def test_the_same_records_however_they_are_cut_and_shared(chunk_slots, speed, senders):
    """For ticks of any length, chunks of any size and any number of senders, each partition's records are the same bytes."""
    together, count = defaultdict(bytes), 0
    for sender in range(senders):
        found, of_it = sent_by(range(sender, 4, senders), chunk_slots, schedule(speed=speed))
        together.update(found)
        count += of_it
    assert (together, count) == (WHOLE, COUNT)


def test_packets_hold_what_blocks_hold():
    """Encoded packets carry the same records in the same order, and count them."""
    packets, counts = defaultdict(list), 0
    for chunk in Generator(MODEL).chunks():
        for tick in cut(chunk, schedule(), encode=True):
            assert sum(p.count for p in tick.packets) == tick.count
            counts += tick.count
            for packet in tick.packets:
                packets[packet.topic, packet.partition].append(packet)
    assert counts == COUNT
    assert set(packets) == set(WHOLE)


@pytest.mark.parametrize("end_ms", [START + 700, START + 3_000])
def test_nothing_is_sent_after_the_end(end_ms):
    """A schedule that ends early has fewer records, all of them planned before the end."""
    rows = np.concatenate([chunk.rows.copy() for chunk in Generator(MODEL).rows()])
    assert sent_by(range(4), 1_000, schedule(end_ms))[1] == (rows["log_time"] < end_ms).sum()


def test_cuts_determine_the_ground_truth():
    """For a load that ended early, sender by sender, the ground truth of the cuts is that of the records before them."""
    cuts = cuts_of(MODEL, [((0, 2), START + 900), ((1, 3), START + 1_700)])
    sent = Sent(MODEL, cuts)
    builder = GroundTruthBuilder(MODEL)
    for chunk in Generator(MODEL).rows():
        builder.add(chunk.rows[chunk.rows["log_time"] < np.array(cuts)[chunk.rows["partition"]]])
    ground_truth, expected = sent.ground_truth(), builder.build()
    assert np.array_equal(ground_truth.rollup, expected.rollup)
    assert np.array_equal(ground_truth.classes, expected.classes)
    assert 0 < ground_truth.records_received < COUNT
    wanted = np.unique(
        ground_truth.rollup["publisher_id"].astype(np.uint64) << np.uint64(32) | ground_truth.rollup["minute"]
    )
    of_minutes = sent.of_publisher_minutes(wanted)
    assert len(of_minutes) + len(sent.malformed()) == ground_truth.records_received
    for topic, partition in {(int(r["topic"]), int(r["partition"])) for r in of_minutes}:
        places = [int(r["offset"]) for part in (of_minutes, sent.malformed()) for r in part
                  if (int(r["topic"]), int(r["partition"])) == (topic, partition)]  # fmt: skip
        assert sorted(places) == list(range(len(places))), "offsets of fresh topics, without a gap"


def test_the_load_follows_its_ramps():
    """From rate 1 to 3 in two seconds, then a second at 3: slots are due as the areas of the ramps say."""
    slots = [chunk.rows[chunk.rows["variant"] == 0]["log_time"] - START for chunk in Generator(MODEL).rows()]
    counts, _ = np.histogram(np.concatenate(slots), bins=[0, 1_000, 2_000, 3_000])
    assert np.allclose(counts / counts.sum(), np.array([1.5, 2.5, 3.0]) / 7, atol=0.02)


def test_no_record_is_near_a_boundary():
    """With a margin no record's class depends on a few minutes of the log's clock, and the future stays the future."""
    model = TrafficModel(
        seed=3, events=20_000, partitions=4, duration_hours=60, late_share=0.3, late_minutes_median=800, duplicate_share=0.3,
        expired_share=0.1, edge_margin_minutes=30, retry_edge_weight=2.0, retry_beyond_weight=2.0, malformed_share=0.02,
    )  # fmt: skip
    rows = np.concatenate([chunk.rows.copy() for chunk in Generator(model).rows()])
    first = rows[(rows["class_code"] != 2) & (rows["label"] != 1)]
    age = first["log_time"] - first["event_time"]
    margin, day = 30 * 60_000, 24 * 3_600_000
    assert (age > day + margin / 2).sum() > 100
    assert not (np.abs(age - day) < margin - 2 * model.clock_skew_ms_max).any()


@pytest.mark.parametrize("encode", [True, False])
def test_ticks_outlive_their_chunk(encode):
    """Ticks keep their contents while the next chunk is made in the same memory."""
    kept, before = [], []
    for chunk in Generator(MODEL, chunk_slots=500).chunks():
        ticks = list(cut(chunk, schedule(), encode=encode))
        kept += ticks
        before += [_content(tick) for tick in ticks]
    assert [_content(tick) for tick in kept] == before


def _content(tick):
    return [bytes(packet.data) for packet in tick.packets] + [_rows(block) for _, _, block in tick.blocks]


def test_copies_come_within_a_run_of_seconds():
    """The knobs bring copies into short runs: across a restart, and conflicts and replays, each within its seconds."""
    model = TrafficModel(
        seed=9, events=20_000, partitions=4, start_ms=START, ramps=(Ramp(40.0, 1.0, 1.0),), duplicate_share=0.5,
        retry_hours_weight=0, retry_edge_weight=0, retry_beyond_weight=0, retry_restart_weight=1.0,
        retry_restart_seconds_max=12, conflict_weight=0.5, conflict_seconds_max=5, edge_margin_minutes=10,
        scenarios=(Scenario(kind="replay", actors=4, events_per_actor=25, start_hour=0, hours=0.005, copies_hours_max=0.002),),
    )  # fmt: skip
    rows = np.concatenate([chunk.rows.copy() for chunk in Generator(model).rows()])
    first_copies = rows[rows["variant"] // 2 == 1]
    firsts = {(r["slot"], r["variant"] % 2): r["log_time"] for r in rows[rows["variant"] // 2 == 0]}
    seen = Counter()
    for row in first_copies:
        delay = row["log_time"] - firsts[row["slot"], row["variant"] % 2]
        label = Label(int(row["label"]))
        least, most = {
            Label.RETRY_RESTART: (3_005, 12_000), Label.CONFLICT: (10, 5_010), Label.REPLAY: (1, 7_200),
        }.get(label, (1, 600_000))  # fmt: skip
        assert least <= delay <= most, label
        assert row["class_code"] == 2
        seen[label] += 1
    assert min(seen[Label.RETRY_RESTART], seen[Label.CONFLICT], seen[Label.REPLAY]) > 20
