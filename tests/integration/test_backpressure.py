"""While ClickHouse is away from a worker on Kafka nothing is fetched, no lane changes hands, /readyz reports it; then the
worker catches up.
"""

import asyncio
import json
import os
import re
import signal
import urllib.error
import urllib.request
from pathlib import Path

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.control.owners import lane_owners
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.commands import Command, started
from tests.support.kafka_deployment import Deployment, LedgerReader, owned_lanes
from tests.support.kafka_traffic import write_traffic_to_kafka

MODEL = TrafficModel(seed=23, events=40_000, partitions=4, duration_hours=30, duplicate_share=0.05)
LANES = set(range(MODEL.partitions))
BATCHES_BETWEEN = 3
SESSION_MS, BACKOFF_MS_MAX = 6_000, 500
TRIES = SESSION_MS // BACKOFF_MS_MAX * MODEL.partitions * 3 // 2
"""Of all lanes together: they take longer than a session without heartbeats would last."""
HTTP_SECONDS = 10


def test_a_clickhouse_that_is_away(kafka: LocalBroker, tmp_path: Path) -> None:
    """For longer than a session the worker waits as a member of its group, then goes on where it was."""
    with EmbeddedServer.start(tmp_path / "clickhouse") as before:
        made = Deployment.make(
            kafka.servers, before, tmp_path, partitions=MODEL.partitions, web_host="127.0.0.1", web_port=0,
            batch_rows_max=128, inserts_per_second_max=16, retry_backoff_ms_max=BACKOFF_MS_MAX,
            kafka={"session.timeout.ms": str(SESSION_MS)},
        )  # fmt: skip
        ground_truth = write_traffic_to_kafka(MODEL, made.settings)
        with (
            started(tmp_path / "worker", "run", "--config", str(tmp_path / "adledger.toml")) as worker,
            made.client() as client,
        ):
            ledger = LedgerReader(client, made.settings.database)
            worker.until(lambda: owned_lanes(worker) == LANES)
            ledger.wait_for_batches(worker, BATCHES_BETWEEN)
            released = metric(worker, "adledger_lanes_released_total")
            os.kill(before.pid, signal.SIGKILL)
            worker.until(lambda: waiting(worker) == LANES)
            assert readyz(worker)[0] == 503
            fetched, tries = (
                metric(worker, "adledger_fetch_bytes_total"),
                metric(worker, "adledger_retries_total"),
            )
            worker.until(lambda: metric(worker, "adledger_retries_total") >= tries + TRIES)
            assert metric(worker, "adledger_fetch_bytes_total") == fetched, "not to fetch is the backpressure"
            assert metric(worker, "adledger_lanes_released_total") == released
            group = asyncio.run(lane_owners(made.settings))
            assert (group.state, group.workers, set(group.by_lane)) == ("Stable", 1, LANES)
            assert {owner.phase for owner in group.by_lane.values()} <= {"waiting", "in_doubt"}
            with EmbeddedServer.start(tmp_path / "clickhouse", port=before.port, http_port=before.http_port):
                worker.until(lambda: readyz(worker)[0] == 200)
                ledger.wait_for_batches(worker, BATCHES_BETWEEN)
                assert owned_lanes(worker) == LANES, "the group kept it"
                assert metric(worker, "adledger_lanes_released_total") == released
                worker.process.send_signal(signal.SIGTERM)
                assert worker.wait() == 0, worker.err
                assert "Traceback" not in worker.err
                fast = ("--set", "batch_rows_max=65536", "--set", "inserts_per_second_max=1000")
                made.run_to_the_end("last", *fast)
                made.assert_expected(ground_truth)


def readyz(worker: Command) -> tuple[int, str]:
    return page(worker, "readyz")


def waiting(worker: Command) -> set[int]:
    """Return the lanes that wait for ClickHouse, or need it to settle a batch."""
    lanes = json.loads(page(worker, "lanes")[1])["lanes"]
    return {lane["lane"] for lane in lanes if lane["phase"] in {"waiting", "in_doubt"}}


def metric(worker: Command, name: str) -> float:
    """Return a counter's value, summed over its labels."""
    found = re.findall(rf"^{name}(?:\{{.*\}})? (\S+)$", page(worker, "metrics")[1], re.MULTILINE)
    return sum(float(value) for value in found)


def page(worker: Command, path: str) -> tuple[int, str]:
    """Return a page's status and body."""
    found = re.search(r"pages at (http://\S+/)", worker.err)
    assert found is not None
    try:
        with urllib.request.urlopen(found[1] + path, timeout=HTTP_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
