"""The Grafana dashboards, as JSON: the pipeline's health, and what its traffic is."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SCHEMA_VERSION = 39
"""Grafana's, of release 10.4 and newer; Grafana migrates it itself."""
PANEL_WIDTH, PANEL_HEIGHT, COLUMNS = 12, 8, 24
_JOB = 'job=~"$job"'


@dataclass(frozen=True, slots=True)
class DashboardPanel:
    """A time series: queries as (PromQL, legend), where `$job` filters; `unit` is Grafana's id of it."""

    title: str
    description: str
    unit: str
    queries: Sequence[tuple[str, str]]
    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A dashboard; `uid` is in its address, so it stays."""

    uid: str
    title: str
    panels: Sequence[DashboardPanel]


def _stage(stages: str, share: str) -> str:
    return (
        f"histogram_quantile({share}, sum by (stage, le) (rate(adledger_stage_duration_seconds_bucket"
        f'{{{_JOB}, stage{stages}"events|dead_letters|rollup_minute|ledger"}}[$__rate_interval])))'
    )


_SHARES = (
    f'sum by (class) (rate(adledger_events_total{{{_JOB}, class!="billable"}}[$__rate_interval])) / ignoring (class) '
    f"group_left () sum(rate(adledger_events_total{{{_JOB}}}[$__rate_interval]))"
)

HEALTH = Dashboard(
    "adledger-health", "adledger: health",
    (
        DashboardPanel(
            "Behind, by lane", "How far each lane's watermark is behind the present: freshness, and the lag in seconds.", "s",
            ((f"time() - max by (lane) (adledger_lane_clock_timestamp_seconds{{{_JOB}}})", "lane {{lane}}"),),
        ),
        DashboardPanel(
            "Lanes by phase", "Lanes in each phase; waiting is for ClickHouse, halted is for an operator.", "none",
            ((f"sum by (phase) (adledger_lane_phase{{{_JOB}}})", "{{phase}}"),
             (f"max(adledger_log_lanes{{{_JOB}}}) - sum(adledger_lanes_owned{{{_JOB}}})", "without an owner")), stacked=True,
        ),
        DashboardPanel(
            "Records behind the last fetch", "The consumer lag of each topic.", "short",
            ((f"sum by (topic) (adledger_consumer_lag_records{{{_JOB}}})", "{{topic}}"),),
        ),
        DashboardPanel(
            "Records a batch", "Small batches cost many inserts for few rows.", "short",
            tuple((f"histogram_quantile({q}, sum by (le) (rate(adledger_batch_rows_bucket{{{_JOB}}}[$__rate_interval])))", name)
                  for q, name in (("0.5", "median"), ("0.95", "95 %"))),
        ),
        DashboardPanel("Inserts, 95 %", "Duration of the inserts into each table.", "s", ((_stage("=~", "0.95"), "{{stage}}"),)),
        DashboardPanel("Other stages, 95 %", "Duration of a batch's other stages.", "s", ((_stage("!~", "0.95"), "{{stage}}"),)),
        DashboardPanel(
            "Failed inserts", "Inserts that failed, by their error; each puts its batch in doubt.", "cps",
            ((f'sum by (table, outcome) (rate(adledger_inserts_total{{{_JOB}, outcome!="ok"}}[$__rate_interval]))',
              "{{table}}: {{outcome}}"),),
        ),
        DashboardPanel(
            "Doubts and retries", "Batches whose outcome was unknown, and attempts that another follows.", "cps",
            ((f"sum(rate(adledger_doubts_total{{{_JOB}}}[$__rate_interval]))", "doubts"),
             (f"sum(rate(adledger_retries_total{{{_JOB}}}[$__rate_interval]))", "retries")),
        ),
        DashboardPanel(
            "Memory of a worker", "Resident memory.", "bytes",
            ((f"process_resident_memory_bytes{{{_JOB}}} and on (job, instance) adledger_build_info", "{{instance}}"),),
        ),
        DashboardPanel(
            "CPU of a worker", "Cores in use.", "none",
            ((f"rate(process_cpu_seconds_total{{{_JOB}}}[$__rate_interval]) and on (job, instance) adledger_build_info",
              "{{instance}}"),),
        ),
        DashboardPanel(
            "Ids in the dedupe window", "They determine most of the memory.", "short",
            ((f"sum by (instance) (adledger_dedupe_entries{{{_JOB}}})", "{{instance}}"),), stacked=True,
        ),
        DashboardPanel(
            "Rebalances", "Lanes that workers took and gave back.", "cps",
            ((f"sum(rate(adledger_lanes_taken_total{{{_JOB}}}[$__rate_interval]))", "taken"),
             (f"sum(rate(adledger_lanes_released_total{{{_JOB}}}[$__rate_interval]))", "released")),
        ),
    ),
)  # fmt: skip

TRAFFIC = Dashboard(
    "adledger-traffic", "adledger: traffic",
    (
        DashboardPanel(
            "Records by class", "Records that came into the ledger, each in one class.", "cps",
            ((f"sum by (class) (rate(adledger_events_total{{{_JOB}}}[$__rate_interval]))", "{{class}}"),), stacked=True,
        ),
        DashboardPanel(
            "Share by class", "Of all records in the ledger, without those that are billable.", "percentunit",
            ((_SHARES, "{{class}}"),),
        ),
        DashboardPanel(
            "Malformed, by reason", "`adledger dead-letters list` shows the fields and publishers.", "cps",
            ((f"sum by (reason) (rate(adledger_malformed_total{{{_JOB}}}[$__rate_interval])) > 0", "{{reason}}"),), stacked=True,
        ),
        DashboardPanel(
            "Hits by rule", "Events that a rule hit, whether it is enforced or only flags.", "cps",
            ((f"sum by (rule) (rate(adledger_rule_hits_total{{{_JOB}}}[$__rate_interval])) > 0", "{{rule}}"),),
        ),
        DashboardPanel(
            "Rules that could not be evaluated", "A list is missing or too old, or too much happened within the horizon.", "cps",
            ((f"sum by (rule) (rate(adledger_rule_not_evaluated_total{{{_JOB}}}[$__rate_interval])) > 0", "{{rule}}"),),
        ),
        DashboardPanel(
            "Producers' faults", "Events in another partition than their key's, and duplicates with another payload.", "cps",
            ((f"sum(rate(adledger_misrouted_total{{{_JOB}}}[$__rate_interval]))", "misrouted"),
             (f"sum(rate(adledger_duplicate_conflicts_total{{{_JOB}}}[$__rate_interval]))", "duplicate conflicts")),
        ),
        DashboardPanel(
            "Bytes fetched", "Bytes of records read from the log.", "Bps",
            ((f"sum(rate(adledger_fetch_bytes_total{{{_JOB}}}[$__rate_interval]))", "all workers"),),
        ),
        DashboardPanel(
            "Alerts of fraud rules", "Rules that a guardrail demoted, and sets that workers can't use.", "none",
            ((f"sum by (kind) (increase(adledger_alerts_total{{{_JOB}}}[$__rate_interval]))", "{{kind}}"),),
        ),
    ),
)  # fmt: skip

DASHBOARDS = (HEALTH, TRAFFIC)


def dashboard_json(dashboard: Dashboard) -> str:
    """Return a dashboard's file: Grafana's model, provisioned as it is."""
    return json.dumps(_model(dashboard), indent=2) + "\n"


def _model(dashboard: Dashboard) -> dict[str, Any]:
    return {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "tags": ["adledger"],
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_job_variable()]},
        "panels": [_panel(number, panel) for number, panel in enumerate(dashboard.panels)],
    }


def _job_variable() -> dict[str, Any]:
    return {
        "name": "job", "label": "deployment", "type": "query", "datasource": _SOURCE, "refresh": 2, "multi": True,
        "includeAll": True, "allValue": ".*", "query": {"query": "label_values(adledger_build_info, job)", "refId": "job"},
        "current": {"text": "All", "value": "$__all"},
    }  # fmt: skip


_SOURCE = {"type": "prometheus", "uid": "prometheus"}


def _panel(number: int, panel: DashboardPanel) -> dict[str, Any]:
    per_row = COLUMNS // PANEL_WIDTH
    return {
        "id": number + 1,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "gridPos": {
            "x": number % per_row * PANEL_WIDTH, "y": number // per_row * PANEL_HEIGHT, "w": PANEL_WIDTH, "h": PANEL_HEIGHT,
        },
        "fieldConfig": {
            "defaults": {
                "unit": panel.unit, "min": 0,
                "custom": {"fillOpacity": 20 if panel.stacked else 0, "stacking": {"mode": "normal" if panel.stacked else "none"}},
            },
            "overrides": [],
        },
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"},
        },
        "targets": [
            {"refId": chr(ord("A") + i), "datasource": _SOURCE, "expr": expr, "legendFormat": legend}
            for i, (expr, legend) in enumerate(panel.queries)
        ],
    }  # fmt: skip
