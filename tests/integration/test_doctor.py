"""The doctor on real servers: each problem is made and found, and a healthy deployment has none."""

import asyncio
import json
import signal
import socket
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from typer.testing import CliRunner

from adledger.loadtest.lab.broker import LocalBroker
from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.cli.app import app
from adledger.pipeline.doctor.examine import examine
from adledger.pipeline.doctor.report import Check, CheckState, found_wrong
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.pipeline.settings import Settings
from adledger.pipeline.stages.plain_hashes import partition_of
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.support.commands import PATIENCE_SECONDS, adledger, started
from tests.support.old_clickhouse import OldServerMissing, old_server
from tests.support.services import missing

PARTITIONS = 3
USERS = [f"user-{i}" for i in range(240)]
Place = Callable[[bytes], int]


def by_murmur2(key: bytes) -> int:
    return partition_of(key, PARTITIONS)


def by_crc32(key: bytes) -> int:
    return zlib.crc32(key) % PARTITIONS


def event(user: str, kind: str = "impression") -> bytes:
    fields = {
        "event_type": kind, "event_id": uuid.uuid4().hex, "event_time": int(time.time() * 1000), "publisher_id": 1,
        "site_id": 1, "campaign_id": 1, "creative_id": 1, "advertiser_id": 1, "user_id": user, "ip": "192.0.2.1",
        "user_agent": "a", "page_url": "p", "price_micros": 5,
    }  # fmt: skip
    return json.dumps(fields).encode()


@dataclass(frozen=True, slots=True)
class Deployment:
    """Topics of its own on the session's broker, a database of its own, nothing in either."""

    settings: Settings
    server: ServerAddress

    def changed(self, **values: object) -> "Deployment":
        return replace(self, settings=self.settings.model_copy(update=values))

    def examine(self) -> list[Check]:
        """Examine the deployment, with the connection that a command would make."""

        @contextmanager
        def open_clickhouse(settings: Settings) -> Iterator[Client]:
            with connect(settings.clickhouse) as client:  # type: ignore[arg-type]
                yield client

        return examine(self.settings, open_clickhouse)

    def found(self, area: str, *, advice: bool = False) -> str:
        """Return messages and remedies of one area's findings."""
        return "\n".join(
            f"{finding.message} | {finding.remedy}"
            for check in self.examine() if check.area == area
            for finding in check.findings if finding.advice == advice
        )  # fmt: skip

    def flags(self) -> list[str]:
        s = self.settings
        named = {"topics": ",".join(s.topics), "rollups_topic": s.rollups_topic, "web_port": 0}
        return [
            "--source", str(s.source), "--clickhouse", str(s.clickhouse), "--database", s.database, "--group", s.group,
            *(part for name, value in named.items() for part in ("--set", f"{name}={value}")),
        ]  # fmt: skip

    async def produce(self, place: Place, key: Callable[[str], bytes | None] = str.encode) -> None:
        """Write an impression of each user to the partition that `place` returns for the user's id."""
        producer = AIOKafkaProducer(bootstrap_servers=self.settings.source.servers)
        await producer.start()
        try:
            for user in USERS:
                await producer.send(
                    self.settings.topics[0], event(user), key=key(user), partition=place(user.encode())
                )
        finally:
            await producer.stop()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as running:
        yield ServerAddress(running.host, running.port, running.http_port)


@pytest.fixture
def deployment(kafka: LocalBroker, server: ServerAddress) -> Deployment:
    name = f"doctor{uuid.uuid4().hex[:8]}"
    settings = Settings(
        source=f"kafka://{kafka.servers}", clickhouse=server, database=name, group=name,
        topics=(f"{name}.impressions", f"{name}.clicks"), rollups_topic=f"{name}.rollups", web_port=0, web_host="127.0.0.1",
    )  # fmt: skip
    asyncio.run(create_topics(settings, partitions=PARTITIONS))
    return Deployment(settings, server)


def test_a_healthy_deployment_has_no_findings_until_its_topic_is_created_again(
    deployment: Deployment, tmp_path: Path
):
    """Before its first worker, beside a running one, and after it, nothing is wrong. Once a topic is created again the
    log is not the ledger's, and the doctor reports what a lane would halt with.
    """
    asyncio.run(deployment.produce(by_murmur2))
    before = deployment.examine()
    assert not found_wrong(before), before
    with started(tmp_path, "run", *deployment.flags()) as worker:
        worker.until(lambda: "lanes taken" in worker.err)
        with connect(deployment.server) as client:
            worker.until(lambda: received(client, deployment.settings.database) == len(USERS))
        during = deployment.examine()
        assert not found_wrong(during), during
        assert any("1 workers (stable)" in check.what for check in during), during
        worker.process.send_signal(signal.SIGTERM)
        assert worker.wait() == 0
    after = deployment.examine()
    advice = ("copy on 1 broker", "the table publishers is empty")
    odd = [f for c in after for f in c.findings if not any(known in f.message for known in advice)]
    assert (odd, {c.state for c in after}) == ([], {CheckState.FINE, CheckState.ADVICE}), (
        "one broker has one copy, nobody has imported publishers: advice"
    )
    assert "240 records" in " ".join(check.what for check in after if check.area == "keys")

    asyncio.run(recreate_topic(deployment.settings))
    assert "the ledger was written from another log" in deployment.found("group")


def received(client: Client, database: str) -> int:
    return int(client.execute(f"SELECT sum(records_received) FROM {database}.ledger")[0][0])


async def recreate_topic(settings: Settings) -> None:
    """Delete the topic of impressions and create another of its name, as an unaware operator would."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.source.servers)  # type: ignore[union-attr]
    await admin.start()
    try:
        await admin.delete_topics([settings.topics[0]])
    finally:
        await admin.close()
    made: tuple[str, ...] = ()
    while not made:  # the broker may still have the old one
        made = await create_topics(settings)


def test_producers_are_told_apart(deployment: Deployment):
    """CRC-32 instead of murmur2 is named with the setting; a missing key and a wrong key are separate findings."""
    asyncio.run(deployment.produce(by_crc32))
    found = deployment.found("keys")
    assert "partitioner=murmur2_random" in found
    assert "by CRC-32 of it" in found
    assert "no key" not in found
    assert "another key" not in found

    asyncio.run(deployment.produce(by_murmur2, key=lambda _: None))
    asyncio.run(deployment.produce(by_murmur2, key=lambda _: b"192.0.2.1"))
    found = deployment.found("keys")
    assert "have no key" in found
    assert "another key than their user: ip" in found


def test_another_partitioner_is_not_called_crc32(deployment: Deployment):
    """Records with the right key in a partition that no known partitioner chooses are reported as such."""
    asyncio.run(deployment.produce(lambda key: key[-1] % PARTITIONS))
    assert "by neither murmur2 nor CRC-32" in deployment.found("keys")


def test_malformed_records_are_counted_by_reason(deployment: Deployment):
    """They are those that a worker would write as dead letters."""

    async def produce() -> None:
        producer = AIOKafkaProducer(bootstrap_servers=deployment.settings.source.servers)
        await producer.start()
        for value in (b"{", b"[]", b"[]", event("u", "click")):
            await producer.send(deployment.settings.topics[0], value, key=b"u", partition=by_murmur2(b"u"))
        await producer.stop()

    asyncio.run(produce())
    assert "4 of the newest 4 records (100.00%) are malformed (not_an_object 2" in deployment.found("keys")


def test_topics_that_a_worker_refuses_are_found(deployment: Deployment):
    """Another timestamp type and a missing topic are found, and dependent checks are reported as not run."""

    async def alter() -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=deployment.settings.source.servers)
        await admin.start()
        change = {"message.timestamp.type": "CreateTime", "retention.ms": "604800000"}
        await admin.alter_configs(
            [ConfigResource(ConfigResourceType.TOPIC, deployment.settings.topics[0], change)]
        )
        await admin.close()

    asyncio.run(alter())
    last = time.monotonic() + PATIENCE_SECONDS
    while "message.timestamp.type=LogAppendTime" not in deployment.found("topics"):
        assert time.monotonic() < last, "brokers learn of a change some time after the controller took it"

    gone = deployment.changed(topics=(*deployment.settings.topics[:1], "doctor.nowhere"))
    checks = gone.examine()
    assert "there is no topic doctor.nowhere" in gone.found("topics")
    assert {c.area for c in checks if c.state is CheckState.NOT_MADE} == {"group", "keys"}


def test_a_group_that_is_not_ours_is_found(deployment: Deployment):
    """Commits that are no intents, an intent of another lane and a member with another assignor are found."""
    topic = deployment.settings.topics[0]

    async def consume_as_stranger(then: Callable[[], None]) -> None:
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=deployment.settings.source.servers, group_id=deployment.settings.group,
            enable_auto_commit=False,
        )  # fmt: skip
        await consumer.start()
        try:
            await consumer.commit({TopicPartition(topic, 1): OffsetAndMetadata(0, "by hand")})
            await asyncio.to_thread(then)
        finally:
            await consumer.stop()

    findings: list[str] = []
    asyncio.run(consume_as_stranger(lambda: findings.append(deployment.found("group"))))
    assert "another program uses the group" in findings[0]
    assert "lane 1" in findings[0]
    assert "'by hand'" in findings[0]


def test_clickhouse_is_checked(deployment: Deployment):
    """Missing migrations are advice, a table without its deadline is an error, and an unreachable server leaves the other
    checks.
    """
    assert "adledger migrate" in deployment.found("clickhouse", advice=True)
    database = deployment.settings.database
    migrated = CliRunner().invoke(
        app, ["migrate", "--clickhouse", str(deployment.server), "--database", database]
    )
    assert migrated.exit_code == 0, migrated.output
    assert deployment.found("clickhouse") == ""
    with connect(deployment.server) as client:
        client.execute(f"ALTER TABLE {database}.ledger DROP CONSTRAINT in_time")
    assert "has no deadline" in deployment.found("clickhouse")

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    away = deployment.changed(clickhouse=ServerAddress("127.0.0.1", port, port, "u", "s3cret"))
    checks = away.examine()
    assert f"127.0.0.1:{port}" in away.found("clickhouse")
    assert "s3cret" not in str(checks)
    assert any(c.area == "keys" and c.state is CheckState.FINE for c in checks), "Kafka was checked too"


def test_brokers_that_are_away_are_found(deployment: Deployment):
    """One of two is advice, all of them an error; checks that depend on them say why they did not run."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = f"127.0.0.1:{taken.getsockname()[1]}"
    source = type(deployment.settings.source)
    one = deployment.changed(source=source((dead, *deployment.settings.source.servers)))
    assert "nothing listens there" in one.found("kafka", advice=True)
    assert one.found("kafka") == ""
    none = deployment.changed(source=source((dead,)))
    assert "nothing listens there" in none.found("kafka")
    assert {c.area for c in none.examine() if c.state is CheckState.NOT_MADE} == {"topics", "group", "keys"}


def test_a_log_in_a_directory_is_checked(tmp_path: Path):
    """With files and the embedded server the checks that apply run, before the first worker and after it; --json is one
    object.
    """
    log, lines = tmp_path / "log", tmp_path / "lines"
    lines.write_bytes(b"\n".join(event(user) for user in USERS[:20]) + b"\n")
    here = ["--source", f"files:{log}", "--clickhouse", f"embedded:{tmp_path / 'clickhouse'}"]
    missing = CliRunner().invoke(app, ["doctor", *here])
    assert missing.exit_code == 1
    assert str(log) in missing.output
    assert not (tmp_path / "clickhouse").exists(), "nothing is made by looking"

    imported = CliRunner().invoke(
        app, ["import", str(lines), "--format", "wire", "--to", f"files:{log}", "--partitions", "2"]
    )
    assert imported.exit_code == 0, imported.output
    assert adledger(tmp_path / "run", "run", *here, "--until-caught-up").wait() == 0
    healthy = adledger(tmp_path / "doctor", "doctor", *here, "--json")
    assert healthy.wait() == 0, healthy.out
    report = json.loads(healthy.out)
    assert report["healthy"]
    assert {check["area"] for check in report["checks"]} == {
        "settings", "machine", "log", "group", "keys", "clickhouse", "rules", "clocks"
    }  # fmt: skip


def test_settings_that_are_refused_are_a_finding(tmp_path: Path):
    """An unknown key and a contradiction each have a remedy; an invalid command line is misuse."""
    (tmp_path / "adledger.toml").write_text("batch_age_ms = 5\nallowed_lateness_hours = 100\n")
    refused = CliRunner().invoke(app, ["doctor", "--config", str(tmp_path / "adledger.toml")])
    assert refused.exit_code == 1
    assert "batch_age_ms_max?" in refused.output
    assert "dedupe_window_hours" in refused.output
    assert CliRunner().invoke(app, ["doctor", "--sauce", "files:x"]).exit_code == 2


def test_a_server_that_is_too_old_is_named(tmp_path: Path):
    """Debian's server is not queried for what only newer ones answer."""
    try:
        with old_server(tmp_path / "server") as running:
            address = ServerAddress(running.host, running.port, running.http_port)
            old = Deployment(Settings(source=f"files:{tmp_path}", clickhouse=address), address)
            found = old.found("clickhouse")
    except OldServerMissing as error:
        missing("clickhouse-server", error)
    assert "ClickHouse 18.16.1 is older than" in found
    assert "upgrade" in found
