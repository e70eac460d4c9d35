"""The metrics of a worker: names, units, labels and help. Never a publisher or a user as a label, and no money but what waits for closings.

`METRICS` is the whole list; docs/operations.md explains each of them.
"""

from dataclasses import dataclass


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
MALFORMED = MetricSpec(
    "adledger_malformed_total", "counter", "records", ("reason",),
    "Malformed records of the batches that this worker computed, by reason. A batch that is computed again counts again.",
)  # fmt: skip
RULE_HITS = MetricSpec(
    "adledger_rule_hits_total", "counter", "events", ("rule",),
    "Events that a fraud rule hit, whether it is enforced or only flags, of the batches that this worker computed. A batch that "
    "is computed again counts again.",
)  # fmt: skip
MISROUTED = MetricSpec(
    "adledger_misrouted_total", "counter", "events", (),
    "Events whose key or partition is not the contract's: a producer's partitioner is not murmur2. Counted as rule hits are.",
)  # fmt: skip
CONFLICTS = MetricSpec(
    "adledger_duplicate_conflicts_total", "counter", "events", (),
    "Duplicates whose payload differs from the first event's: a bug or fraud. Counted as rule hits are.",
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
CLOSED = MetricSpec(
    "adledger_periods_closed_timestamp_seconds", "gauge", "seconds since the epoch", (),
    "End of the last closed period. Like all of adledger_period*: of the owner of lane 0, 0 elsewhere, if period_closing_enabled.",
)  # fmt: skip
PERIODS_WAITING = MetricSpec(
    "adledger_periods_waiting", "gauge", "periods", (), "Periods that some lane is past the close of, and that are open."
)  # fmt: skip
HELD = MetricSpec(
    "adledger_period_held_timestamp_seconds", "gauge", "seconds since the epoch", ("lane",),
    "When a lane that holds periods open completed its last batch; 0: never.",
)  # fmt: skip
MONEY_WAITING = MetricSpec(
    "adledger_period_money_waiting", "gauge", "of the currency", ("currency",),
    "Billable money of the waiting periods, rounded: `adledger periods status` has it exactly.",
)  # fmt: skip
CLOSING_FAILED = MetricSpec(
    "adledger_period_closing_failed", "gauge", "1 or 0", (),
    "1 while periods can't be closed: rollup_minute, events and ledger differ, or ClickHouse refuses.",
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
LANES = MetricSpec(
    "adledger_log_lanes", "gauge", "lanes", (),
    "Lanes of the log, all workers' together: partitions of each event topic.",
)  # fmt: skip
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
    BUILD, EVENTS, MALFORMED, RULE_HITS, MISROUTED, CONFLICTS, BATCHES, NOT_EVALUATED, ALERTS, CLOSED, PERIODS_WAITING, HELD, MONEY_WAITING, CLOSING_FAILED, ROWS, STAGE, INSERTS, FETCHED, LAG, CLOCK, PHASE, OWNED, LANES, TAKEN, RELEASED, DEDUPE, DOUBTS,
    RETRIES, ROLLUP_MESSAGES, LIVE_MESSAGES, LIVE_RECORDS, LIVE_GIVEN_UP, LIVE_PUBLISHER_MINUTES, LIVE_BYTES,
)  # fmt: skip
"""adledger's own metrics. The registry also has the process's, under Prometheus's names (process_cpu_seconds_total ...)."""
