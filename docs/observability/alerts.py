"""The alerts: the source of the Prometheus rules and of the table in docs/operations.md."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

CRITICAL, WARNING = "critical", "warning"
"""The label `severity`: what wakes somebody, and what can wait for the morning."""
RETENTION_HOURS = 96
"""What docs/operations.md recommends for the topics; with another retention, change the rule in your copy."""
MEMORY_LIMIT_GIB = 4
"""A worker's limit in docs/kubernetes; with another limit, change the rule in your copy."""
RUNBOOK = "https://github.com/adledger/adledger/blob/main/docs/operations.md#alerts-and-what-to-do"

_OURS = "and on (job, instance) adledger_build_info"
_LAG = "max by (job) (time() - adledger_lane_clock_timestamp_seconds)"


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One alert. `hold` is for how long the expression must be true, "" for not at all; `severity` is CRITICAL or WARNING.

    `summary` may name labels as Prometheus' templates do; `action` is Markdown for the table.
    """

    name: str
    title: str
    expr: str
    hold: str
    severity: str
    summary: str
    action: str


ALERTS: Sequence[AlertRule] = (
    AlertRule(
        "AdledgerLaneHalted", "a lane is halted",
        'max by (job, lane) (adledger_lane_phase{phase="halted"}) == 1', "", CRITICAL,
        "Lane {{ $labels.lane }} of {{ $labels.job }} is halted: an operator must decide",
        "`adledger lane status` shows what was found and which command resolves it ([all reasons](#halted-lanes)). Nothing is "
        "lost while the lane is halted, and the other lanes continue. Watch Kafka's retention",
    ),
    AlertRule(
        "AdledgerLanesWithoutOwner", "lanes without an owner",
        "sum by (job) (adledger_lanes_owned) < max by (job) (adledger_log_lanes) or absent(adledger_log_lanes)", "2m", CRITICAL,
        "Some lanes have no worker, or no worker is scraped",
        "a worker is missing, or the group keeps rebalancing: check the workers' `group ...` lines; start a worker",
    ),
    AlertRule(
        "AdledgerFallingBehind", "falling behind", f"{_LAG} > 300", "1m", WARNING,
        "A lane of {{ $labels.job }} is more than 5 minutes behind",
        "`adledger_stage_duration_seconds` tells which stage takes the time. `compute`: add workers, up to one a lane. Inserts: "
        "ClickHouse (next row). `pace`: raise `inserts_per_second_max` or `batch_age_ms_max`",
    ),
    AlertRule(
        "AdledgerClickHouseAway", "ClickHouse away",
        'max by (job) (adledger_lane_phase{phase="waiting"}) == 1', "1m", CRITICAL,
        "Lanes of {{ $labels.job }} wait for ClickHouse",
        "bring it back; workers wait as long as it takes, keep their membership, fetch nothing meanwhile, and catch up "
        "automatically",
    ),
    AlertRule(
        "AdledgerDoubts", "doubts", "sum by (job) (increase(adledger_doubts_total[10m])) > 3", "", WARNING,
        "Batches of {{ $labels.job }} are in doubt too often",
        "each costs its lane about the deadline. Timeouts: inserts take longer than `write_deadline_seconds`; check "
        "ClickHouse's parts and merges. Otherwise check the network",
    ),
    AlertRule(
        "AdledgerInsertsRefused", "refused inserts",
        'sum by (job, table) (increase(adledger_inserts_total{outcome="InsertRefused"}[10m])) > 0', "", WARNING,
        "ClickHouse refuses inserts into {{ $labels.table }}",
        "the log line has the server's error: too many parts, memory, no space on the disk (code 243: free some, then lanes "
        "continue automatically), clock (`in_time`): compare its clock with `adledger doctor`",
    ),
    AlertRule(
        "AdledgerMalformed", "malformed",
        'sum by (job) (rate(adledger_events_total{class="malformed"}[5m])) / sum by (job) (rate(adledger_events_total[5m])) > 0.01',
        "", WARNING, "More than 1 % of the records of {{ $labels.job }} are malformed",
        "`adledger_malformed_total` has the reasons; `adledger dead-letters list` shows field, value, what is allowed and the "
        "publisher, and counts them; usually a producer's release: `adledger check` finds it before that is sent",
    ),
    AlertRule(
        "AdledgerMisrouted", "misrouted", "sum by (job) (increase(adledger_misrouted_total[1h])) > 0", "", WARNING,
        "A producer of {{ $labels.job }} uses another partitioner than murmur2",
        "`adledger doctor` names the topic: the producer's `partitioner=murmur2_random` ([producers](events.md#producers)); such "
        "events count once within their lane only",
    ),
    AlertRule(
        "AdledgerRulesNotEvaluated", "rules not evaluated",
        "sum by (job, rule) (increase(adledger_rule_not_evaluated_total[1h])) > 0", "", WARNING,
        "Rule {{ $labels.rule }} could not be evaluated on some events",
        "`adledger doctor` shows which and why: a list (upgrade its package), or no publishers yet (`adledger publishers "
        "import`, or publish rules with UNKNOWN_PUBLISHER and PUBLISHER_SUSPENDED off)",
    ),
    AlertRule(
        "AdledgerRulesAlert", "a rule was demoted, or a set refused",
        "sum by (job, kind) (increase(adledger_alerts_total[10m])) > 0", "", WARNING,
        "Fraud rules: {{ $labels.kind }}",
        "`adledger rules status`: the rule, its share and bounds, the lane. An analyst publishes another set, or `adledger "
        "rules resume RULE`",
    ),
    AlertRule(
        "AdledgerPeriodHeld", "a period is held back", "max by (job) (adledger_periods_waiting) > 2", "10m", WARNING,
        "Billing periods of {{ $labels.job }} can't close: a lane holds them open",
        "`adledger periods status`: which lanes, since when, and how much money waits. Bring the lane back, or leave it out with "
        "`adledger periods leave-out`: what it reads later becomes adjustments",
    ),
    AlertRule(
        "AdledgerClosingFailed", "closing fails", "max by (job) (adledger_period_closing_failed) == 1", "2m", CRITICAL,
        "Billing periods of {{ $labels.job }} can't be closed",
        "the log line `closing periods failed` has the reason. Where `rollup_minute`, `events` and the ledger differ, it names the "
        "period, publishers and batches, and `adledger ledger check` the table that was altered. Nothing closes until they agree",
    ),
    AlertRule(
        "AdledgerLagNearRetention", "lag near retention", f"{_LAG} > {RETENTION_HOURS * 1800}", "", CRITICAL,
        "A lane of {{ $labels.job }} is behind by half of the topics' retention",
        f"half of {RETENTION_HOURS} h of retention: raise the topics' retention *now* (`kafka-configs.sh --alter --add-config "
        "retention.ms=...`), then find the cause",
    ),
    AlertRule(
        "AdledgerMemory", "memory", f"process_resident_memory_bytes > 0.8 * {MEMORY_LIMIT_GIB} * 2 ^ 30 {_OURS}", "5m", WARNING,
        "{{ $labels.instance }} uses more than 80 % of its memory",
        f"80 % of a limit of {MEMORY_LIMIT_GIB} GiB: `adledger_dedupe_entries` shows the window's share; more workers spread the "
        "lanes; a smaller `batch_bytes_max` bounds the rest",
    ),
)  # fmt: skip
"""In the order of the table."""


def rules_yaml() -> str:
    """Return the rule file; every string is quoted, as JSON."""
    lines = ["# Generated by `make observability` from docs/observability/alerts.py.", "groups:", "  - name: adledger", "    rules:"]  # fmt: skip
    for alert in ALERTS:
        lines += [f"      - alert: {alert.name}", f"        expr: {json.dumps(alert.expr)}"]
        if alert.hold:
            lines.append(f"        for: {alert.hold}")
        lines += [
            "        labels:", f"          severity: {alert.severity}", "        annotations:",
            f"          summary: {json.dumps(alert.summary)}", f"          runbook_url: {json.dumps(RUNBOOK)}",
        ]  # fmt: skip
    return "\n".join(lines) + "\n"


def table() -> str:
    """Return the table of docs/operations.md."""
    rows = ["| alert | expression | what to do |", "| --- | --- | --- |"]
    for alert in ALERTS:
        hold = f" for {alert.hold.removesuffix('m')} min" if alert.hold else ""
        rows.append(f"| {alert.title} | `{alert.expr}`{hold} | {alert.action} |")
    return "\n".join(rows) + "\n"
