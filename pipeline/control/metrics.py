"""What a worker counts, as Prometheus reads it. Never a publisher or a user as a label, and no money.

`METRICS` is the whole list; docs/operations.md explains each of them.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Metric,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from adledger import __version__
from adledger.pipeline.control.monitor import PublisherMonitor
from adledger.pipeline.lanes.emit import Event
from adledger.pipeline.lanes.events import (
    BatchDone,
    BatchInDoubt,
    InsertDone,
    InsertFailed,
    LaneReleased,
    Phase,
    PhaseChanged,
    RecordsFetched,
    RestartScheduled,
    RetryScheduled,
    RulesNotEvaluated,
    StageTimed,
)
from adledger.pipeline.lanes.worker_events import AlertRaised
from adledger.schemas.classes import CLASS_NAMES, Class

STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_ROWS = (0, 1, 10, 100, 1_000, 4_096, 16_384, 65_536, 131_072, 262_144, 524_288, 1_048_576)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric: its full name as it is scraped, its type, its unit, labels, and its help."""

    name: str
    kind: str  # counter, gauge, histogram
    unit: str
    labels: tuple[str, ...]
    help: str


BUILD = MetricSpec("adledger_build_info", "gauge", "1", ("version",), "The release that runs; always 1.")
EVENTS = MetricSpec(
    "adledger_events_total", "counter", "records", ("class",),
    "Records that this worker brought into the ledger, by what became of them.",
)  # fmt: skip
BATCHES = MetricSpec(
    "adledger_batches_total", "counter", "batches", (), "Batches that this worker brought into the ledger."
)
NOT_EVALUATED = MetricSpec(
    "adledger_rule_not_evaluated_total", "counter", "events", ("rule",),
    "Events on which a fraud rule could not be evaluated: its list or table is missing or too old, or more happened "
    "within its horizon than the lane remembers. Of adledger_events_total without malformed: the decision rate.",
)  # fmt: skip
ALERTS = MetricSpec(
    "adledger_alerts_total", "counter", "alerts", ("kind",),
    "Alerts that this worker raised: breach (a guardrail demoted a rule to flag), refused (a published rule set that can't "
    "be used). `adledger rules status` shows them.",
)  # fmt: skip
ROWS = MetricSpec(
    "adledger_batch_rows", "histogram", "records", (),
    "Records of a batch: many small batches mean many inserts of few rows.",
)  # fmt: skip
STAGE = MetricSpec(
    "adledger_stage_duration_seconds", "histogram", "seconds", ("stage",),
    "Wall time that a stage of one batch took, where it succeeded: compute, texts, pace, intend, announce, and each "
    "table's insert.",
)  # fmt: skip
INSERTS = MetricSpec(
    "adledger_inserts_total", "counter", "inserts", ("table", "outcome"),
    "Inserts into ClickHouse: ok, or what they failed with. A failed one puts its batch in doubt.",
)  # fmt: skip
FETCHED = MetricSpec(
    "adledger_fetch_bytes_total", "counter", "bytes", (), "Bytes of records fetched from the log."
)
LAG = MetricSpec(
    "adledger_consumer_lag_records", "gauge", "records", ("topic", "partition"),
    "Records that waited behind the last fetch of a partition.",
)  # fmt: skip
CLOCK = MetricSpec(
    "adledger_lane_clock_timestamp_seconds", "gauge", "seconds since the epoch", ("lane",),
    "Watermark behind the last batch of a lane: its tables are complete up to then.",
)  # fmt: skip
PHASE = MetricSpec(
    "adledger_lane_phase",
    "gauge",
    "1 or 0",
    ("lane", "phase"),
    "1 for the phase that a lane of this worker is in.",
)
OWNED = MetricSpec("adledger_lanes_owned", "gauge", "lanes", (), "Lanes that this worker has.")
TAKEN = MetricSpec(
    "adledger_lanes_taken_total", "counter", "lanes", (),
    "Lanes that the group gave to this worker; it increases with each rebalance that moves lanes here.",
)  # fmt: skip
RELEASED = MetricSpec(
    "adledger_lanes_released_total", "counter", "lanes", (), "Lanes that this worker released."
)
DEDUPE = MetricSpec(
    "adledger_dedupe_entries",
    "gauge",
    "ids",
    ("lane",),
    "Ids in a lane's dedupe window: they determine its memory.",
)
DOUBTS = MetricSpec(
    "adledger_doubts_total", "counter", "batches", (),
    "Batches whose outcome was unknown, and which had to be settled.",
)  # fmt: skip
RETRIES = MetricSpec(
    "adledger_retries_total",
    "counter",
    "attempts",
    (),
    "Attempts of any lane that failed and are followed by another.",
)
ROLLUP_MESSAGES = MetricSpec(
    "adledger_rollup_messages_total", "counter", "batches", ("outcome",),
    "Batches announced in ad.rollups: sent, or failed, which puts the batch in doubt.",
)  # fmt: skip
LIVE_MESSAGES = MetricSpec(
    "adledger_live_messages_total", "counter", "messages", ("outcome",),
    "Messages from ad.rollups to the live pages: absorbed, repeated, or unreadable.",
)  # fmt: skip
LIVE_RECORDS = MetricSpec(
    "adledger_live_records_total", "counter", "records", ("outcome",),
    "Records that the live pages counted, or that came late, for a minute that is no longer kept.",
)  # fmt: skip
LIVE_GIVEN_UP = MetricSpec(
    "adledger_live_minutes_given_up_total", "counter", "minutes", (),
    "Minutes that the live pages dropped early, for lack of room.",
)  # fmt: skip
LIVE_PUBLISHER_MINUTES = MetricSpec(
    "adledger_live_publisher_minutes",
    "gauge",
    "publisher-minutes",
    (),
    "Publisher-minutes that the live pages hold.",
)
LIVE_BYTES = MetricSpec("adledger_live_bytes", "gauge", "bytes", (), "Memory of the live pages' tables.")

METRICS = (
    BUILD, EVENTS, BATCHES, NOT_EVALUATED, ALERTS, ROWS, STAGE, INSERTS, FETCHED, LAG, CLOCK, PHASE, OWNED, TAKEN, RELEASED, DEDUPE, DOUBTS,
    RETRIES, ROLLUP_MESSAGES, LIVE_MESSAGES, LIVE_RECORDS, LIVE_GIVEN_UP, LIVE_PUBLISHER_MINUTES, LIVE_BYTES,
)  # fmt: skip
"""adledger's own metrics. The registry also has the process's, under Prometheus's names (process_cpu_seconds_total ...)."""


class LaneMetrics:
    """Counts events, in its own registry.

    Cheap. Measurements and `rollup_message` may come from any thread, other events from one.
    """

    content_type = CONTENT_TYPE_PLAIN_0_0_4

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._gauge(BUILD).labels(__version__).set(1)
        self._events, self._batches = self._counter(EVENTS), self._counter(BATCHES)
        for of_records in Class:
            self._events.labels(CLASS_NAMES[of_records])
        self._not_evaluated = self._counter(NOT_EVALUATED)
        self._alerts = self._counter(ALERTS)
        self._rows = self._histogram(ROWS, BATCH_ROWS)
        self._stages = self._histogram(STAGE, STAGE_SECONDS)
        self._inserts, self._fetched = self._counter(INSERTS), self._counter(FETCHED)
        self._lag, self._clock = self._gauge(LAG), self._gauge(CLOCK)
        self._phase, self._owned = self._gauge(PHASE), self._gauge(OWNED)
        self._taken, self._released = self._counter(TAKEN), self._counter(RELEASED)
        self._dedupe = self._gauge(DEDUPE)
        self._doubts, self._retries = self._counter(DOUBTS), self._counter(RETRIES)
        self._rollup_messages = self._counter(ROLLUP_MESSAGES)
        self._phases: dict[int, Phase] = {}
        self._in_doubt: dict[int, int] = {}  # lane -> its last batch in doubt
        self._topics: set[str] = set()
        self._of: Mapping[type[Event], Callable[[Any], None]] = {
            PhaseChanged: self._enter,
            BatchInDoubt: self._doubt,
            RetryScheduled: lambda _: self._retries.inc(),
            RestartScheduled: lambda _: self._retries.inc(),
            RecordsFetched: self._fetch,
            RulesNotEvaluated: self._not_evaluated_by,
            StageTimed: lambda e: self._stages.labels(e.stage).observe(e.seconds),
            InsertDone: lambda e: self._inserts.labels(e.table, "ok").inc(),
            InsertFailed: lambda e: self._inserts.labels(e.table, e.error).inc(),
            BatchDone: self._batch,
            AlertRaised: lambda e: self._alerts.labels(e.kind).inc(),
            LaneReleased: lambda e: self._forget(e.lane),
        }

    def render(self) -> bytes:
        """Return the page that Prometheus scrapes, of `content_type`."""
        return generate_latest(_WithoutCreated(self.registry))

    def emit(self, event: Event) -> None:
        """Count an event, or show its value; other events count nowhere."""
        if (count := self._of.get(type(event))) is not None:
            count(event)

    def _enter(self, event: PhaseChanged) -> None:
        lane = event.lane
        if lane not in self._phases:
            self._taken.inc()
            for known in Phase:
                self._phase.labels(lane, known.value).set(0)
        elif (before := self._phases[lane]) is not event.phase:
            self._phase.labels(lane, before.value).set(0)
        self._phases[lane] = event.phase
        self._phase.labels(lane, event.phase.value).set(1)
        self._owned.set(len(self._phases))

    def _doubt(self, event: BatchInDoubt) -> None:
        """Count a batch once: a lane that starts again settles the same one."""
        if self._in_doubt.get(event.lane) != event.batch_no:
            self._in_doubt[event.lane] = event.batch_no
            self._doubts.inc()

    def _fetch(self, event: RecordsFetched) -> None:
        self._topics.add(event.topic)
        self._fetched.inc(event.size)
        self._lag.labels(event.topic, event.lane).set(event.lag)

    def _not_evaluated_by(self, event: RulesNotEvaluated) -> None:
        for rule, count in event.events.items():
            self._not_evaluated.labels(rule.name).inc(count)

    def _batch(self, event: BatchDone) -> None:
        entry = event.entry
        self._batches.inc()
        self._rows.observe(entry.records_received)
        for code, records in entry.counts.items():
            self._events.labels(CLASS_NAMES[Class(code)]).inc(records)
        self._clock.labels(entry.lane).set(entry.clock_after / 1000)
        self._dedupe.labels(entry.lane).set(event.dedupe_entries)

    def _forget(self, lane: int) -> None:
        """Stop showing a lane: its next owner shows it."""
        if self._phases.pop(lane, None) is None:
            return
        self._in_doubt.pop(lane, None)
        self._released.inc()
        self._owned.set(len(self._phases))
        for phase in Phase:
            self._phase.remove(lane, phase.value)
        for topic in self._topics:
            self._lag.remove(topic, lane)
        self._clock.remove(lane)
        self._dedupe.remove(lane)

    def rollup_message(self, outcome: str) -> None:
        """Count a batch announced in ad.rollups: "sent" or "failed"."""
        self._rollup_messages.labels(outcome).inc()

    def show_monitor(self, monitor: PublisherMonitor, unreadable: Callable[[], int]) -> None:
        """Show a publisher monitor's counts at each scrape; `unreadable` returns the number of unreadable messages."""
        self.registry.register(_Live(monitor, unreadable))

    def _counter(self, spec: MetricSpec) -> Counter:
        return Counter(spec.name, spec.help, spec.labels, registry=self.registry)

    def _gauge(self, spec: MetricSpec) -> Gauge:
        return Gauge(spec.name, spec.help, spec.labels, registry=self.registry)

    def _histogram(self, spec: MetricSpec, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(spec.name, spec.help, spec.labels, buckets=buckets, registry=self.registry)


@dataclass(frozen=True, slots=True)
class _Live:
    """A publisher monitor's counts, read at each scrape."""

    monitor: PublisherMonitor
    unreadable: Callable[[], int]

    def collect(self) -> Iterator[Metric]:
        counts = self.monitor.counts
        messages = {"absorbed": counts.messages, "repeated": counts.repeats, "unreadable": self.unreadable()}
        records = {"counted": counts.records, "late": counts.late_records}
        for spec, values in ((LIVE_MESSAGES, messages), (LIVE_RECORDS, records)):
            family = CounterMetricFamily(spec.name, spec.help, labels=spec.labels)
            for outcome, value in values.items():
                family.add_metric([outcome], value)
            yield family
        yield CounterMetricFamily(LIVE_GIVEN_UP.name, LIVE_GIVEN_UP.help, counts.minutes_given_up)
        for spec, value in (
            (LIVE_PUBLISHER_MINUTES, self.monitor.publisher_minutes),
            (LIVE_BYTES, self.monitor.bytes_held),
        ):
            yield GaugeMetricFamily(spec.name, spec.help, value)


@dataclass(frozen=True, slots=True)
class _WithoutCreated:
    """A registry without the `_created` samples that the library adds: they would double the series, and nobody uses them."""

    registry: CollectorRegistry

    def collect(self) -> Iterator[Metric]:
        for metric in self.registry.collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric
