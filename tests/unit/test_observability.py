"""Alert rules and dashboards: current, about metrics that exist, and each alert fires and clears as Prometheus evaluates it."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from adledger.pipeline.control.metric_specs import METRICS
from adledger.pipeline.control.metrics import LaneMetrics
from docs.observability.alerts import ALERTS, RUNBOOK, AlertRule, rules_yaml
from docs.observability.dashboards import DASHBOARDS
from docs.observability.files import BEGIN, END, OPERATIONS, generated
from tests.support.promtool import promtool

LABELS = {metric.name: {*metric.labels, "job", "instance"} for metric in METRICS}
TARGET = 'job="adledger", instance="w1:6066"'
QUERIES = [(f"{d.uid}: {p.title}", query) for d in DASHBOARDS for p in d.panels for query, _ in p.queries]


@pytest.mark.parametrize("path", generated(), ids=lambda path: path.name)
def test_generated_files_are_current(path: Path) -> None:
    """Rules, dashboards and the table of docs/operations.md are what the source says: run `make observability`."""
    assert path.read_text("utf-8") == generated()[path]


def test_the_page_has_the_table_once() -> None:
    """The marks of what is generated are there once, in their order."""
    page = OPERATIONS.read_text("utf-8")
    assert page.count(BEGIN) == page.count(END) == 1
    assert page.index(BEGIN) < page.index(END)


@pytest.mark.parametrize(
    ("name", "query"), [(a.name, a.expr) for a in ALERTS] + QUERIES, ids=lambda v: v if len(v) < 50 else ""
)
def test_queries_are_about_metrics_that_exist(name: str, query: str) -> None:
    """Each name is a metric's (or a histogram's buckets), and each selected label is one of its labels."""
    found = re.findall(r"(adledger_\w+)(?:\{([^}]*)\})?", query)
    assert found
    for metric, selected in found:
        labels = LABELS[metric.removesuffix("_bucket")]
        assert set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", selected)) <= labels, name


def test_every_query_of_a_dashboard_parses(tmp_path: Path) -> None:
    """Prometheus parses each, with Grafana's variables filled in."""
    rules = [
        {"record": f"panel:{i}", "expr": query.replace("$__rate_interval", "5m").replace("$job", ".*")}
        for i, (_, query) in enumerate(QUERIES)
    ]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool(tmp_path, "check", "rules", "rules.yml")


def test_dashboards_are_whole() -> None:
    """Ids are unique, panels fill the grid without overlaps, and every panel says what it shows, with a unit."""
    assert len({d.uid for d in DASHBOARDS}) == len(DASHBOARDS)
    for path, text in generated().items():
        if path.suffix != ".json":
            continue
        model = json.loads(text)
        panels = model["panels"]
        assert model["uid"] == path.stem
        assert len({p["id"] for p in panels}) == len(panels)
        cells = [(p["gridPos"]["x"], p["gridPos"]["y"]) for p in panels]
        assert len(set(cells)) == len(cells)
        for panel in panels:
            assert panel["title"]
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"]["uid"] == "prometheus"


def test_counters_that_alerts_watch_begin_at_zero() -> None:
    """A series that appears with its first count has no increase for Prometheus, so the first refusal would be missed."""
    page = LaneMetrics().render().decode()
    for watched in ('adledger_inserts_total{outcome="InsertRefused",table="ledger"} 0', 'adledger_alerts_total{kind="breach"} 0',
                    'adledger_rule_not_evaluated_total{rule="UA_KNOWN_BOT"} 0', "adledger_misrouted_total 0",
                    "adledger_doubts_total 0", 'adledger_events_total{class="malformed"} 0'):  # fmt: skip
        assert watched in page


class Story(NamedTuple):
    """A series of samples in Prometheus' notation, one a step; the minutes at which the alert is quiet, fires, has cleared."""

    series: dict[str, str]
    quiet: int
    fires: int
    cleared: int
    labels: dict[str, str]
    step_minutes: int = 1


OURS = {"job": "adledger"}
STORIES: dict[str, Story] = {
    "AdledgerLaneHalted": Story(
        {f'adledger_lane_phase{{lane="3", phase="halted", {TARGET}}}': "0x5 1x5 0x10"}, 4, 8, 13, OURS | {"lane": "3"}
    ),
    "AdledgerLanesWithoutOwner": Story(
        {f"adledger_log_lanes{{{TARGET}}}": "16x20", f"adledger_lanes_owned{{{TARGET}}}": "16x5 12x5 16x10"}, 4, 9, 13, OURS
    ),
    "AdledgerPeriodHeld": Story(
        {f"adledger_periods_waiting{{{TARGET}}}": "1x5 3x15 0x10"}, 4, 18, 23, OURS
    ),
    "AdledgerClosingFailed": Story(
        {f"adledger_period_closing_failed{{{TARGET}}}": "0x5 1x5 0x10"}, 4, 9, 13, OURS
    ),
    "AdledgerFallingBehind": Story(
        {f'adledger_lane_clock_timestamp_seconds{{lane="0", {TARGET}}}': "0+60x30",
         f'adledger_lane_clock_timestamp_seconds{{lane="1", {TARGET}}}': "0+60x5 300x10 960+60x15"}, 9, 13, 20, OURS,
    ),
    "AdledgerClickHouseAway": Story(
        {f'adledger_lane_phase{{lane="3", phase="waiting", {TARGET}}}': "0x5 1x5 0x10"}, 5, 9, 13, OURS
    ),
    "AdledgerDoubts": Story({f"adledger_doubts_total{{{TARGET}}}": "0x20 6x40"}, 19, 25, 50, OURS),
    "AdledgerInsertsRefused": Story(
        {f'adledger_inserts_total{{outcome="InsertRefused", table="events", {TARGET}}}': "0x20 1x40",
         f'adledger_inserts_total{{outcome="InsertUnknown", table="ledger", {TARGET}}}': "0+1x60"},
        19, 25, 50, OURS | {"table": "events"},
    ),
    "AdledgerMalformed": Story(
        {f'adledger_events_total{{class="malformed", {TARGET}}}': "0+1x10 10+40x10 410+1x20",
         f'adledger_events_total{{class="billable", {TARGET}}}': "0+1000x40"}, 9, 16, 35, OURS,
    ),
    "AdledgerMisrouted": Story({f"adledger_misrouted_total{{{TARGET}}}": "0x70 2x100"}, 69, 75, 150, OURS),
    "AdledgerRulesNotEvaluated": Story(
        {f'adledger_rule_not_evaluated_total{{rule="IP_DATACENTER", {TARGET}}}': "0x70 2x100"}, 69, 75, 150,
        OURS | {"rule": "IP_DATACENTER"},
    ),
    "AdledgerRulesAlert": Story(
        {f'adledger_alerts_total{{kind="breach", {TARGET}}}': "0x20 1x40"}, 19, 25, 50, OURS | {"kind": "breach"}
    ),
    "AdledgerLagNearRetention": Story(
        {f'adledger_lane_clock_timestamp_seconds{{lane="1", {TARGET}}}': "0+3600x3 10800x60 230400+3600x9"},
        40 * 60, 55 * 60, 66 * 60, OURS, step_minutes=60,
    ),
    "AdledgerMemory": Story(
        {f"process_resident_memory_bytes{{{TARGET}}}": "1000000000x5 4000000000x10 1000000000x10",
         'process_resident_memory_bytes{job="prometheus", instance="p:9090"}': "9000000000x30",
         f'adledger_build_info{{version="1", {TARGET}}}': "1x30"}, 9, 13, 18, OURS | {"instance": "w1:6066"},
    ),
}  # fmt: skip


def test_no_worker_at_all_is_an_alert(tmp_path: Path) -> None:
    """Where nothing is scraped there is no series to compare, and the alert fires nevertheless."""
    (alert,) = (a for a in ALERTS if a.name == "AdledgerLanesWithoutOwner")
    run_story(tmp_path, alert, {'up{job="other"}': "1x10"}, 1, [(1, None), (5, {})])


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_an_alert_fires_and_clears(tmp_path: Path, alert: AlertRule) -> None:
    """It is quiet while all is well, fires with its labels and summary where it should, and clears afterwards."""
    story = STORIES[alert.name]
    times = [(story.quiet, None), (story.fires, story.labels), (story.cleared, None)]
    run_story(tmp_path, alert, story.series, story.step_minutes, times)


def run_story(
    folder: Path,
    alert: AlertRule,
    series: dict[str, str],
    step_minutes: int,
    times: Sequence[tuple[int, dict[str, str] | None]],
) -> None:
    """Have promtool check an alert at each (minute, labels); no labels: it does not fire."""
    test = {
        "interval": f"{step_minutes}m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "alert_rule_test": [
            {
                "eval_time": f"{minute}m",
                "alertname": alert.name,
                "exp_alerts": [] if labels is None else [expected(alert, labels)],
            }
            for minute, labels in times
        ],
    }
    (folder / "alerts.yml").write_text(rules_yaml())
    document = {"rule_files": ["alerts.yml"], "evaluation_interval": "1m", "tests": [test]}
    (folder / "test.yml").write_text(json.dumps(document))
    promtool(folder, "check", "rules", "alerts.yml")
    promtool(folder, "test", "rules", "test.yml")


def expected(alert: AlertRule, labels: dict[str, str]) -> dict[str, dict[str, str]]:
    """Return the alert as it fires."""
    summary = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda found: labels.get(found[1], ""), alert.summary)
    return {
        "exp_labels": {"severity": alert.severity, **labels},
        "exp_annotations": {"summary": summary, "runbook_url": RUNBOOK},
    }
