"""The metrics of a whole run: they say what the ground truth and the tables say."""

import asyncio
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from adledger.loadtest.traffic.model import Scenario, TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.control.metrics import LaneMetrics
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.rules_in_force import RulesInForce
from adledger.pipeline.lanes.worker import Worker
from adledger.pipeline.log.files import FilesSource
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.pipeline.rules.loader import load_rules
from adledger.pipeline.rules.registry import RULES
from adledger.schemas.wire import Malformed
from adledger.sinks.memory import MemorySink
from tests.unit.test_app_worker import LIMITS

SCENARIOS = tuple(
    Scenario(kind=kind, actors=2, events_per_actor=20, start_hour=0.5, hours=1.0)
    for kind in ("nameless_bot", "spoofed_address", "prefetcher")
)
MODEL = TrafficModel(
    seed=11,
    events=3_000,
    partitions=2,
    malformed_share=0.05,
    crc32_share=0.3,
    duplicate_share=0.2,
    duration_hours=30,
    scenarios=SCENARIOS,
)


async def test_a_run_counts_reasons_as_the_tables_have_them(tmp_path: Path) -> None:
    """Of a run without interruptions: malformed records by reason, misrouted events, conflicts, hits by rule, lanes."""
    with open_log(tmp_path / "log", MODEL.partitions) as writer:
        truth = write_traffic(MODEL, writer, lambda _: None).ground_truth
    metrics, sink = LaneMetrics(), MemorySink()
    worker = Worker(
        FilesSource(tmp_path / "log", "metrics"), sink, replace(LIMITS, batch=replace(LIMITS.batch, rows_max=1_000)),
        cpu_threads=1, inserts_per_second_max=1_000_000, revoke_ms_max=5_000, until_caught_up=True, emit=metrics.emit,
        rules_in_force=RulesInForce(RuleEvaluator(load_rules("default"))),
    )  # fmt: skip
    async with asyncio.timeout(120):
        assert await worker.run()
    found = {
        (s.name, *s.labels.values()): s.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for s in family.samples
    }
    assert found["adledger_log_lanes",] == MODEL.partitions
    malformed = [found["adledger_malformed_total", m.name.lower()] for m in Malformed if m]
    assert malformed == truth.malformed[1 : len(Malformed)].tolist()
    assert sum(malformed) == found["adledger_events_total", "malformed"] > 100
    assert found["adledger_misrouted_total",] == truth.misrouted.sum() > 0
    assert found["adledger_duplicate_conflicts_total",] == truth.conflicts.sum() > 0
    assert {r.name: found["adledger_rule_hits_total", r.name] for r in RULES} == await hits(sink)


async def hits(sink: MemorySink) -> dict[str, float]:
    """Return rule -> events that have it, from the stored rows."""
    counted: Counter[str] = Counter()
    for lane in range(MODEL.partitions):
        end = await sink.ledger_end(lane)
        assert end is not None
        for batch_no in range(end.batch_no + 1):
            stored = (await sink.stored_events(lane, batch_no)).reasons
            counted.update({r.name: np.count_nonzero(stored & np.uint64(1 << r)) for r in RULES})
    assert counted.total() > 0
    return {r.name: float(counted[r.name]) for r in RULES}
