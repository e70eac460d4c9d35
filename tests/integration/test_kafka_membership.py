"""Members of a real group: lanes are shared, handed over, kept while no lane polls, and never lost silently."""

import asyncio
from collections.abc import Callable

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.protocol.group import LeaveGroupRequest

from adledger.pipeline.errors import CommitFenced
from adledger.pipeline.log.source import Committed
from adledger.pipeline.stages.walk import walk
from tests.contracts.source_suite import PARTITIONS, Listener, joined
from tests.support.kafka_log import KafkaLog

PATIENCE_SECONDS = 60
POLL_SECONDS = 0.02
QUICK = {"heartbeat_interval_ms": "100", "session_timeout_ms": "6000"}


@pytest.fixture
async def log(kafka):
    return await KafkaLog(kafka).make()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - many events may make it true
            await asyncio.sleep(POLL_SECONDS)


def shared(*listeners: Listener) -> bool:
    """Whether every lane has exactly one owner, and each listener has some."""
    lanes = sorted(lane for listener in listeners for lane in listener.assigned)
    return lanes == list(range(PARTITIONS)) and all(listener.assigned for listener in listeners)


async def test_lanes_are_shared_and_handed_over(log):
    """A second member gets half of the lanes, for which the first may no longer commit, and gives them back."""
    first, second = log.member(**QUICK), log.member(**QUICK)
    mine = await joined(first)
    before = dict(mine.assigned)
    theirs = Listener()
    await second.join(theirs)
    await until(lambda: shared(mine, theirs))
    assert len(mine.assigned) == len(theirs.assigned) == PARTITIONS // 2
    assert sorted(mine.revoked) == list(range(PARTITIONS)), "all were revoked before any was given away"
    [taken, *_] = theirs.assigned
    with pytest.raises(CommitFenced):
        await first.commit(before[taken], {0: Committed(0, "zombie")})
    await second.commit(theirs.assigned[taken], {0: Committed(0, "owner")})
    await second.leave()
    await until(lambda: shared(mine))
    assert await first.committed(taken) == {0: Committed(0, "owner")}
    await first.leave()


async def test_a_member_that_does_not_poll_stays(log):
    """A worker that waits for ClickHouse, and so fetches nothing for many max.poll.interval.ms, keeps its lanes."""
    source = log.member(max_poll_interval_ms="50", **(QUICK | {"heartbeat_interval_ms": "50"}))
    listener = await joined(source)
    await asyncio.sleep(0.6)  # many intervals and heartbeats: that nothing happens in them is the law
    await source.commit(listener.assigned[1], {0: Committed(0, "still here")})
    assert listener.revoked == []
    await source.leave()


async def test_a_removed_member_comes_back_as_a_new_one(log):
    """When the group no longer knows the member, its lanes are revoked and come back under another member id."""
    source = log.member(**QUICK)
    listener = await joined(source)
    before = listener.assigned[1]
    client = AIOKafkaClient(bootstrap_servers=log.broker.servers)
    await client.bootstrap()
    try:
        node = await client.coordinator_lookup(CoordinationType.GROUP, f"{log.name}-group")
        await client.send(node, LeaveGroupRequest(f"{log.name}-group", before.member_id))
    finally:
        await client.close()
    await until(lambda: bool(listener.revoked) and shared(listener))
    assert listener.assigned[1].member_id != before.member_id
    with pytest.raises(CommitFenced):
        await source.commit(before, {0: Committed(0, "")})
    await source.leave()


async def test_a_stranger_in_the_group_is_named(log):
    """While another program is in the group, joining reports it, and goes on when that has left."""
    stranger = AIOKafkaConsumer(
        log.topics[0], bootstrap_servers=log.broker.servers, group_id=f"{log.name}-group"
    )
    await stranger.start()
    lines: list[str] = []
    listener = Listener()
    source = log.member(lines.append, **QUICK)
    await source.join(listener)
    await until(lambda: any("another program" in line for line in lines))
    await stranger.stop()
    await until(lambda: shared(listener))
    assert not any("Traceback" in line or "\n" in line for line in lines)
    await source.leave()


async def test_a_static_member_keeps_its_place(log):
    """With group.instance.id a returning member has its lanes; a rejoin still gets a new member id."""
    first = log.member(group_instance_id="one", **QUICK)
    mine = await joined(first)
    before = mine.assigned[1].member_id
    await first.rejoin()
    await until(lambda: shared(mine))
    assert mine.assigned[1].member_id != before
    await first.leave()
    second = log.member(group_instance_id="one", **QUICK)
    theirs = await joined(second)
    assert shared(theirs)
    await second.commit(theirs.assigned[1], {0: Committed(0, "static")})
    await second.leave()


async def test_a_waiting_lane_holds_up_no_other(log):
    """While one lane waits long at its end, others fetch, and its own records arrive when they are there."""
    await log.append(0, 1, [(0, b"k", b"v")])
    source = log.member(**QUICK)
    await joined(source)
    waiting = asyncio.create_task(source.fetch(0, {0: 0, 1: 0}, 1 << 20, 10_000))
    for _ in range(5):
        [fetched] = await source.fetch(1, {0: 0}, 1 << 20, 10_000)
        assert len(walk(fetched)) == 1
    assert not waiting.done()
    await log.append(1, 0, [(0, b"k", b"v")])
    assert [len(walk(fetched)) for fetched in sorted(await waiting, key=lambda f: f.topic)] == [0, 1]
    await source.leave()
