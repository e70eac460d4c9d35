"""`make fraud-eval`: how good the rules are, measured through the whole pipeline, into docs/fraud-eval.md.

The two real logs and labelled traffic (honest, scripted attacks, honest look-alikes) are written to a log in a
directory, which `adledger run`'s worker evaluates with the shipped rule set into an embedded ClickHouse; the stored verdicts
are then compared with the labels.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from adledger import __version__
from adledger.loadtest.demo.procedure import CLICKHOUSE, LOG, fill_log
from adledger.loadtest.fraud_eval.real_logs import REAL_PUBLISHERS, RealLog, real_logs
from adledger.loadtest.fraud_eval.report import Evaluation, report
from adledger.loadtest.fraud_eval.scores import SCORED, Rows, scores
from adledger.loadtest.traffic.expected_records import GeneratedRecords
from adledger.loadtest.traffic.kernels.fill import PUBLISHER_ID_FIRST
from adledger.loadtest.traffic.kernels.shapes import I64
from adledger.loadtest.traffic.model import Scenario, TrafficModel
from adledger.loadtest.traffic.scenarios import SUSPENDED_PUBLISHER_FIRST
from adledger.pipeline.addresses import EmbeddedAddress, FilesAddress, ServerAddress
from adledger.pipeline.lanes.start import run_worker
from adledger.pipeline.lists.load import load_lists
from adledger.pipeline.rules.loader import DEFAULT, load_rules, today
from adledger.pipeline.settings import Settings
from adledger.schemas.migrate import migrate
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.publishers import PublishersTable

SCENARIOS = (
    Scenario(kind="replay", actors=40, events_per_actor=50),
    Scenario(kind="price_conflict", actors=40, events_per_actor=50),
    Scenario(kind="datacentre_bot", actors=400, events_per_actor=20),
    Scenario(kind="impostor", actors=100, events_per_actor=40),
    Scenario(kind="double_click", actors=100, events_per_actor=40),
    Scenario(kind="click_flood", actors=20, events_per_actor=400),  # 200 clicks an hour each
    Scenario(
        kind="click_flood", actors=40, events_per_actor=50, start_hour=6.0
    ),  # 25: hardly above a keen reader
    Scenario(kind="injected_click", actors=100, events_per_actor=40),
    Scenario(kind="repeat_click", actors=50, events_per_actor=40),
    Scenario(kind="spliced_click", actors=50, events_per_actor=40),
    Scenario(kind="hidden_ad", actors=50, events_per_actor=40),
    Scenario(kind="cookie_farm", actors=50, events_per_actor=60),
    Scenario(kind="crawler", actors=50, events_per_actor=40),
    Scenario(kind="nameless_bot", actors=50, events_per_actor=40),
    Scenario(kind="library_bot", actors=50, events_per_actor=40),
    Scenario(kind="spoofed_address", actors=50, events_per_actor=40),
    Scenario(kind="prefetcher", actors=50, events_per_actor=40),
    Scenario(kind="test_traffic", actors=50, events_per_actor=40),
    Scenario(kind="ghost_publisher", actors=50, events_per_actor=40),
    Scenario(kind="suspended_publisher", actors=50, events_per_actor=40),
    Scenario(kind="orphan_click", actors=50, events_per_actor=40),
    Scenario(kind="late_click", actors=50, events_per_actor=40),
    Scenario(kind="clockwork", actors=100, events_per_actor=60),
    Scenario(kind="office", actors=200, events_per_actor=60, hours=8.0),
    Scenario(kind="carrier_nat", actors=1_000, events_per_actor=20, hours=4.0),
    Scenario(kind="double_tap", actors=100, events_per_actor=40),
    Scenario(kind="slow_phone", actors=400, events_per_actor=50, hours=8.0),
)

NO_GUARDRAIL_EVENTS = 10**12
"""The guardrail is off: here attacks have a share of the money that would, rightly, demote their rules to `flag`."""

RECALL_MIN = 0.99
HONEST_INVALIDATED_MAX = 1 / 10_000


@dataclass(frozen=True, slots=True)
class Quiet:
    """Shows nothing while the log is filled."""

    def importing(self, name: str) -> Callable[[int, int], None]:  # noqa: ARG002
        """Show nothing."""
        return lambda _done, _all: None

    def generating(self, events: int) -> Callable[[int], None]:  # noqa: ARG002
        """Show nothing."""
        return lambda _records: None


def main(arguments: Sequence[str]) -> int:
    """Evaluate, write the report, and return 0 where recall and honest events are within their bounds, else 1."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000, help="ordinary records beside the scenarios")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--doc", type=Path, default=Path("docs/fraud-eval.md"), help="file to renew")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="adledger-fraud-") as folder:
        found = evaluate(
            Path(folder), TrafficModel(seed=given.seed, events=given.events, scenarios=SCENARIOS)
        )
    given.doc.write_text(report(found, given.doc.read_text("utf-8") if given.doc.exists() else ""), "utf-8")
    wrong = found.wrong(RECALL_MIN, HONEST_INVALIDATED_MAX)
    for line in wrong or ["recall of every attack and the share of honest events are within their bounds"]:
        sys.stderr.write(line + "\n")
    return 1 if wrong else 0


def evaluate(folder: Path, model: TrafficModel) -> Evaluation:
    """Write real logs and the model's traffic into a log, run it under the shipped rules, and score what was stored."""
    where: dict[str, Any] = {
        "source": FilesAddress(folder / LOG),
        "clickhouse": EmbeddedAddress(folder / CLICKHOUSE),
        "rules": str(folder / "rules.toml"),
    }
    settings = Settings(**where)
    shipped = load_rules(DEFAULT)
    rules = replace(shipped, guardrail_events_min=NO_GUARDRAIL_EVENTS)
    (folder / "rules.toml").write_text(rules.text(), "utf-8")
    with _client(folder / CLICKHOUSE) as client:
        migrate(client, database=settings.database, release=__version__)
        know_publishers(client, settings.database, model)
    filled = fill_log(folder / LOG, model, Quiet())
    generated = next(e for e in filled.expected if isinstance(e, GeneratedRecords))
    summary = run_worker(settings, until_caught_up=True, progress=lambda _: None)
    assert summary is not None, "nobody stops the evaluation"
    with _client(folder / CLICKHOUSE) as client:
        scored = labelled(generated, client, settings.database)
        logs: tuple[RealLog, ...] = real_logs(client, settings.database, rules)
        versions = client.execute(f"SELECT DISTINCT judge_version FROM {settings.database}.events ORDER BY 1")  # noqa: S608
    lists = load_lists(today(), age_days_max=settings.list_age_days_max)
    return Evaluation(
        today(), model.events, model.seed, shipped, lists, tuple(int(v) for (v,) in versions),
        *scores(scored, rules), logs,
    )  # fmt: skip


def know_publishers(client: Client, database: str, model: TrafficModel) -> None:
    """Fill the table `publishers`: all of the real logs and of ordinary traffic, and those of one attack as suspended."""
    known = [*REAL_PUBLISHERS.values(), *range(PUBLISHER_ID_FIRST, PUBLISHER_ID_FIRST + model.publishers)]
    actors = max((s.actors for s in model.scenarios if s.kind == "suspended_publisher"), default=0)
    suspended = range(SUSPENDED_PUBLISHER_FIRST, SUSPENDED_PUBLISHER_FIRST + actors)
    statuses = [*((n, "active") for n in known), *((n, "suspended") for n in suspended)]
    PublishersTable(client, database).add(
        [(n, status, "", today()) for n, status in statuses], "fraud-eval", "an evaluation"
    )


def labelled(generated: GeneratedRecords, client: Client, database: str) -> Rows:
    """Return every decodable generated record (SCORED) with its label and its stored verdict."""
    columns = client.execute(
        f"SELECT lane, topic, offset, class_code, reasons FROM {database}.events "  # noqa: S608
        f"WHERE lane_clock >= fromUnixTimestamp64Milli({generated.written.model.start_ms:d}, 'UTC') "
        "ORDER BY topic, lane, offset",
        columnar=True,
    )
    topic, lane = (np.array(columns[i], np.int64) for i in (1, 0))
    offset = np.array(columns[2], np.int64)
    stored = np.lexsort((offset, lane, topic))
    keys = _places(topic, lane, offset)[stored]
    parts = []
    for rows, offsets in generated.placed():
        wanted = _places(rows["topic"].astype(np.int64), rows["partition"].astype(np.int64), offsets)
        at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        there = keys[at] == wanted
        part = np.zeros(int(there.sum()), SCORED)
        for name in ("log_time", "user_no", "ip_hi", "ip_lo", "event_type", "label"):
            part[name] = rows[name][there]
        part["class_code"] = np.array(columns[3], np.uint8)[stored[at[there]]]
        part["reasons"] = np.array(columns[4], np.uint64)[stored[at[there]]]
        parts.append(part)
    scored = np.concatenate([np.zeros(0, SCORED), *parts])
    assert len(scored) == len(keys), "every stored event was generated, and none is missing"
    return scored


def _places(topic: I64, lane: I64, offset: I64) -> I64:
    """Return a number for each place in the log, in the order of topic, lane and offset."""
    return topic << 56 | lane << 40 | offset


@contextmanager
def _client(directory: Path) -> Iterator[Client]:
    with EmbeddedServer.start(directory) as server:
        client = connect(ServerAddress(server.host, server.port, server.http_port))
        try:
            yield client
        finally:
            client.disconnect()
