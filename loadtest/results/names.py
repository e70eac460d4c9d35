"""The names in a run folder: tags of histograms, columns of seconds.csv, metrics of a summary."""

from collections.abc import Mapping

TAG_DUE, TAG_LOG_TIME = "due", "log_time"
"""Freshness of a record until queries return it: from when the schedule wanted it sent, so that a stall of
anything shows; and from when the broker had appended it."""

PARTS = ("worker", "broker", "clickhouse", "generator")
"""Whose CPU and memory is sampled; all processes of one part are added up."""

STAGES = (
    "compute",
    "texts",
    "pace",
    "intend",
    "announce",
    "events",
    "dead_letters",
    "rollup_minute",
    "ledger",
)
"""Stages of a batch, as workers name them in adledger_stage_duration_seconds; others are left out of seconds.csv."""

SECONDS: Mapping[str, str] = {
    "second": "seconds since the load began (the warm-up's are negative)",
    "time_ms": "ms since the epoch at the second's end",
    "target_per_second": "events whose turn came in this second, by the schedule",
    "sent": "events handed to the log in this second",
    "acknowledged": "events that the log acknowledged in this second",
    "consumed": "events whose ledger row was seen first in this second",
    "lag_records": "acknowledged and not consumed, at the second's end",
    "behind_ms": "how late the sender's latest send of this second was, against its schedule",
    "freshness_p50_ms": "of the events seen in this second, from due to queryable",
    "freshness_p90_ms": "the same",
    "freshness_p99_ms": "the same",
    "freshness_p999_ms": "the same (99.9 of 100)",
    "freshness_max_ms": "the same",
    "log_time_freshness_p50_ms": "of the events seen in this second, from the broker's append to queryable",
    **{f"log_time_freshness_{of}_ms": "the same" for of in ("p90", "p99", "p999", "max")},
    "batches": "batches whose ledger row was seen first in this second",
    "batch_rows_mean": "records of these batches, on average",
    "inserts": "inserts into ClickHouse, all tables (workers' metrics)",
    "parts": "active parts of the run's database",
    "doubts": "batches that came in doubt (workers' metrics)",
    **{f"{part}_cpu_cores": f"CPU of the {part}, in cores" for part in PARTS},
    **{f"{part}_memory_bytes": f"resident memory of the {part}" for part in PARTS},
    **{f"stage_{stage}_ms": f"mean wall time of the stage {stage} of the batches of this second" for stage in STAGES},
}  # fmt: skip
"""Columns of seconds.csv, in order, and what they hold."""

METRICS: Mapping[str, str] = {
    "events_sent": "events that the log acknowledged, warm-up included",
    "dropped_events": "events whose turn came and that were not sent by the end of the load",
    "send_errors": "batches of events whose delivery failed",
    "rate.mean": "events acknowledged a second, over the load",
    "consumed_rate.mean": "events that came to be queryable a second, from the load's begin to the last of them",
    "freshness_ms.med": "ms from due to queryable, over the load without warm-up",
    "freshness_ms.p(90)": "the same",
    "freshness_ms.p(99)": "the same",
    "freshness_ms.p(99.9)": "the same",
    "freshness_ms.max": "the same",
    "freshness_ms.avg": "the same",
    "log_time_freshness_ms.med": "ms from the broker's append to queryable",
    "log_time_freshness_ms.p(90)": "the same",
    "log_time_freshness_ms.p(99)": "the same",
    "log_time_freshness_ms.p(99.9)": "the same",
    "log_time_freshness_ms.max": "the same",
    "lag_records.max": "largest lag at a second's end",
    "behind_ms.max": "the latest send against its schedule",
    "generator_behind_ms.max": "how late the generator itself was: beyond a second the run is invalid",
    "drain_seconds": "from the load's end to its last event queryable; None: it was not drained",
    "batch_rows.mean": "records of a batch",
    "inserts_per_second.mean": "inserts into ClickHouse",
    "parts.max": "active parts of the run's database",
    **{f"{part}_cpu_cores.mean": f"CPU of the {part} over the load, in cores" for part in PARTS},
    **{f"{part}_memory_bytes.max": f"resident memory of the {part}" for part in PARTS},
    "worker_cpu_us_per_event": "CPU of the workers for an event, in microseconds",
    "unequal_rows": "publisher-minute rows and counts that differ from the ground truth; None: not verified",
}  # fmt: skip
"""Every metric of a summary."""
