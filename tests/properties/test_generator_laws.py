"""Laws of the generator: its bytes depend on the model alone, and its ground truth is what a plain count of them finds."""

import hashlib
from collections import defaultdict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.ground_truth import EXPECTED, GroundTruth, GroundTruthBuilder, expected_of
from adledger.loadtest.traffic.labels import Label
from adledger.loadtest.traffic.model import Burst, Scenario, TrafficModel
from adledger.loadtest.traffic.recipes import MALFORMED_RECIPES, ODD_RECIPES, RECIPES
from adledger.loadtest.traffic.scenarios import SCENARIOS
from adledger.pipeline.stages.slow_path import DecodeContext, decode_plain
from adledger.schemas.classes import Class
from adledger.schemas.wire import FUTURE_MS_MAX, Malformed
from tests.support.plain_count import LogRecord, count, records_of

share = st.sampled_from([0.0, 0.02, 0.3, 1.0])
weight = st.sampled_from([0.0, 0.1, 1.0])

scenarios = st.lists(
    st.builds(
        Scenario,
        kind=st.sampled_from(sorted(SCENARIOS)),
        actors=st.integers(1, 4),
        events_per_actor=st.integers(1, 8),
        start_hour=st.sampled_from([0.0, 0.02]),
        hours=st.sampled_from([0.0, 0.01, 3.0]),
    ),
    max_size=3,
).map(tuple)

models = st.builds(
    TrafficModel,
    seed=st.integers(0, 2**63 - 1),
    events=st.integers(1, 400),
    partitions=st.integers(1, 9),
    duration_hours=st.sampled_from([0.05, 1.0, 30.0, 80.0]),
    active_minutes_per_hour=st.sampled_from([1, 60]),
    bursts=st.sampled_from([(), (Burst(start_minute=2, minutes=10, factor=50.0),)]),
    publishers=st.sampled_from([1, 3, 400_000]),
    users=st.sampled_from([1, 5, 80_000_000]),
    session_minutes=st.sampled_from([1, 15]),
    hot_publisher_share=share,
    hot_user_share=share,
    mobile_share=share,
    cookieless_share=share,
    uuid_share=share,
    second_currency_share=share,
    click_share=share,
    click_reuses_id_share=share,
    late_share=share,
    expired_share=share,
    skewed_clock_share=share,
    duplicate_share=share,
    retry_at_once_weight=weight,
    retry_hours_weight=weight,
    retry_edge_weight=weight,
    retry_beyond_weight=weight,
    conflict_weight=weight,
    resent_text_weight=weight,
    malformed_share=share,
    odd_share=share,
    spaced_json_share=share,
    shuffled_json_share=share,
    crc32_share=share,
    keyless_share=share,
    cookie_appears_share=share,
    roaming_share=share,
    dedupe_window_hours=st.sampled_from([1, 24]),
    allowed_lateness_hours=st.sampled_from([1, 24]),
    scenarios=scenarios,
)


def generated(model: TrafficModel, partitions=None, chunk_slots=97) -> tuple[dict, GroundTruth, np.ndarray]:
    """Return records by (topic, partition), the ground truth, and what is expected of each record."""
    log, builder, expected = defaultdict(list), GroundTruthBuilder(model), [np.zeros(0, EXPECTED)]
    for chunk in Generator(model, partitions=partitions, chunk_slots=chunk_slots).chunks():
        at = 0
        for topic, partition, block in chunk.blocks:
            offsets = len(log[topic, partition]) + np.arange(len(block))
            expected.append(expected_of(chunk.rows[chunk.order[at : at + len(block)]], offsets))
            log[topic, partition] += list(records_of(block))
            at += len(block)
        builder.add(chunk.rows)
    return dict(log), builder.build(), np.concatenate(expected)


@given(models, st.integers(1, 5), st.sampled_from([1, 7, 65_536]))
@settings(max_examples=40, deadline=None)
def test_bytes_do_not_depend_on_who_makes_which_part(model: TrafficModel, shards: int, chunk_slots: int):
    """With any sharding and any chunk size every partition has the same records in the same order, with one ground truth."""
    whole, ground_truth, _ = generated(model)
    parts, merged = {}, GroundTruth.empty(model.partitions)
    for shard in range(shards):
        log, part, _ = generated(model, range(shard, model.partitions, shards), chunk_slots)
        assert not parts.keys() & log.keys()
        parts |= log
        merged = merged.merge(part)
    assert parts == whole
    for name in GroundTruth.__slots__:
        assert np.array_equal(getattr(merged, name), getattr(ground_truth, name)), name


@given(models)
@settings(max_examples=80, deadline=None)
def test_the_ground_truth_is_what_a_plain_count_finds(model: TrafficModel):
    """Every table of the ground truth equals a count of the bytes, record by record, by the contract in plain Python."""
    log, ground_truth, expected = generated(model)
    lanes = defaultdict(list)
    for (topic, partition), records in log.items():
        lanes[partition] += [LogRecord(r[0], topic, offset, r[1], r[2]) for offset, r in enumerate(records)]
    found = count(
        lanes,
        partitions=model.partitions,
        window_hours=model.dedupe_window_hours,
        lateness_hours=model.allowed_lateness_hours,
    )
    assert ground_truth.records_received == sum(map(len, log.values()))
    assert (expected["label"] < Label.REPLAY).sum() >= model.events
    assert ground_truth.records_received == model.events or model.scenarios
    *key, records, money = (ground_truth.rollup[name].tolist() for name in ground_truth.rollup.dtype.names)
    assert list(zip(*key, strict=True)) == sorted(found.rollup)
    assert dict(zip(zip(*key, strict=True), zip(records, money, strict=True), strict=True)) == found.rollup
    assert ground_truth.classes.tolist() == [
        [found.classes[p, c] for c in range(8)] for p in range(model.partitions)
    ]
    assert ground_truth.malformed.tolist() == [
        found.malformed[reason] for reason in range(len(ground_truth.malformed))
    ]
    assert ground_truth.misrouted.tolist() == [found.misrouted[p] for p in range(model.partitions)]
    assert ground_truth.conflicts.tolist() == [found.conflicts[p] for p in range(model.partitions)]
    again = GroundTruth.of(expected, model.partitions)
    for name in GroundTruth.__slots__:
        assert np.array_equal(getattr(again, name), getattr(ground_truth, name)), name


@given(models)
@settings(max_examples=40, deadline=None)
def test_log_time_never_falls(model: TrafficModel):
    """Within a partition log times never fall, from the model's start on, and no event is from the future."""
    log, _, _ = generated(model)
    for records in log.values():
        times = [record[0] for record in records]
        assert times == sorted(times)
        assert times[0] >= model.start_ms


@given(st.integers(0, 2**32), st.sampled_from(range(len(RECIPES))))
@settings(max_examples=200, deadline=None)
def test_recipes_do_what_they_say(seed: int, index: int):
    """A malformed recipe has the reason that it names by the plain evaluation; an odd one leaves the event unchanged."""
    recipe = RECIPES[index]
    model = TrafficModel(seed=seed, events=1, partitions=1, click_share=0, malformed_share=0, odd_share=0)
    ((log_time, key, value),) = generated(model)[0][0, 0]
    context = DecodeContext(0, 1, (1, 2), 1)
    good = decode_plain(value, key, 1, log_time, context)
    found = decode_plain(recipe.make(value, log_time), key, 2 if recipe.other_topic else 1, log_time, context)
    if index < len(MALFORMED_RECIPES):
        assert found == recipe.reason
    elif recipe.name == "not ASCII":
        assert found._replace(page_hash=0, page_url=b"") == good._replace(page_hash=0, page_url=b"")
    else:
        assert found == good


def test_every_reason_has_a_recipe():
    """Every reason that a producer can cause with one record is generated."""
    assert {r.reason for r in MALFORMED_RECIPES} == set(Malformed) - {
        Malformed.OK,
        Malformed.REJECTED_EARLIER,
        Malformed.UNDECODABLE_BATCH,
    }
    assert {r.reason for r in ODD_RECIPES} == {Malformed.OK}
    assert TrafficModel().clock_skew_ms_max < FUTURE_MS_MAX


def test_default_traffic_has_every_class():
    """In a day, the default model has duplicates, expired and malformed records, conflicts and misrouted ones."""
    _, ground_truth, _ = generated(TrafficModel(events=30_000, duration_hours=30), chunk_slots=65_536)
    received = ground_truth.classes.sum(axis=0)
    for wanted in (Class.BILLABLE, Class.DUPLICATE, Class.EXPIRED, Class.MALFORMED):
        assert received[wanted] > 0
    assert ground_truth.conflicts.sum() > 0
    assert ground_truth.misrouted.sum() > 0


def test_the_same_seed_gives_the_same_bytes_everywhere():
    """A model determines its bytes on every machine: this digest changes only with the generator itself."""
    digest = hashlib.sha256()
    model = TrafficModel(seed=42, events=5_000, scenarios=(Scenario(kind="double_click"),))
    log, _, _ = generated(model)
    for place in sorted(log):
        for record in log[place]:
            digest.update(repr(record).encode())
    assert digest.hexdigest()[:16] == "0272e17911d876b5"
