"""Laws of the metrics: Prometheus names, a bounded number of series, and counts that equal the ledger's."""

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from adledger.pipeline.control.metric_specs import METRICS
from adledger.pipeline.control.metrics import LaneMetrics
from adledger.pipeline.control.monitor import PublisherMonitor
from adledger.pipeline.lanes.events import (
    BatchDone,
    BatchInDoubt,
    InsertDone,
    InsertFailed,
    LaneReleased,
    Phase,
    PhaseChanged,
    ReasonsCounted,
    RecordsFetched,
    RestartScheduled,
    RetryScheduled,
    RulesNotEvaluated,
    StageTimed,
)
from adledger.pipeline.lanes.worker_events import AlertRaised, LogJoined, PeriodsSeen
from adledger.schemas.classes import CLASS_NAMES, Class, Reason
from adledger.schemas.wire import Malformed
from adledger.sinks.sink import LedgerEntry
from tests.support.rollups import MINUTE, message

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def entry(lane=3, batch_no=0, counts=None, clock_after=MINUTE * 1000 + 500):
    counts = counts if counts is not None else {1: 90, 2: 7, 6: 3}
    return LedgerEntry(
        lane=lane, batch_no=batch_no, epoch="e", ranges=(), cut_time=0, cut_topic=0, cut_offset=0,
        clock_before=0, clock_after=clock_after, records_received=sum(counts.values()), counts=counts, money=(),
        judge_version=1, rollup_rows=1, events_digest=0, dead_letters_digest=0,
    )  # fmt: skip


def samples(metrics):
    """Return (name, labels) -> value, as Prometheus would read the page."""
    text = metrics.render().decode()
    return {
        (s.name, tuple(sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
    }


def busy():
    """Metrics of which every one has a value."""
    metrics, monitor = LaneMetrics(), PublisherMonitor()
    for event in (
        PhaseChanged(3, Phase.RUNNING), StageTimed("compute", 0.01), InsertDone("events"),
        RecordsFetched(3, "ad.clicks", 1_000, 7), RulesNotEvaluated({Reason.UA_KNOWN_BOT: 7}), AlertRaised("breach"),
        ReasonsCounted({Malformed.NOT_JSON: 3}, {Reason.UA_BLANK: 2, Reason.MISROUTED: 1, Reason.DUPLICATE_CONFLICT: 4}),
        LogJoined(16), BatchDone(entry(), 97), PeriodsSeen(1_800, 3, {7: 1_700}, {"EUR": 1_500_000_000}),
    ):  # fmt: skip
        metrics.emit(event)
    metrics.rollup_message("sent")
    metrics.show_monitor(monitor, lambda: 2)
    monitor.absorb(message(3, 0, [(1, MINUTE, 1, 1, 1, 5, 9)], MINUTE * 1000))
    return metrics


def test_the_list_is_complete():
    """A scrape has exactly METRICS, by name, type and labels, and the process's own."""
    families = {}
    for family in text_string_to_metric_families(busy().render().decode()):
        name = family.name + "_total" if family.type == "counter" else family.name
        labels = {label for s in family.samples for label in s.labels} - {"le"}
        families[name] = (family.type, labels, family.documentation)
    ours = {name: found for name, found in families.items() if not name.startswith("process_")}
    assert ours == {m.name: (m.kind, set(m.labels), m.help) for m in METRICS}


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_names_are_prometheus_names(metric):
    """Names have our prefix, `_total` for counters and only for them, base units, and labels with few values."""
    assert re.fullmatch(r"adledger_[a-z_]+[a-z]", metric.name)
    assert metric.name.endswith("_total") == (metric.kind == "counter")
    assert "_ms" not in metric.name
    assert set(metric.labels) <= {
        "class",
        "currency",
        "kind",
        "lane",
        "outcome",
        "partition",
        "phase",
        "reason",
        "rule",
        "stage",
        "table",
        "topic",
        "version",
    }
    assert metric.help.endswith(".")


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_no_label_is_a_publisher_or_a_user(metric):
    """Labels have few values: no publisher, site, campaign, advertiser, user or address is ever one."""
    assert not re.search(
        "publisher|site|campaign|creative|advertiser|placement|user|ip|url|key", " ".join(metric.labels)
    )


@pytest.mark.skipif(not OPERATIONS.exists(), reason="docs/operations.md is not there")
def test_every_metric_is_explained_to_operators():
    """docs/operations.md names each metric."""
    page = OPERATIONS.read_text("utf-8")
    assert [m.name for m in METRICS if m.name not in page] == []


def test_periods_are_shown_by_the_owner_of_lane_0():
    """What waits, since when and which lanes; a worker that looks no more shows nothing."""
    metrics = LaneMetrics()
    metrics.emit(PeriodsSeen(1_800, 3, {7: 1_700}, {"EUR": 1_500_000_000}, failed=True))
    found = samples(metrics)
    assert found["adledger_periods_closed_timestamp_seconds", ()] == 1_800
    assert found["adledger_periods_waiting", ()] == 3
    assert found["adledger_period_held_timestamp_seconds", (("lane", "7"),)] == 1_700
    assert found["adledger_period_money_waiting", (("currency", "EUR"),)] == 1.5
    assert found["adledger_period_closing_failed", ()] == 1
    metrics.emit(PeriodsSeen())
    assert {name: v for (name, _), v in samples(metrics).items() if name.startswith("adledger_period")} == {
        "adledger_periods_closed_timestamp_seconds": 0,
        "adledger_periods_waiting": 0,
        "adledger_period_closing_failed": 0,
    }


def test_events_are_counted_as_the_ledger_counts_them():
    """Counters sum over batches by class; every class has a series from the start, so that rates begin at zero."""
    metrics = LaneMetrics()
    assert {labels for name, labels in samples(metrics) if name == "adledger_events_total"} == {
        (("class", name),) for name in CLASS_NAMES.values()
    }
    metrics.emit(BatchDone(entry(counts={1: 90, 2: 7, 6: 3}), 97))
    metrics.emit(BatchDone(entry(batch_no=1, counts={1: 10, int(Class.SIVT): 5}), 107))
    found = samples(metrics)
    by_class = {
        labels[0][1]: v for (name, labels), v in found.items() if name == "adledger_events_total" and v
    }
    assert by_class == {"billable": 100, "duplicate": 7, "malformed": 3, "sivt": 5}
    assert found["adledger_batches_total", ()] == 2
    assert found["adledger_batch_rows_sum", ()] == 115
    assert found["adledger_lane_clock_timestamp_seconds", (("lane", "3"),)] == MINUTE + 0.5
    assert found["adledger_dedupe_entries", (("lane", "3"),)] == 107


def test_reasons_are_counted_by_name():
    """Malformed records by reason, events by rule; what is no rule has a metric of its own. Every series begins at zero."""
    metrics = LaneMetrics()
    found = samples(metrics)
    assert found["adledger_malformed_total", (("reason", "wrong_type"),)] == 0
    assert found["adledger_rule_hits_total", (("rule", "USER_VELOCITY"),)] == 0
    for _ in range(2):
        metrics.emit(
            ReasonsCounted(
                {Malformed.NOT_JSON: 3, Malformed.UNDECODABLE_BATCH: 500},
                {Reason.UA_BLANK: 2, Reason.MISROUTED: 1, Reason.DUPLICATE_CONFLICT: 4},
            )
        )
    found = samples(metrics)
    assert {k[0] for k in found if "reason" in dict(k[1])} == {"adledger_malformed_total"}
    assert found["adledger_malformed_total", (("reason", "not_json"),)] == 6
    assert found["adledger_malformed_total", (("reason", "undecodable_batch"),)] == 1_000
    assert found["adledger_rule_hits_total", (("rule", "UA_BLANK"),)] == 4
    assert ("adledger_rule_hits_total", (("rule", "MISROUTED"),)) not in found
    assert found["adledger_misrouted_total", ()] == 2
    assert found["adledger_duplicate_conflicts_total", ()] == 8


def test_a_lane_is_in_one_phase():
    """Exactly one phase of a lane shows 1, the latest."""
    metrics = LaneMetrics()
    for phase in (*Phase, *reversed(Phase)):
        metrics.emit(PhaseChanged(5, phase, "why"))
        phases = {
            dict(k[1])["phase"]: v for k, v in samples(metrics).items() if k[0] == "adledger_lane_phase"
        }
        assert phases == {p.value: float(p is phase) for p in Phase}


def test_doubts_and_retries():
    """A batch in doubt counts once, however often its lane resumes it; each attempt that another follows is a retry."""
    metrics = LaneMetrics()
    for number in range(1, 4):
        metrics.emit(BatchInDoubt(1, "no answer", 7))
        metrics.emit(RetryScheduled(1, "no connection", number, None))
    metrics.emit(RestartScheduled(1, "refused", "look", 15))
    metrics.emit(RetryScheduled(1, "no answer", 1, 10, batch_no=7))
    metrics.emit(BatchInDoubt(1, "no answer", 8))
    metrics.emit(BatchInDoubt(2, "no answer", 8))
    found = samples(metrics)
    assert found["adledger_doubts_total", ()] == 3
    assert found["adledger_retries_total", ()] == 5


def test_a_failed_insert_counts_under_its_error():
    """Failed inserts are counted beside acknowledged ones, by table."""
    metrics = LaneMetrics()
    metrics.emit(InsertDone("events"))
    metrics.emit(InsertFailed(1, 7, "events", "InsertRefused", 243))
    found = samples(metrics)
    for outcome in ("ok", "InsertRefused"):
        assert found["adledger_inserts_total", (("outcome", outcome), ("table", "events"))] == 1


def test_a_released_lane_leaves_no_series():
    """After the release no series names the lane, the worker's counts stay, and a second release changes nothing."""
    metrics = busy()
    metrics.emit(PhaseChanged(4, Phase.REBUILDING))
    for lane in (3, 3, 9):
        metrics.emit(LaneReleased(lane))
    found = samples(metrics)
    assert not [key for key in found if {("lane", "3"), ("partition", "3")} & set(key[1])]
    assert found["adledger_lanes_owned", ()] == 1
    assert found["adledger_lanes_taken_total", ()] == 2
    assert found["adledger_lanes_released_total", ()] == 1
    assert found["adledger_batches_total", ()] == 1
    metrics.emit(LaneReleased(4))
    metrics.emit(PhaseChanged(3, Phase.RUNNING))
    assert samples(metrics)["adledger_lanes_owned", ()] == 1


def test_the_monitors_counts_are_scraped():
    """The page has the monitor's counts at the time of the scrape."""
    found = samples(busy())
    assert found["adledger_live_messages_total", (("outcome", "absorbed"),)] == 1
    assert found["adledger_live_messages_total", (("outcome", "unreadable"),)] == 2
    assert found["adledger_live_records_total", (("outcome", "counted"),)] == 5
    assert found["adledger_live_publisher_minutes", ()] == 1


def test_two_workers_in_one_process_count_separately():
    """There is no global registry."""
    one, other = LaneMetrics(), LaneMetrics()
    one.emit(InsertDone("events"))
    assert ("adledger_inserts_total", (("outcome", "ok"), ("table", "events"))) not in samples(other)
