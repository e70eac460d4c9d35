"""A run in words: the verdict for a manager first, then four figures with their background."""

from dataclasses import dataclass

from adledger.loadtest.profiles.thresholds import parse_threshold
from adledger.loadtest.report.figures import latency, metric, number
from adledger.loadtest.results.names import METRICS
from adledger.loadtest.results.run_folder import Run, RunSummary, RunVerdict, ThresholdResult

GOOD, BAD, VOID = "good", "bad", "void"
"""The verdict's kinds: held; crossed; says nothing about the system."""

MARKS = {GOOD: "✓", BAD: "✗", VOID: "!"}

MEANINGS = {
    "freshness_ms": "from when an event was due until queries return it",
    "log_time_freshness_ms": "from when the broker had an event until queries return it",
    "dropped_events": "events that were not sent in time",
    "send_errors": "deliveries that failed",
    "unequal_rows": "publisher-minutes and counts that differ from the ground truth",
    "lag_records": "events in the log and not yet queryable",
    "behind_ms": "the latest send against its schedule",
    "generator_behind_ms": "how late the generator itself was",
    "rate": "events a second that the log took",
    "consumed_rate": "events a second that became queryable",
    "drain_seconds": "from the last send until all was queryable",
    "worker_cpu_us_per_event": "CPU of the workers for an event",
}
"""What a threshold's metric measures, for readers who don't write profiles."""

EVENTS = {
    "med": "Half of the events took up to", "p(90)": "90 of 100 events took up to",
    "p(99)": "99 of 100 events took up to", "p(99.9)": "999 of 1,000 events took up to",
    "max": "The slowest event took", "avg": "On average an event took",
}  # fmt: skip
"""Aggregation of freshness -> the words before its value: a share of the events, or one event."""

COMPARISONS = {"<": "less than", "<=": "at most", ">": "more than", ">=": "at least", "==": "exactly", "!=": "other than"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Headline:
    """The verdict: `kind` is GOOD, BAD or VOID."""

    kind: str
    title: str
    sentence: str

    @property
    def mark(self) -> str:
        """A tick, a cross, or an exclamation mark: colour is not the only sign."""
        return MARKS[self.kind]


@dataclass(frozen=True, slots=True)
class Tile:
    """A key figure, what it is, and its background. `kind` is "" where it is neither good nor bad."""

    label: str
    value: str
    detail: str
    kind: str = ""


def headline(run: Run, summary: RunSummary) -> Headline:
    """Return the verdict in words."""
    what = f"{rate_asked(run)} for {run.duration_seconds:g} s"
    match summary.verdict:
        case RunVerdict.HELD:
            return _held(what, summary)
        case RunVerdict.CROSSED:
            return _crossed(what, summary)
        case RunVerdict.UNVERIFIED:
            return Headline(VOID, "Not verified", f"No threshold was crossed at {what}, but the tables could not be compared with the ground truth. Don't count it as held.")  # fmt: skip
        case RunVerdict.INTERRUPTED:
            return Headline(VOID, "Interrupted", "The run ended early. The figures cover the time until then; there is no verdict.")  # fmt: skip
        case RunVerdict.INVALID:
            return Headline(VOID, "Invalid run", "The requested load was not produced. Don't use these figures: they say nothing about the system.")  # fmt: skip


def tiles(run: Run, summary: RunSummary) -> tuple[Tile, ...]:
    """Return rate, freshness, counting and cost."""
    return _rate(run, summary), _freshness(summary), _counted(summary), _cost(summary)


def meaning(result: ThresholdResult) -> str:
    """Return what a threshold is about, in words."""
    return MEANINGS.get(result.metric, METRICS.get(result.metric, ""))


def reasons(summary: RunSummary) -> tuple[str, ...]:
    """Return why it did not hold: crossed thresholds in words, anything else as the run states it."""
    crossed = tuple(_reason(result) for result in summary.thresholds if not result.held)
    return crossed if crossed and summary.verdict is RunVerdict.CROSSED and not summary.steps else summary.why


def rate_asked(run: Run) -> str:
    """Return the requested rate."""
    return f"{number(run.rate_per_second)} events/s" if run.rate_per_second else "as many events as possible"


def cautions(run: Run, summary: RunSummary) -> tuple[str, ...]:
    """Return what a reader must know before trusting the figures."""
    found = []
    cores, busy = run.environment.get("cores"), run.environment.get("load_average_before")
    if isinstance(cores, int) and isinstance(busy, int | float) and busy > cores / 2:
        found.append(
            f"The machine was busy before the run began: load average {number(busy)} on {cores} cores. "
            "Measure on a quiet machine for better figures."
        )
    if run.environment.get("one_machine"):
        found.append("Generator, broker, workers and ClickHouse shared one machine, and its cores.")
    if summary.metrics.get("drain_seconds") is None:
        found.append("Not every event became queryable within the run. Freshness covers those that did.")
    return tuple(found)


def _reason(result: ThresholdResult) -> str:
    asked = parse_threshold(result.metric, result.expression)
    freshness = result.metric.endswith("freshness_ms")
    if result.value is None:
        return f"{meaning(result)}: nothing was measured"
    found = latency(result.value) if freshness else metric(result.metric, result.value)
    bound = latency(asked.bound) if freshness else metric(result.metric, asked.bound)
    who = EVENTS.get(asked.aggregation, "")
    text = f"{who} {found} {meaning(result)}" if freshness and who else f"{meaning(result)}: {found}"
    return f"{text}; {COMPARISONS[asked.comparison]} {bound} is required"


def _held(what: str, summary: RunSummary) -> Headline:
    if summary.steps:
        return Headline(
            GOOD, f"Holds {number(summary.rate_max_per_second)} events/s",
            f"The highest that held of {len(summary.steps)} rates that were tried, each a run of its own. "
            "What follows is the run at that rate.",
        )  # fmt: skip
    if not summary.verification.ran:
        return Headline(GOOD, "Held, counts not verified", f"Thresholds held at {what}. The tables were not compared with the ground truth ({summary.verification.why_not}).")  # fmt: skip
    return Headline(GOOD, "Held, and counted exactly", f"Thresholds held at {what}, and every table is as expected.")  # fmt: skip


def _crossed(what: str, summary: RunSummary) -> Headline:
    if summary.verification.ran and not summary.verification.equal:
        return Headline(BAD, "Counted wrongly", f"At {what} the tables differ from the ground truth. A system that counts wrongly does not hold, however fast it is.")  # fmt: skip
    crossed, all_of_them = sum(not t.held for t in summary.thresholds), len(summary.thresholds)
    of = "The threshold" if all_of_them == 1 else f"{crossed} of {all_of_them} thresholds"
    return Headline(BAD, "Did not hold", f"{of} {'was' if crossed == 1 else 'were'} crossed at {what}.")


def _rate(run: Run, summary: RunSummary) -> Tile:
    metrics = summary.metrics
    held = summary.verdict is RunVerdict.HELD
    mean, dropped = metrics.get("rate.mean"), metrics.get("dropped_events")
    asked = f"requested: {rate_asked(run)}" if run.rate_per_second else "as fast as possible"
    lost = f"; {number(dropped)} not sent in time" if dropped else ""
    drained, consumed = metrics.get("drain_seconds"), metrics.get("consumed_rate.mean")
    queryable = (
        f"Only {number(consumed)} a second became queryable"
        if drained is None
        else f"All was queryable {number(drained)} s after the last send"
    )
    return Tile(
        "Rate held" if held else "Rate",
        f"{number(mean)} events/s",
        f"{asked}{lost}. {queryable}",
        GOOD if held else "",
    )


def _freshness(summary: RunSummary) -> Tile:
    metrics = summary.metrics
    results = [t.held for t in summary.thresholds if t.metric == "freshness_ms"]
    kind = (GOOD if all(results) else BAD) if results and summary.verdict is not RunVerdict.INVALID else ""
    if kind == GOOD and metrics.get("drain_seconds") is None:
        kind = ""
    median, most = latency(metrics.get("freshness_ms.med")), latency(metrics.get("freshness_ms.max"))
    return Tile(
        "Freshness, 99 of 100 events within", latency(metrics.get("freshness_ms.p(99)")),
        f"half within {median}, the slowest {most}; from when it was due until queries return it", kind,
    )  # fmt: skip


def _counted(summary: RunSummary) -> Tile:
    found = summary.verification
    if not found.ran:
        return Tile("Counted", "Not verified", found.why_not, VOID)
    if found.equal:
        detail = f"{found.records_expected:,} records in {found.rows_compared:,} publisher-minutes, to the record and the nano"
        return Tile("Counted", "Exactly", detail, "" if summary.verdict is RunVerdict.INVALID else GOOD)
    detail = (
        f"{found.rows_wrong:,} of {found.rows_compared:,} publisher-minutes differ from the ground truth; "
        f"{found.records_found:,} records instead of {found.records_expected:,}"
    )
    return Tile("Counted", "Wrongly", detail, BAD)


def _cost(summary: RunSummary) -> Tile:
    cost = summary.metrics.get("worker_cpu_us_per_event")
    value = f"{number(1e6 / cost)} events" if cost else number(None)
    cores = number(summary.metrics.get("worker_cpu_cores.mean"))
    return Tile("For one CPU-second of the workers", value, f"{number(cost)} µs an event; {cores} cores on average")  # fmt: skip
