"""An unclean election under a running worker, on real brokers and with tables: what it lost and replaced is never silent."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.lanes import lane_runner
from adledger.pipeline.log.kafka_admin.failures import connected
from adledger.pipeline.log.kafka_admin.group_facts import describe_group
from adledger.pipeline.log.leader_epochs import NO_EPOCH, LeaderEpochs
from adledger.schemas.classes import Class
from adledger.sinks.embedded.launch import EmbeddedServer
from tests.integration.test_kafka_cluster import PATIENCE_SECONDS, coordinator
from tests.integration.test_kafka_election import NEW, OLD, OTHER, Leader, made, until_led
from tests.integration.test_lane_overrides import checked, lane_statuses, later, ordered
from tests.support.kafka_cluster import LocalCluster, cluster
from tests.support.kafka_deployment import Deployment, LedgerReader
from tests.support.kafka_log import PARTITIONS, KafkaLog
from tests.support.kafka_traffic import write_traffic_to_kafka
from tests.support.kafka_worker import WorkerHere, worker_here

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

MODEL = TrafficModel(seed=41, events=1_200, partitions=PARTITIONS, duration_hours=2, duplicate_share=0.05)
GROWN = replace(later(later(MODEL)), events=3 * MODEL.events)
"""What the new leader gets: more records than were lost, so that its log reaches beyond every position."""
LOOK_SECONDS = 0.1
LONG_SESSION = {"kafka": {"session.timeout.ms": "120000", "heartbeat.interval.ms": "500"}}


@pytest.fixture
def three(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three brokers for one test, which damages two of them."""
    with cluster(tmp_path, unclean_leader_election_enable="true") as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    """One ClickHouse for all tests here: each has a database of its own."""
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A running worker whose log was rewritten: topic positions by lane, as both leaders had them, as the ledger has them,
    and where the log ends; `grown`: records that the new leader got.
    """

    deployment: Deployment
    worker: WorkerHere
    ledger: LedgerReader
    kept: dict[int, dict[str, int]]
    read: dict[int, dict[str, int]]
    ends: dict[int, dict[str, int]]
    grown: int

    @property
    def replaced(self) -> int:
        """The number of records that the ledger has and the log lost; as many others have their offsets."""
        return sum(self.read[lane][t] - self.kept[lane][t] for lane in self.read for t in self.read[lane])

    @property
    def in_log(self) -> int:
        """The number of records that the log has now."""
        return sum(sum(ends.values()) for ends in self.ends.values())


async def group_on(three: LocalCluster, node: int) -> str:
    """Return the name of a group that this broker coordinates."""
    async with connected({"bootstrap_servers": three.servers.split(",")}) as client:
        await describe_group(client, "any")  # the brokers create their offsets topic for the first one
    for number in range(1_000):
        if await coordinator(three.servers, f"group-{number}") == node:
            return f"group-{number}"
    raise AssertionError("no group has this coordinator")


async def positions(deployment: Deployment) -> dict[int, dict[str, int]]:
    found = await asyncio.to_thread(lane_statuses, deployment)
    return {status["lane"]: status["positions"] for status in found}


async def done(ledger: LedgerReader, records: int) -> None:
    while ledger.records() < records:  # noqa: ASYNC110 - a table
        await asyncio.sleep(LOOK_SECONDS)


async def ends_of(log: KafkaLog) -> dict[int, dict[str, int]]:
    source = log.member()
    await source.look()
    try:
        bounds = {lane: await source.bounds(lane) for lane in range(log.partitions)}
    finally:
        await source.leave()
    return {lane: {log.topics[t]: b.end for t, b in found.items()} for lane, found in bounds.items()}


@asynccontextmanager
async def rewritten(three: LocalCluster, server: EmbeddedServer, folder: Path) -> AsyncIterator[Rewritten]:
    """Yield a running worker, whose fetches wait, after an unclean election replaced records that its ledger has."""
    log = await made(three)
    rollups = KafkaLog(three, partitions=1)
    await rollups.make_on(OTHER)
    deployment = Deployment.without_topics(
        three.servers, server, folder, topics=list(log.topics), rollups_topic=rollups.topics[0],
        group=await group_on(three, OTHER), write_deadline_seconds=2, **LONG_SESSION,
    )  # fmt: skip

    async def write(model: TrafficModel) -> int:
        return (await asyncio.to_thread(write_traffic_to_kafka, model, deployment.settings)).records_received

    with deployment.client() as client:
        ledger = LedgerReader(client, deployment.settings.database)
        async with worker_here(deployment) as worker, asyncio.timeout(4 * PATIENCE_SECONDS):
            records = await write(MODEL)
            await done(ledger, records)
            kept = await positions(deployment)
            three.brokers[NEW].kill()
            await until_led(log, Leader(OLD, frozenset((OLD,))))
            await done(ledger, records + await write(later(MODEL)))
            read = await positions(deployment)
            await worker.source.hold()
            three.brokers[OLD].kill()
            await asyncio.to_thread(three.brokers[NEW].start)
            await until_led(log, Leader(NEW, frozenset((NEW,))))
            grown = await write(GROWN)
            ends = await ends_of(log)
            assert all(ends[lane][t] > read[lane][t] > kept[lane][t] for lane in read for t in read[lane])
            yield Rewritten(deployment, worker, ledger, kept, read, ends, grown)


async def test_every_lane_halts_and_goes_on_by_its_override(
    three: LocalCluster, server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each lane names what was replaced and halts. By override as many records as were replaced are of class lost, and
    everything after them is billed.
    """
    monkeypatch.setattr(lane_runner, "OVERRIDE_POLL_SECONDS", 0.1)
    async with rewritten(three, server, tmp_path) as found:
        before = found.ledger.records()
        found.worker.source.gate.set()
        for lane in found.read:
            while not found.worker.reported(f"lane {lane} halted"):  # noqa: ASYNC110 - a log line
                await asyncio.sleep(LOOK_SECONDS)
        assert found.ledger.records() == before, "nothing was billed from a log that disagrees"
        for lane in found.read:
            [override] = await asyncio.to_thread(ordered, found.deployment, "skip", str(lane))
            assert override["ranges"] == {
                t: [found.kept[lane][t], found.read[lane][t]] for t in found.read[lane]
            }
        while await positions(found.deployment) != found.ends:  # noqa: ASYNC110 - a command
            await asyncio.sleep(LOOK_SECONDS)
        report = await asyncio.to_thread(checked, found.deployment)
        assert report.totals.records[Class.LOST] == found.replaced
        assert report.totals.records_received == found.in_log, "as many as were replaced were read before"
        assert in_tables(found) == found.grown - found.replaced


async def test_control_without_leader_epochs_the_loss_is_silent(
    three: LocalCluster, server: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: a worker that names no epoch reads on behind its positions. The records at the replaced offsets are in no
    table, no lane halts, and the ledger has no record of class lost.
    """
    monkeypatch.setattr(LeaderEpochs, "before", lambda *_: NO_EPOCH)
    async with rewritten(three, server, tmp_path) as found:
        found.worker.source.gate.set()
        await done(found.ledger, found.in_log)
        assert await positions(found.deployment) == found.ends
        assert not found.worker.reported("halted")
        report = await asyncio.to_thread(checked, found.deployment)
        assert report.totals.records.get(Class.LOST, 0) == 0
        assert in_tables(found) == found.grown - found.replaced


def in_tables(found: Rewritten) -> int:
    """Return how many of the new leader's records are in the tables: they come after all others."""
    since = {"since": GROWN.start_ms}
    database = found.deployment.settings.database
    with found.deployment.client() as client:
        return sum(
            client.execute(f"SELECT {of} FROM {database}.{table} WHERE toUnixTimestamp64Milli(log_time) >= %(since)s", since)[0][0]
            for table, of in (("events", "count()"), ("dead_letters", "sum(records)"))
        )  # fmt: skip
