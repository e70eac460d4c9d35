"""Several brokers whose group coordinator goes away: members that rejoin wait for no session's end."""

import asyncio
import os
import signal
from collections.abc import Callable, Iterator

import pytest
from aiokafka.client import AIOKafkaClient, CoordinationType

from tests.contracts.source_suite import PARTITIONS, Listener, joined
from tests.support.kafka_cluster import LocalCluster, cluster
from tests.support.kafka_log import KafkaLog

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE_SECONDS = 90
SESSION = {"heartbeat_interval_ms": "500", "session_timeout_ms": "300000"}
"""Far beyond PATIENCE_SECONDS: a test that waits for a lost member's session fails."""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three brokers, each with a copy of everything."""
    with cluster(tmp_path_factory.mktemp("three")) as running:
        yield running


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - many events may make it true
            await asyncio.sleep(0.05)


async def coordinator(servers: str, group: str) -> int:
    client = AIOKafkaClient(bootstrap_servers=servers)
    await client.bootstrap()
    try:
        return await client.coordinator_lookup(CoordinationType.GROUP, group)
    finally:
        await client.close()


async def in_sync(servers: str, brokers: int) -> None:
    """Return when every partition of every topic has this many copies in sync."""
    client = AIOKafkaClient(bootstrap_servers=servers)
    await client.bootstrap()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                found = await client.fetch_all_metadata()
                partitions = [p for topic in found._partitions.values() for p in topic.values()]
                if partitions and all(len(p.isr) >= brokers for p in partitions):
                    return
                await asyncio.sleep(0.2)
    finally:
        await client.close()


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL], ids=["rolled", "killed"])
async def test_a_rejoin_does_not_wait_for_the_session_of_the_old_member(
    three: LocalCluster, end: int
) -> None:
    """When the coordinator goes, members that join again get all lanes, though the old members' sessions last for
    minutes.
    """
    log = await KafkaLog(three, replicas=3).make()
    members = [log.member(**SESSION), log.member(**SESSION)]
    listeners = [await joined(members[0]), Listener()]
    await members[1].join(listeners[1])
    await until(lambda: shared(listeners))
    node = await coordinator(three.servers, f"{log.name}-group")
    before = {a.member_id for listener in listeners for a in listener.assigned.values()}
    os.kill(three.brokers[node].pid, end)
    try:
        await asyncio.gather(*(member.rejoin() for member in members))
        await until(lambda: shared(listeners) and not before & ids(listeners))
        for member in members:
            await member.leave()
    finally:
        three.brokers[node].kill()
        three.brokers[node].start()
        await in_sync(three.servers, 3)


def ids(listeners: list[Listener]) -> set[str]:
    return {a.member_id for listener in listeners for a in listener.assigned.values()}


def shared(listeners: list[Listener]) -> bool:
    lanes = sorted(lane for listener in listeners for lane in listener.assigned)
    return lanes == list(range(PARTITIONS)) and all(listener.assigned for listener in listeners)
