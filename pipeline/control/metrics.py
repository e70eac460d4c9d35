"""Counts what happens in a worker's lanes, as Prometheus reads it: adledger.pipeline.control.metric_specs lists the metrics."""

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
from adledger.pipeline.control.metric_specs import (
    ALERTS,
    BATCHES,
    BUILD,
    CLOCK,
    CLOSED,
    CLOSING_FAILED,
    CONFLICTS,
    DEDUPE,
    DOUBTS,
    EVENTS,
    FETCHED,
    HELD,
    INSERTS,
    LAG,
    LANES,
    LIVE_BYTES,
    LIVE_GIVEN_UP,
    LIVE_MESSAGES,
    LIVE_PUBLISHER_MINUTES,
    LIVE_RECORDS,
    MALFORMED,
    MISROUTED,
    MONEY_WAITING,
    NOT_EVALUATED,
    OWNED,
    PERIODS_WAITING,
    PHASE,
    RELEASED,
    RETRIES,
    ROLLUP_MESSAGES,
    ROWS,
    RULE_HITS,
    STAGE,
    TAKEN,
    MetricSpec,
)
from adledger.pipeline.control.monitor import PublisherMonitor
from adledger.pipeline.errors import InsertRefused
from adledger.pipeline.lanes.emit import Event
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
from adledger.pipeline.rules.registry import RULES
from adledger.schemas.classes import CLASS_NAMES, Class, Reason
from adledger.schemas.tables import PROTOCOL_TABLES
from adledger.schemas.wire import Malformed
from adledger.sinks.rules import AlertKind

STAGE_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
BATCH_ROWS = (0, 1, 10, 100, 1_000, 4_096, 16_384, 65_536, 131_072, 262_144, 524_288, 1_048_576)


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
        self._malformed, self._hits = self._counter(MALFORMED), self._counter(RULE_HITS)
        self._misrouted, self._conflicts = self._counter(MISROUTED), self._counter(CONFLICTS)
        self._not_evaluated = self._counter(NOT_EVALUATED)
        self._alerts = self._counter(ALERTS)
        self._closed, self._periods_waiting = self._gauge(CLOSED), self._gauge(PERIODS_WAITING)
        self._held, self._money_waiting = self._gauge(HELD), self._gauge(MONEY_WAITING)
        self._closing_failed = self._gauge(CLOSING_FAILED)
        self._rows = self._histogram(ROWS, BATCH_ROWS)
        self._stages = self._histogram(STAGE, STAGE_SECONDS)
        self._inserts, self._fetched = self._counter(INSERTS), self._counter(FETCHED)
        self._lag, self._clock = self._gauge(LAG), self._gauge(CLOCK)
        self._phase, self._owned, self._lanes = self._gauge(PHASE), self._gauge(OWNED), self._gauge(LANES)
        self._taken, self._released = self._counter(TAKEN), self._counter(RELEASED)
        self._dedupe = self._gauge(DEDUPE)
        self._doubts, self._retries = self._counter(DOUBTS), self._counter(RETRIES)
        self._rollup_messages = self._counter(ROLLUP_MESSAGES)
        self._begin_at_zero()
        self._phases: dict[int, Phase] = {}
        self._in_doubt: dict[int, int] = {}  # lane -> its last batch in doubt
        self._topics: set[str] = set()
        self._of: Mapping[type[Event], Callable[[Any], None]] = {
            PhaseChanged: self._enter,
            BatchInDoubt: self._doubt,
            RetryScheduled: lambda _: self._retries.inc(),
            RestartScheduled: lambda _: self._retries.inc(),
            RecordsFetched: self._fetch,
            ReasonsCounted: self._count_reasons,
            RulesNotEvaluated: self._not_evaluated_by,
            StageTimed: lambda e: self._stages.labels(e.stage).observe(e.seconds),
            InsertDone: lambda e: self._inserts.labels(e.table, "ok").inc(),
            InsertFailed: lambda e: self._inserts.labels(e.table, e.error).inc(),
            BatchDone: self._batch,
            AlertRaised: lambda e: self._alerts.labels(e.kind).inc(),
            LogJoined: lambda e: self._lanes.set(e.lanes),
            PeriodsSeen: self._periods,
            LaneReleased: lambda e: self._forget(e.lane),
        }

    def _begin_at_zero(self) -> None:
        """Show the series that alerts watch before they count: Prometheus sees no increase in a series that begins at 1."""
        for of_records in Class:
            self._events.labels(CLASS_NAMES[of_records])
        for reason in list(Malformed)[1:]:
            self._malformed.labels(reason.name.lower())
        for rule in RULES:
            self._hits.labels(rule.name)
            self._not_evaluated.labels(rule.name)
        for kind in (AlertKind.BREACH, AlertKind.REFUSED):
            self._alerts.labels(kind.value)
        for table in PROTOCOL_TABLES:
            self._inserts.labels(table, InsertRefused.__name__)

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

    def _count_reasons(self, event: ReasonsCounted) -> None:
        for reason, records in event.malformed.items():
            self._malformed.labels(reason.name.lower()).inc(records)
        for rule, events in event.reasons.items():
            if rule in RULES:
                self._hits.labels(rule.name).inc(events)
        self._misrouted.inc(event.reasons.get(Reason.MISROUTED, 0))
        self._conflicts.inc(event.reasons.get(Reason.DUPLICATE_CONFLICT, 0))

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

    def _periods(self, event: PeriodsSeen) -> None:
        self._closed.set(event.closed_until)
        self._periods_waiting.set(event.periods_waiting)
        self._closing_failed.set(event.failed)
        self._held.clear()
        for lane, since in event.held.items():
            self._held.labels(lane).set(since)
        self._money_waiting.clear()
        for currency, nanos in event.waiting.items():
            self._money_waiting.labels(currency).set(nanos / 1e9)

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
