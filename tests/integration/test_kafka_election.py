"""An unclean election on real brokers: a leader that lacks the last records replaces them, and is found out.

The short form, one broker whose segment is cut, is in test_kafka_reader.py and runs with `make test`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.client import AIOKafkaClient

from adledger.pipeline.errors import LogRewritten
from adledger.pipeline.log.kafka.source import KafkaSource
from adledger.pipeline.log.leader_epochs import NO_EPOCH, LeaderEpochs
from adledger.pipeline.stages.walk import walk
from tests.contracts.source_suite import joined
from tests.integration.test_kafka_cluster import PATIENCE_SECONDS
from tests.integration.test_kafka_reader import LANE, has_end, ours, records
from tests.support.kafka_cluster import LocalCluster, cluster
from tests.support.kafka_log import KafkaLog
from tests.support.records import Stored, read_back

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

OLD, NEW, OTHER = 1, 2, 3
"""The leader that is lost, the one that lacks its last records, and the one that keeps the group."""
KEPT, READ, GROWN = 10, 20, 26
"""Offsets: what both leaders have, what the first had and was read, and where the second one's log ends."""
POLL_SECONDS = 0.1


@pytest.fixture
def three(tmp_path: Path) -> Iterator[LocalCluster]:
    """Three brokers for one test, which damages two of them."""
    quick = {"broker_session_timeout_ms": "3000", "broker_heartbeat_interval_ms": "500"}
    with cluster(tmp_path, unclean_leader_election_enable="true", **quick) as running:
        yield running


@dataclass(frozen=True, slots=True)
class Leader:
    """The leader of the lane's first partition, and the copies that are in sync."""

    node: int
    in_sync: frozenset[int]


async def leader(log: KafkaLog) -> Leader:
    client = AIOKafkaClient(bootstrap_servers=log.broker.servers)
    await client.bootstrap()
    try:
        found = (await client.fetch_all_metadata())._partitions[log.topics[0]][LANE]
        return Leader(found.leader, frozenset(found.isr))
    finally:
        await client.close()


async def until_led(log: KafkaLog, wanted: Leader) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await leader(log) != wanted:  # noqa: ASYNC110 - Kafka tells nobody
            await asyncio.sleep(POLL_SECONDS)


async def made(three: LocalCluster) -> KafkaLog:
    """Make topics whose partitions have copies on two of the brokers, led by the first."""
    log = KafkaLog(three)
    admin = AIOKafkaAdminClient(bootstrap_servers=three.servers)
    await admin.start()
    try:
        copies = {p: [OLD, NEW] for p in range(log.partitions)}
        settings = {
            "message.timestamp.type": "CreateTime",
            "retention.ms": "-1",
            "unclean.leader.election.enable": "true",
        }
        await admin.create_topics(
            [NewTopic(t, -1, -1, replica_assignments=copies, topic_configs=settings) for t in log.topics]
        )
    finally:
        await admin.close()
    await until_led(log, Leader(OLD, frozenset((OLD, NEW))))
    return log


@asynccontextmanager
async def overwritten(three: LocalCluster) -> AsyncIterator[tuple[KafkaSource, list[Stored]]]:
    """Yield a reader of a log whose last records were read, and then replaced by an unclean election."""
    log = await made(three)
    source = log.member(retry_attempts_max=200)
    await joined(source)
    try:
        await log.append(0, LANE, records(KEPT))
        await has_end(source, KEPT)
        assert len(await ours(source, 0)) == KEPT
        three.brokers[NEW].kill()
        await until_led(log, Leader(OLD, frozenset((OLD,))))
        await log.append(0, LANE, records(READ - KEPT, KEPT))
        await has_end(source, READ)
        read = await ours(source, 0)
        assert len(read) == READ
        three.brokers[OLD].kill()
        await asyncio.to_thread(three.brokers[NEW].start)
        await until_led(log, Leader(NEW, frozenset((NEW,))))
        await log.append(0, LANE, records(GROWN - KEPT, 100))
        await has_end(source, GROWN)
        yield source, read
    finally:
        await source.leave()


async def test_a_reader_detects_an_unclean_election(three: LocalCluster) -> None:
    """The new leader has a higher epoch and other records where some were read: each position after them is refused, at
    the end of what was read, in the middle of it, and by the epoch that a ledger keeps.
    """
    async with overwritten(three) as (source, read):
        epochs = source.leader_epochs(LANE, {0: READ})
        for position in (READ - 5, READ):
            with pytest.raises(LogRewritten, match=f"truncated: from offset {KEPT} on") as error:
                await source.fetch(LANE, {0: position}, 1 << 20, 500)
            assert error.value.since == {0: KEPT}
            assert source.leader_epochs(LANE, {0: READ}) == {}, "what was denied is forgotten"
            source.resume(LANE, {0: READ}, epochs)
        source.resume(LANE, {}, {})
        now = await ours(source, 0)
        assert now[:KEPT] == read[:KEPT]
        assert [offset for offset, *_ in now] == list(range(GROWN))
        assert not set(now[KEPT:READ]) & set(read[KEPT:READ])
        assert source.leader_epochs(LANE, {0: GROWN})[0] > epochs[0]


async def test_control_without_epochs_the_records_are_lost(
    three: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: a reader that names no epoch gets what follows, and never sees the records now before its position."""
    monkeypatch.setattr(LeaderEpochs, "before", lambda *_: NO_EPOCH)
    async with overwritten(three) as (source, read):
        [fetched] = await source.fetch(LANE, {0: READ}, 1 << 20, 500)
        found = read_back(walk(fetched))
        assert [offset for offset, *_ in found] == list(range(READ, GROWN))
        assert not set(found) & set(read)
