"""Rules published while workers run on a real broker: taken between two batches, named, refused whole, kept through a
kill.
"""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.verification.verify import verify
from adledger.pipeline.cli.rules_tables import RulesTables
from adledger.pipeline.ledger.audit import Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.rules.loader import DEFAULT, load_rules
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.sinks.connection import Client
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.rules import AlertKind
from tests.support.commands import adledger
from tests.support.kafka_deployment import Deployment, LedgerReader, owned_lanes
from tests.support.kafka_traffic import write_traffic_to_kafka
from tests.support.rule_sets import rule_set

MODEL = TrafficModel(
    seed=23, events=30_000, partitions=4, duration_hours=30, users=300, user_head_users=10, click_share=0.2
)
LANES = set(range(MODEL.partitions))
SLOW = {"batch_rows_max": 128, "inserts_per_second_max": 24, "rules": "published", "rules_poll_seconds": 1}
"""Six batches a second a worker: there is traffic for as long as a slow machine takes for what is published."""
FAST = ("--set", "batch_rows_max=65536", "--set", "inserts_per_second_max=1000")

FIRST = load_rules(DEFAULT)
"""The rule set in force until one is published."""
SECOND, THIRD = (
    rule_set(USER_VELOCITY={"window_seconds": 600, "events_max": most}, DOUBLE_CLICK={}) for most in (8, 4)
)
BATCHES_BETWEEN = 3


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


class Evaluated:
    """What the tables say about evaluators."""

    def __init__(self, client: Client, database: str) -> None:
        self._client, self._database = client, database

    def lanes_under(self, rules: RuleSet) -> set[int]:
        """Return the lanes that have a batch evaluated by a set."""
        return {lane for lane, found in self.sets().items() if rules.version in found}

    def sets(self) -> dict[int, list[int]]:
        """Return lane -> the rule set of each batch, in order."""
        found: dict[int, list[int]] = {}
        for lane, version in self._rows(
            "SELECT lane, j.rules_version FROM {db}.ledger AS l INNER JOIN (SELECT version, any(rules_version) AS "
            "rules_version FROM {db}.judges GROUP BY version) AS j ON l.judge_version = j.version ORDER BY lane, batch_no"
        ):
            found.setdefault(lane, []).append(version)
        return found

    def evaluators(self, table: str, lane: int, batch_no: int) -> set[int]:
        """Return the evaluator versions of a batch's rows in `events` or `ledger`."""
        where = f"lane = {lane} AND batch_no = {batch_no}"
        return {v for (v,) in self._rows(f"SELECT DISTINCT judge_version FROM {{db}}.{table} WHERE {where}")}

    def rules_of(self, evaluator: int) -> int:
        """Return the version of the rule set that an evaluator is made of."""
        return int(
            self._rows(f"SELECT any(rules_version) FROM {{db}}.judges WHERE version = {evaluator}")[0][0]
        )

    def stray(self) -> int:
        """Return how many events name another evaluator than their batch's ledger row."""
        return int(self._rows(
            "SELECT count() FROM {db}.events AS e INNER JOIN {db}.ledger AS l "
            "ON e.lane = l.lane AND e.batch_no = l.batch_no WHERE e.judge_version != l.judge_version"
        )[0][0])  # fmt: skip

    def batches_without_evaluator(self) -> int:
        """Return how many batches name an evaluator that is not stored."""
        return int(self._rows(
            "SELECT count() FROM {db}.ledger WHERE judge_version NOT IN (SELECT version FROM {db}.judges)"
        )[0][0])  # fmt: skip

    def _rows(self, query: str) -> list[tuple[int, ...]]:
        return self._client.execute(query.format(db=self._database))


def test_rules_change_while_workers_run(kafka: LocalBroker, server: EmbeddedServer, tmp_path: Path) -> None:
    """From the shipped set to published ones, every lane changes sets at a batch boundary, and a bad set changes nothing;
    a batch that was pending when its worker was killed keeps the evaluator of its intent, though another set is in force;
    events and money are all there.
    """
    deployment = Deployment.make(kafka.servers, server, tmp_path, partitions=MODEL.partitions, **SLOW)
    ground_truth = write_traffic_to_kafka(MODEL, deployment.settings)
    (tmp_path / "new.toml").write_text(SECOND.text())
    publish = ("rules", "publish", str(tmp_path / "new.toml"), "--config", str(tmp_path / "adledger.toml"))
    with ExitStack() as stack:
        client = stack.enter_context(deployment.client())
        database = deployment.settings.database
        ledger, evaluated, tables = (
            LedgerReader(client, database),
            Evaluated(client, database),
            RulesTables(client, database),
        )
        first, second = (stack.enter_context(deployment.worker(name)) for name in ("first", "second"))
        ledger.wait_for_batches(first, BATCHES_BETWEEN)
        first.until(
            lambda: (
                evaluated.lanes_under(FIRST) == LANES and owned_lanes(first) | owned_lanes(second) == LANES
            )
        )

        published = adledger(tmp_path / "publish", *publish, "--author", "mia", "--reason", "ticket 71")
        assert published.process.returncode == 0, published.err
        first.until(lambda: evaluated.lanes_under(SECOND) == LANES)

        tables.publish(THIRD, "mode = [", "mia", "the table is not checked")
        first.until(lambda: "is refused" in first.err)
        second.until(lambda: "is refused" in second.err)
        ledger.wait_for_batches(first, BATCHES_BETWEEN)
        assert {sets[-1] for sets in evaluated.sets().values()} == {SECOND.version}
        refused = [alert for alert in tables.alerts(10) if alert.kind == AlertKind.REFUSED]
        assert {alert.rules_version for alert in refused} == {THIRD.version}

        [(lane, batch_no), *_] = ledger.kill_in_mid_batch(second, owned_lanes(second))
        tables.publish(THIRD, THIRD.text(), "mia", "stricter")
        intent = asyncio.run(deployment.intents())[lane]
        assert (intent["batch"], evaluated.rules_of(intent["judge"])) == (batch_no, SECOND.version)
        assert evaluated.evaluators("events", lane, batch_no) == {intent["judge"]}
        first.until(lambda: f"lane {lane}, batch {batch_no}: settled" in first.err)
        for table in ("events", "ledger"):
            assert evaluated.evaluators(table, lane, batch_no) == {intent["judge"]}
        first.until(lambda: evaluated.lanes_under(THIRD) == LANES)
        assert ledger.records() < ground_truth.records_received, "there was traffic to the end"
        first.process.send_signal(signal.SIGTERM)
        assert first.wait() == 0, first.err
    deployment.run_to_the_end("last", *FAST)

    with deployment.client() as client:
        check_all_batches(Evaluated(client, database))
        report = verify(ground_truth, client, database, before_rules=True)
        assert report.equal, report
        assert not audit(client, TableNames(database), Scope(), recount=True).problems


def check_all_batches(evaluated: Evaluated) -> None:
    """Every lane went through the three sets in order, and every event names its batch's evaluator, which is stored."""
    order = [FIRST.version, SECOND.version, THIRD.version]
    for sets in evaluated.sets().values():
        assert sets == sorted(sets, key=order.index), "no lane goes back"
        assert set(sets) == set(order)
    assert evaluated.stray() == evaluated.batches_without_evaluator() == 0
