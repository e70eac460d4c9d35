"""Operator overrides: a lane halts where it must not guess, and goes on by the one override that fits what it found.

On a real broker and a real engine, all in this process.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic, RecordsToDelete
from typer.testing import CliRunner, Result

from adledger import __version__
from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.cli.app import app
from adledger.pipeline.errors import AdledgerError, LaneHalted, OffsetOutOfRange, SinkError
from adledger.pipeline.halts import HaltReason
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes import lane_runner
from adledger.pipeline.lanes.start import lines_to, make_sink, make_worker
from adledger.pipeline.ledger.audit import AuditReport, Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.log.kafka.source import KafkaSource
from adledger.schemas.classes import Class
from adledger.schemas.migrate import migrate
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.sink import Columns, Stamp
from tests.integration.test_kafka_reader import cut_segment
from tests.support.brokers import running_broker
from tests.support.files_log import read_log
from tests.support.kafka_deployment import Deployment
from tests.support.kafka_traffic import send_records, write_traffic_to_kafka
from tests.support.way_out import shows_the_way_out

T = TypeVar("T")

MODEL = TrafficModel(seed=31, events=3_000, partitions=2, duration_hours=5, duplicate_share=0.1)
LOOK_SECONDS = 0.05
PATIENCE_SECONDS = 120
LATER_MS = 6 * 3_600_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One ClickHouse for all tests here: each has a database of its own."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@pytest.fixture
def made(kafka: LocalBroker, server: EmbeddedServer, tmp_path: Path) -> Deployment:
    """Two lanes that have caught up."""
    return deployment(kafka, server, tmp_path)


def deployment(kafka: LocalBroker, server: EmbeddedServer, tmp_path: Path) -> Deployment:
    made = Deployment.make(
        kafka.servers, server, tmp_path, partitions=MODEL.partitions, write_deadline_seconds=1
    )
    write_traffic_to_kafka(MODEL, made.settings)
    with made.client() as client:
        migrate(client, database=made.settings.database, release=__version__)
    catch_up(made)
    return made


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[LocalBroker]:
    with running_broker(tmp_path / "broker") as broker:
        yield broker


def catch_up(made: Deployment, **changes: Any) -> list[str]:
    """Run a worker here until it has caught up; raises what halts a lane. Return its output."""
    lines: list[str] = []
    settings = made.settings.model_copy(update=changes)

    async def run() -> None:
        sink = make_sink(made.settings, made.server)
        source = KafkaSource.of(made.settings, lines.append)
        try:
            assert await make_worker(
                settings, source, sink, until_caught_up=True, emit=lines_to(lines.append)
            ).run()
        finally:
            await sink.close()

    asyncio.run(run())
    return lines


def lane(made: Deployment, *arguments: str) -> Result:
    """Run `adledger lane`, in this process."""
    return CliRunner().invoke(
        app, ["lane", *arguments, "--config", str(made.folder / "adledger.toml"), "--json"]
    )


def lane_statuses(made: Deployment) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(lane(made, "status").stdout)["lanes"]
    return found


def ordered(made: Deployment, *arguments: str) -> list[dict[str, Any]]:
    """Create the overrides, after a dry run that changes nothing, and return them."""
    dry = lane(made, *arguments, "--reason", "a test", "--dry-run")
    assert dry.exit_code == 0, dry.exception
    done = lane(made, *arguments, "--reason", "a test", "--execute")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["overrides"] == json.loads(dry.stdout)["overrides"]
    found: list[dict[str, Any]] = json.loads(done.stdout)["overrides"]
    return found


def admin(made: Deployment, call: Callable[[AIOKafkaAdminClient], Awaitable[T]]) -> T:
    async def run() -> T:
        client = AIOKafkaAdminClient(bootstrap_servers=made.settings.source.servers)  # type: ignore[union-attr]
        await client.start()
        try:
            return await call(client)
        finally:
            await client.close()

    return asyncio.run(run())


def checked(made: Deployment) -> AuditReport:
    """Return the audit, which must have no problems."""
    with made.client() as client:
        report = audit(client, TableNames(made.settings.database), Scope(), recount=True)
    assert not report.problems, report.problems
    return report


def without_commits(made: Deployment) -> Deployment:
    """Return the deployment with another group, which has no commits."""
    file = made.folder / "adledger.toml"
    file.write_text(file.read_text().replace(f'group = "{made.settings.group}"', 'group = "none-of-it"'))
    return replace(made, settings=made.settings.model_copy(update={"group": "none-of-it"}))


def later(model: TrafficModel) -> TrafficModel:
    """Return traffic that follows on."""
    return replace(model, seed=model.seed + 1, start_ms=model.start_ms + LATER_MS)


@shows_the_way_out(HaltReason.OFFSETS_GONE)
def test_records_removed_by_retention(made: Deployment):
    """The lane halts and every command but skip is refused; then exactly the gap is a row of class lost."""
    before = checked(made)
    at = {status["lane"]: status["positions"] for status in lane_statuses(made)}
    write_traffic_to_kafka(later(MODEL), made.settings)
    topic = made.settings.topics[0]
    first = at[0][topic] + 100
    admin(made, lambda a: a.delete_records({TopicPartition(topic, 0): RecordsToDelete(first)}))
    with pytest.raises(LaneHalted, match=f"offset {at[0][topic]} of {topic} comes next"):
        catch_up(made)
    (halted,) = (status for status in lane_statuses(made) if status["trouble"])
    assert (halted["lane"], halted["command"]) == (0, "skip")
    refused = lane(made, "resolve", "0", "--reason", "wrong", "--execute")
    assert isinstance(refused.exception, AdledgerError)
    assert "nothing to resolve" in refused.exception.message
    (override,) = ordered(made, "skip", "0")
    assert override["ranges"][topic] == [at[0][topic], first]
    catch_up(made)
    after = checked(made)
    assert after.totals.records[Class.LOST] == override["lost"] == 100
    assert after.totals.records_received == before.totals.records_received + MODEL.events - 100
    assert lane(made, "skip", "0", "--reason", "again", "--execute").exception is not None


@shows_the_way_out(HaltReason.RECORDS_REPLACED)
def test_a_log_that_was_truncated_and_grew_again(
    own_broker: LocalBroker, server: EmbeddedServer, tmp_path: Path
):
    """The lane halts at other records where the ledger has offsets; by override they are a row of class lost, and it goes
    on.
    """
    made = deployment(own_broker, server, tmp_path)
    topic = made.settings.topics[0]
    kept = lane_statuses(made)[0]["positions"][topic]
    write_traffic_to_kafka(later(MODEL), made.settings)
    catch_up(made)
    before = checked(made)
    end = lane_statuses(made)[0]["positions"][topic]
    own_broker.kill()
    cut_segment(own_broker, f"{topic}-0", kept)
    own_broker.start()
    write_traffic_to_kafka(later(later(MODEL)), made.settings)
    write_traffic_to_kafka(later(later(later(MODEL))), made.settings)
    with pytest.raises(LaneHalted, match=f"truncated and has grown again.*{topic}"):
        catch_up(made)
    (halted,) = (status for status in lane_statuses(made) if status["trouble"])
    assert (halted["lane"], halted["command"]) == (0, "skip")
    (override,) = ordered(made, "skip", "0")
    assert override["ranges"][topic] == [kept, end]
    catch_up(made)
    after = checked(made)
    assert after.totals.records[Class.LOST] == override["lost"] == end - kept
    assert after.totals.records_received > before.totals.records_received
    catch_up(made)  # in the new epoch, what was overwritten is not looked for


async def test_a_running_worker_needs_no_restart(made: Deployment, monkeypatch: pytest.MonkeyPatch):
    """A halted lane finds the override within seconds, and the other lanes go on meanwhile."""
    monkeypatch.setattr(lane_runner, "OVERRIDE_POLL_SECONDS", 0.1)
    await asyncio.to_thread(write_traffic_to_kafka, later(MODEL), made.settings)
    (first, _) = await asyncio.to_thread(lane_statuses, made)
    place = TopicPartition(made.settings.topics[0], 0)
    offset = first["positions"][made.settings.topics[0]] + 7
    await asyncio.to_thread(admin, made, lambda a: a.delete_records({place: RecordsToDelete(offset)}))
    lines: list[str] = []
    sink = make_sink(made.settings, made.server)
    source = KafkaSource.of(made.settings, lines.append)
    running = make_worker(made.settings, source, sink, until_caught_up=False, emit=lines_to(lines.append))
    run = asyncio.create_task(running.run())
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not any("lane 0 halted" in line for line in lines):  # noqa: ASYNC110 - appended by a plain call
                await asyncio.sleep(LOOK_SECONDS)
            await asyncio.to_thread(ordered, made, "skip", "0")
            while any(status["lag_records"] for status in await asyncio.to_thread(lane_statuses, made)):  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
    finally:
        running.stop()
        await run
        await sink.close()
    assert (await asyncio.to_thread(checked, made)).totals.records[Class.LOST] == 7


def test_an_outdated_override(made: Deployment):
    """When retention removes more after the override, the lane applies the override, and halts again."""
    at = lane_statuses(made)[0]["positions"][made.settings.topics[0]]
    write_traffic_to_kafka(later(MODEL), made.settings)
    place = TopicPartition(made.settings.topics[0], 0)
    admin(made, lambda a: a.delete_records({place: RecordsToDelete(at + 10)}))
    ordered(made, "skip", "0")
    admin(made, lambda a: a.delete_records({place: RecordsToDelete(at + 30)}))
    with pytest.raises(OffsetOutOfRange, match=f"offset {at + 10}"):
        catch_up(made)
    assert checked(made).totals.records[Class.LOST] == 10


@shows_the_way_out(HaltReason.TOPIC_RECREATED)
def test_a_topic_created_again(made: Deployment):
    """The ledger's offsets mean nothing in it: it is read from its beginning, in a new epoch, by override only."""
    before = checked(made)

    async def recreate(client: AIOKafkaAdminClient) -> None:
        topic = made.settings.topics[0]
        await client.delete_topics([topic])
        configs = {"message.timestamp.type": "CreateTime", "retention.ms": "-1"}
        while (await client.describe_topics([topic]))[0]["error_code"] == 0:  # noqa: ASYNC110 - Kafka tells nobody
            await asyncio.sleep(LOOK_SECONDS)
        await client.create_topics([NewTopic(topic, 2, 1, topic_configs=configs)])
        while (await client.describe_topics([topic]))[0]["error_code"]:  # noqa: ASYNC110
            await asyncio.sleep(LOOK_SECONDS)

    admin(made, recreate)
    write_traffic_to_kafka(later(MODEL), made.settings)
    with pytest.raises(LaneHalted, match="another log"):
        catch_up(made)
    for number in range(2):
        ordered(made, "skip", str(number))
    catch_up(made)
    after = checked(made)
    assert after.totals.records_received == before.totals.records_received + MODEL.events
    assert Class.LOST not in after.totals.records


@shows_the_way_out(HaltReason.COMMITS_DISAGREE)
def test_commits_that_expired(made: Deployment):
    """Without commits nothing is guessed; by override the lane goes on from the ledger's end, and nothing is counted
    twice.
    """
    before = checked(made)
    write_traffic_to_kafka(later(MODEL), made.settings)
    made = without_commits(made)
    with pytest.raises(LaneHalted, match="committed intent is of batch none"):
        catch_up(made)
    for number in range(2):
        (override,) = ordered(made, "resolve", str(number))
        assert (override["kind"], override["lost"]) == ("adopt", 0)
    catch_up(made)
    after = checked(made)
    assert after.totals.records_received == before.totals.records_received + MODEL.events
    assert Class.LOST not in after.totals.records


@shows_the_way_out(HaltReason.ROWS_UNEXPLAINED)
def test_rows_of_a_batch_without_an_intent(made: Deployment):
    """Exactly they are removed by override, and the lane goes on."""
    write_traffic_to_kafka(later(MODEL), made.settings)
    database = made.settings.database
    (status, _) = lane_statuses(made)
    with made.client() as client:
        client.execute(
            f"INSERT INTO {database}.dead_letters (lane, batch_no, send_by, topic, offset, log_time, lane_clock, "
            f"reason_code, key, value) SELECT 0, {status['batch_no'] + 1}, toUnixTimestamp(now()) + 1, 0, 5, now(), now(), "
            "1, 'k', 'v'"
        )
    with pytest.raises(LaneHalted, match="dead_letters holds rows of batch"):
        catch_up(made)
    (override,) = ordered(made, "resolve", "0")
    assert override["rows_removed"] == {"dead_letters": 1}
    catch_up(made)
    checked(made)


class Full(ClickHouseSink):
    """A server whose disk is full when the rollups of a lane come."""

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        if table == "rollup_minute":
            raise SinkError("the disk is full", remedy="make room")
        await super().insert(table, columns, stamp)


@shows_the_way_out(HaltReason.ROWS_INCOMPLETE)
def test_some_rows_of_an_intended_batch(made: Deployment, monkeypatch: pytest.MonkeyPatch):
    """With fewer events of a batch than were intended the lane halts; by override they are removed and written again."""
    before = checked(made)
    write_traffic_to_kafka(later(MODEL), made.settings)
    options = SinkOptions(database=made.settings.database, write_deadline_seconds=1)
    with monkeypatch.context() as patch:
        patch.setattr(sys.modules[__name__], "make_sink", lambda _, server: Full(server, options))
        with pytest.raises(AdledgerError):
            catch_up(made, retry_attempts_max=1)
    assert all(
        "events" in status["rows_beyond"] and "ledger" not in status["rows_beyond"]
        for status in lane_statuses(made)
    )
    with made.client() as client:
        client.execute(
            f"ALTER TABLE {made.settings.database}.events DELETE WHERE lane = 1 AND offset % 2 = 1 "
            f"AND batch_no > {lane_statuses(made)[1]['batch_no']} SETTINGS mutations_sync = 2"
        )
    with pytest.raises(LaneHalted, match="were intended"):
        catch_up(made)
    while not (halted := lane_statuses(made)[1])["trouble"]:  # until its deadline the batch may be under way
        time.sleep(LOOK_SECONDS)
    assert f"of {halted['intended_rows']['events']} rows in events" in halted["trouble"]
    (override,) = ordered(made, "resolve", "1")
    assert override["rows_removed"] == halted["rows_beyond"]
    assert any("removed by an operator override" in line for line in catch_up(made))
    assert checked(made).totals.records_received == before.totals.records_received + MODEL.events


@shows_the_way_out(HaltReason.PARTITIONS_ADDED)
def test_partitions_are_added(kafka: LocalBroker, server: EmbeddedServer, tmp_path: Path):
    """When 2 lanes become 4 all halt until the override creates the barrier; then repeats of records sent before it are
    still duplicates.

    The new number must be a multiple, and repeating the override does nothing.
    """
    made = Deployment.make(kafka.servers, server, tmp_path, partitions=2, write_deadline_seconds=1)
    with open_log(tmp_path / "log", 2) as writer:
        write_traffic(MODEL, writer, lambda _: None)
    sent = [(topic, r) for (topic, _), records in read_log(tmp_path / "log").items() for r in records]
    send_records(made.settings, sent, 2)
    with made.client() as client:
        migrate(client, database=made.settings.database, release=__version__)
    catch_up(made)
    before = checked(made)
    again = [(topic, (o, t + 60_000 + i, k, v)) for i, (topic, (o, t, k, v)) in enumerate(sent) if i % 5 == 0]

    wider(made, 3)
    refused = lane(made, "repartition", "--reason", "3", "--execute").exception
    assert isinstance(refused, AdledgerError)
    assert "2 partitions became 3" in refused.message
    wider(made, 4)
    last = max(time for _, (_, time, _, _) in sent)
    send_records(
        made.settings, [(topic, (o, last + i, k, v)) for i, (topic, (o, _, k, v)) in enumerate(again)], 4
    )
    with pytest.raises(LaneHalted, match="partitions were added"):
        catch_up(made)
    overrides = ordered(made, "repartition")
    assert [(override["lane"], override["parent"]) for override in overrides] == [
        (0, None),
        (1, None),
        (2, 0),
        (3, 1),
    ]
    assert ordered(made, "repartition") == []
    catch_up(made)
    catch_up(made)
    after = checked(made)
    malformed = after.totals.records[Class.MALFORMED] - before.totals.records[Class.MALFORMED]
    duplicates = after.totals.records[Class.DUPLICATE] - before.totals.records[Class.DUPLICATE]
    assert duplicates + malformed == len(again)
    with made.client() as client:
        rows = client.execute(
            f"SELECT lane, count() FROM {made.settings.database}.events WHERE class_code = 2 GROUP BY lane"
        )
    assert {int(number) for number, _ in rows} == {0, 1, 2, 3}


def wider(made: Deployment, partitions: int) -> None:
    """Add partitions to both topics, and wait until the broker reports them."""

    async def add(client: AIOKafkaAdminClient) -> None:
        await client.create_partitions({t: NewPartitions(partitions) for t in made.settings.topics})
        while any(  # noqa: ASYNC110 - Kafka tells nobody
            len([p for p in t["partitions"] if p["leader"] >= 0]) < partitions
            for t in await client.describe_topics(list(made.settings.topics))
        ):
            await asyncio.sleep(LOOK_SECONDS)

    admin(made, add)
