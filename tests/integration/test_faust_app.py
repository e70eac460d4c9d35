"""A worker process of the Faust app on a real broker: its pages, its end, its error messages."""

import asyncio
import json
import os
import re
import signal
import socket
import sys
import urllib.error
import urllib.request
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.traffic.ground_truth import GroundTruth
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.verification.verify import verify
from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.pipeline.settings import Settings
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.commands import Command, adledger, started
from tests.support.kafka_traffic import write_traffic_to_kafka

MODEL = TrafficModel(seed=11, events=30_000, partitions=4)
HTTP_SECONDS = 10


@dataclass(frozen=True, slots=True)
class Deployment:
    """Topics with traffic whose ground truth is known, a folder of ClickHouse, and the arguments that name them."""

    settings: Settings
    folder: Path
    ground_truth: GroundTruth

    def run(self, *more: str, web_port: str = "0") -> tuple[str, ...]:
        return ("run", "--config", str(self.folder / "adledger.toml"), "--web-port", web_port, *more)


@pytest.fixture(scope="module")
def deployment(kafka: LocalBroker, tmp_path_factory: pytest.TempPathFactory) -> Deployment:
    folder = tmp_path_factory.mktemp("app")
    values = {
        "source": f"kafka://{kafka.servers}", "clickhouse": f"embedded:{folder / 'clickhouse'}", "group": "app",
        "topics": ["app.impressions", "app.clicks"], "rollups_topic": "app.rollups", "log_time": "record",
        "web_host": "127.0.0.1", "rules": "none",
    }  # fmt: skip
    (folder / "adledger.toml").write_text("".join(f"{k} = {json.dumps(v)}\n" for k, v in values.items()))
    settings = Settings(**values)
    asyncio.run(create_topics(settings, partitions=MODEL.partitions))
    return Deployment(settings, folder, write_traffic_to_kafka(MODEL, settings))


def test_a_group_catches_up_and_its_tables_equal_the_ground_truth(deployment: Deployment):
    """A worker on Kafka with --until-caught-up ends with one JSON object on stdout, and every table equals the ground
    truth.
    """
    ended = adledger(deployment.folder / "caught-up", *deployment.run("--until-caught-up", "--json"))
    assert ended.wait() == 0, ended.err
    summary = json.loads(ended.out)
    assert (summary["records_received"], summary["conserved"], summary["continuous"]) == (
        MODEL.events, True, True
    )  # fmt: skip
    assert "event loop uvloop.Loop" in ended.err, "what runs in a real worker process"
    with EmbeddedServer.start(deployment.folder / "clickhouse") as server:
        client = connect(ServerAddress(server.host, server.port, server.http_port))
        try:
            report = verify(deployment.ground_truth, client, deployment.settings.database)
        finally:
            client.disconnect()
    assert report.equal, report


def test_pages_of_a_worker_know_every_publisher(deployment: Deployment):
    """A worker started after the batches were done answers for publishers of all lanes; SIGTERM ends it with 0."""
    with started(deployment.folder / "pages", *deployment.run()) as command:
        url = url_of(command)
        command.until(lambda: page(url, "readyz")[0] == 200)
        assert page(url, "livez") == (200, "ok\n")
        ready = {
            "ready": True,
            "joined": True,
            "brokers_silent_seconds": 0,
            "stalled": [],
            "lanes": MODEL.partitions,
        }
        command.until(lambda: json.loads(page(url, "readyz")[1]) == ready)
        publisher = recent_publisher(deployment.ground_truth)

        def live() -> Any:
            return json.loads(page(url, f"publishers/{publisher}/live")[1])

        command.until(lambda: len(live()["as_of"]["lanes"]) == MODEL.partitions)
        assert live()["publisher_id"] == publisher
        assert live()["minutes"], live()
        assert page(url, "publishers/everyone/live")[0] == 404
        metrics = page(url, "metrics")[1]
        assert re.search(r"^adledger_build_info\{.*\} 1\.0$", metrics, re.MULTILINE)
        assert "livez" in page(url, "")[1]
        command.process.send_signal(signal.SIGTERM)
        assert command.wait() == 0, command.err
    assert command.out == ""
    assert all(re.match(r"ts=\S+ level=\w+ logger=\S+ msg=\"", line) for line in command.err.splitlines())


def test_a_port_that_is_taken_is_an_error_with_a_remedy(deployment: Deployment):
    """The message names the address and the remedy, before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        ended = adledger(deployment.folder / "port", *deployment.run(web_port=port))
    assert ended.wait() == 2
    assert f"cannot listen on the pages' address 127.0.0.1:{port}" in ended.err
    assert "--web-port 0" in ended.err
    assert "Traceback" not in ended.err


def test_sigterm_while_the_topics_are_checked(tmp_path: Path):
    """A worker that waits for a broker's answer before it has joined ends with 0, and prints no traceback."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        source = f"kafka://127.0.0.1:{silent.getsockname()[1]}"
        with started(tmp_path, "run", "--source", source, "--without-web") as command:
            connection, _ = silent.accept()
            with connection:
                command.process.send_signal(signal.SIGTERM)
                assert command.wait() == 0, command.err
    assert "Traceback" not in command.err
    assert "Task was destroyed" not in command.err


def test_missing_topics_are_an_error_with_a_remedy(deployment: Deployment):
    """A worker does not start without its topics, and names the command that creates them."""
    arguments = deployment.run("--set", "rollups_topic=app.none", "--without-web")
    ended = adledger(deployment.folder / "topic", *arguments)
    assert ended.wait() == 1
    assert "app.none" in ended.err
    assert "adledger topics create" in ended.err
    assert "Traceback" not in ended.err


def test_fausts_own_command_line_works(deployment: Deployment):
    """`faust -A adledger.pipeline.app` lists the agent, sends to the topic, and runs the same worker; it leaves no
    folder. Its log lines are JSON where a setting says so.
    """
    folder = deployment.folder / "faust"
    folder.mkdir()
    with faust(folder, deployment, "agents") as command:
        assert command.wait() == 0, command.err
        assert "@publisher_monitor" in command.out
    with faust(folder, deployment, "send", "app.rollups", "no rollups message") as command:
        assert command.wait() == 0, command.err
        assert json.loads(command.out)["topic"] == "app.rollups"
    with faust(folder, deployment, "worker", "-l", "info") as command:
        url = url_of(command)
        command.until(lambda: page(url, "readyz")[0] == 200)
        command.until(lambda: 'outcome="unreadable"} 1.0' in page(url, "metrics")[1])
        command.process.send_signal(signal.SIGTERM)
        assert command.wait() == 0, command.err
        assert {tuple(json.loads(line)) for line in command.err.splitlines()} == {
            ("ts", "level", "logger", "msg")
        }
    assert sorted(path.name for path in folder.iterdir()) == ["stderr", "stdout"]


def faust(folder: Path, deployment: Deployment, *arguments: str) -> AbstractContextManager[Command]:
    """Start Faust's own command in a folder, with the deployment's settings from its file and the environment."""
    root = str(Path(__file__).resolve().parents[2])
    environment = {
        "ADLEDGER_CONFIG": str(deployment.folder / "adledger.toml"),
        "ADLEDGER_WEB_PORT": "0",
        "ADLEDGER_LOG_FORMAT": "json",
    }
    return started(
        folder, "-A", "adledger.pipeline.app", *arguments, program=(sys.executable, "-m", "faust"),
        cwd=folder, env={**os.environ, **environment, "PYTHONPATH": root},
    )  # fmt: skip


def url_of(command: Command) -> str:
    """Return the URL of a worker's pages, from its log."""
    command.until(lambda: "pages at http" in command.err)
    found = re.search(r"pages at (http://\S+/)", command.err)
    assert found is not None
    return found[1]


def page(url: str, path: str) -> tuple[int, str]:
    """Return a page's status and body."""
    try:
        with urllib.request.urlopen(url + path, timeout=HTTP_SECONDS) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except TimeoutError:  # its socket is there before the kernels are: the request waits for the loop
        return 0, ""


def recent_publisher(ground_truth: GroundTruth) -> int:
    """Return a publisher with many records in the last half hour of the log."""
    rollup = ground_truth.rollup[
        ground_truth.rollup["minute"] >= ground_truth.rollup["minute"].max() - 30 * 60
    ]
    return int(rollup["publisher_id"][rollup["records"].argmax()])
