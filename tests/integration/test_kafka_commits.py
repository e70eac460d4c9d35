"""Commits on a real broker: what comes back, who is refused, and what is known without an answer."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.structs import OffsetAndMetadata

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.lab.kafka_frames import OFFSET_COMMIT, KafkaFaults
from adledger.loadtest.lab.tcp_proxy import HOST, Action, TcpProxy
from adledger.pipeline.errors import CommitFenced, CommitRefused, CommitUnknown
from adledger.pipeline.log.kafka.commit_outcome import METADATA_BYTES_MAX
from adledger.pipeline.log.kafka.commits import CONNECTIONS, GroupCommits
from adledger.pipeline.log.source import Assignment, Committed
from tests.support.brokers import running_broker
from tests.support.kafka_group import (
    Consumer,
    Member,
    assemble,
    awaits_members,
    fresh,
    make_topics,
    reach_through,
)

LANES = 2 * CONNECTIONS
TOOL = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
PATIENCE_SECONDS = 30


class Group:
    """A group for one test: its topics, its members, each with its own client, and what is committed."""

    def __init__(self, servers: str, topics: tuple[str, ...], stack: AsyncExitStack) -> None:
        self.servers, self.topics, self._stack = servers, topics, stack
        self.name = fresh("group")

    async def client(self, proxy: TcpProxy | None = None) -> AIOKafkaClient:
        client = AIOKafkaClient(bootstrap_servers=proxy.address if proxy else self.servers)
        if proxy:
            reach_through(client, HOST, proxy.port)
        await client.bootstrap()
        self._stack.push_async_callback(client.close)
        return client

    async def member(self, instance: str | None = None) -> Member:
        return Member(await self.client(), self.name, self.topics, instance)

    async def commits(
        self, client: AIOKafkaClient | None = None, instance: str | None = None, seconds: float = 10
    ) -> GroupCommits:
        return GroupCommits(
            client or await self.client(),
            self.name,
            self.topics,
            instance=instance,
            answer_seconds_max=seconds,
        )

    async def committed(self, lane: int) -> dict[int, Committed]:
        return dict(await (await self.commits()).committed(lane))


def intent(number: int) -> dict[int, Committed]:
    """Return the same text for both topics' partitions."""
    return {topic: Committed(100 * number + topic, f"intent {number}") for topic in (0, 1)}


@pytest.fixture
async def group(kafka: LocalBroker) -> AsyncIterator[Group]:
    async with AsyncExitStack() as stack:
        yield Group(kafka.servers, await make_topics(kafka.servers, LANES), stack)


@pytest.fixture
async def through_proxy(kafka: LocalBroker) -> AsyncIterator[SimpleNamespace]:
    """A proxy before the broker, and the faults it does to Kafka's requests."""
    faults = KafkaFaults(keep=frozenset({OFFSET_COMMIT}))
    host, port = kafka.servers.split(":")
    async with TcpProxy(host, int(port), gate=faults.gate) as proxy:
        yield SimpleNamespace(proxy=proxy, faults=faults)


@pytest.mark.parametrize(
    "text",
    [
        "",
        '{"batch": 7}',
        '\N{SNOWMAN}\0\n"\\' * 100,
        "x" * METADATA_BYTES_MAX,
        "é" * (METADATA_BYTES_MAX // 2),
    ],
)
async def test_what_is_committed_comes_back_byte_for_byte(group, text):
    """Offset and text of each topic of this lane come back; what was never committed is left out."""
    member = await group.member()
    await assemble(member)
    commits = await group.commits()
    positions = {0: Committed(0, text), 1: Committed(2**62, text)}
    await commits.commit(member.owns(2), positions)
    assert await group.committed(2) == positions
    await commits.commit(member.owns(2), {1: Committed(5, "later")})
    assert await group.committed(2) == {0: Committed(0, text), 1: Committed(5, "later")}
    assert await group.committed(1) == {}


async def test_all_lanes_commit_at_once(group, through_proxy):
    """Whether lanes share a connection or not, none waits for another's answer, and none is lost or mixed up."""
    member = await group.member()
    await assemble(member)
    client = await group.client(through_proxy.proxy)
    commits = await group.commits(client)
    await asyncio.gather(*(commits.commit(member.owns(lane), intent(lane + 1)) for lane in range(LANES)))
    assert [await group.committed(lane) for lane in range(LANES)] == [intent(n + 1) for n in range(LANES)]
    assert through_proxy.faults.count(OFFSET_COMMIT) == LANES


async def test_a_stale_generation_is_refused(group):
    """After a rebalance no commit is accepted for the old assignment, though the member is still there."""
    first, second = await group.member(), await group.member()
    await assemble(first)
    commits, before = await group.commits(), first.owns(0)
    await commits.commit(before, intent(1))
    await assemble(first, second)
    with pytest.raises(CommitFenced, match="ILLEGAL_GENERATION"):
        await commits.commit(before, intent(2))
    assert await group.committed(0) == intent(1)
    await commits.commit(first.owns(0), intent(3))
    assert await group.committed(0) == intent(3)


async def test_during_a_rebalance_the_last_generation_may_commit_until_the_next_begins(group):
    """While members are awaited the old owner may finish; once all have joined, neither generation may commit."""
    first, second = await group.member(), await group.member()
    await assemble(first)
    commits, before = await group.commits(), first.owns(0)
    joining = asyncio.create_task(second.join())  # answered when `first` has joined again
    await awaits_members(second)
    await commits.commit(before, intent(1))
    assert await group.committed(0) == intent(1)
    await asyncio.gather(first.join(), joining)
    with pytest.raises(CommitFenced, match="ILLEGAL_GENERATION"):
        await commits.commit(before, intent(2))
    with pytest.raises(CommitFenced, match="REBALANCE_IN_PROGRESS"):
        await commits.commit(first.owns(0), intent(3))
    assert await group.committed(0) == intent(1)


async def test_a_member_that_left_is_refused(group):
    """A late commit of a former member changes nothing, whether others are there or not."""
    first, second = await group.member(), await group.member()
    await assemble(first)
    await assemble(first, second)
    commits = await group.commits()
    await commits.commit(first.owns(0), intent(1))
    await first.leave()
    with pytest.raises(CommitFenced, match="UNKNOWN_MEMBER_ID"):
        await commits.commit(first.owns(0), intent(2))
    await second.leave()
    with pytest.raises(CommitFenced, match="UNKNOWN_MEMBER_ID"):
        await commits.commit(second.owns(0), intent(3))
    assert await group.committed(0) == intent(1)


async def test_a_static_member_that_was_replaced_is_refused(group):
    """A restarted process with the same instance id gets its lanes in the same generation, and the old one is fenced."""
    old, new = await group.member("one"), await group.member("one")
    await assemble(old)
    commits = await group.commits(instance="one")
    await commits.commit(old.owns(0), intent(1))
    await new.join()
    assert (new.generation, new.member_id) != (old.generation, old.member_id)
    with pytest.raises(CommitFenced, match="FENCED_INSTANCE_ID"):
        await commits.commit(old.owns(0), intent(2))
    assert await group.committed(0) == intent(1)
    await commits.commit(new.owns(0), intent(3))
    assert await group.committed(0) == intent(3)


async def test_an_old_intent_on_its_way_does_not_overwrite_the_next_owners(group, through_proxy):
    """A request that the network held back until the lane had another owner is refused when it arrives."""
    first, second = await group.member(), await group.member()
    await assemble(first)
    slow = await group.commits(await group.client(through_proxy.proxy))
    through_proxy.faults.set(OFFSET_COMMIT, requests=Action.HOLD)
    late = asyncio.create_task(slow.commit(first.owns(3), intent(7)))
    await through_proxy.proxy.held.wait()
    await assemble(first, second)
    await (await group.commits()).commit(second.owns(3), intent(8))
    through_proxy.faults.set(OFFSET_COMMIT)
    through_proxy.proxy.release()
    with pytest.raises(CommitFenced, match="ILLEGAL_GENERATION"):
        await late
    assert await group.committed(3) == intent(8)


async def test_control_stock_aiokafka_overwrites_the_next_owners_intent(group):
    """Control: aiokafka's commit, begun before a rebalance and sent after it, goes out in the new generation's name.

    So does its retry of a commit that was sent before. The broker accepts it, for another member's partition.
    """
    first, second = (
        Consumer(group.servers, group.name, group.topics),
        Consumer(group.servers, group.name, group.topics),
    )
    async with AsyncExitStack() as stack:
        await first.aiokafka.start()
        stack.push_async_callback(first.aiokafka.stop)
        assert len(await first.assigned.get()) == 2 * LANES
        lane = [TopicPartition(topic, LANES - 1) for topic in group.topics]
        async with first.aiokafka._coordinator._commit_lock:  # another commit of this consumer is under way
            late = asyncio.create_task(
                first.aiokafka.commit({tp: OffsetAndMetadata(7, "intent 7") for tp in lane})
            )
            await asyncio.sleep(0)  # it has begun
            await second.aiokafka.start()
            stack.push_async_callback(second.aiokafka.stop)
            assert await second.assigned.get() >= set(lane)
            assert not await first.assigned.get() & set(lane)
            await second.aiokafka.commit({tp: OffsetAndMetadata(8, "intent 8") for tp in lane})
        await late
    assert await group.committed(LANES - 1) == dict.fromkeys((0, 1), Committed(7, "intent 7"))


async def test_kafkas_own_tool_reads_offsets_and_members(kafka, group):
    """`kafka-consumer-groups --describe` shows committed offsets, and which member has which partitions."""
    consumer = Consumer(group.servers, group.name, group.topics)
    await consumer.aiokafka.start()
    try:
        await consumer.assigned.get()
        coordinator = consumer.aiokafka._coordinator
        mine = Assignment(1, coordinator.generation, coordinator.member_id)
        await (await group.commits(consumer.aiokafka._client)).commit(mine, intent(7))
        asked = [TOOL, "--bootstrap-server", group.servers, "--describe", "--group", group.name]
        offsets, members = await asyncio.gather(
            asyncio.to_thread(kafka.tool, *asked),
            asyncio.to_thread(kafka.tool, *asked, "--members", "--verbose"),
        )
    finally:
        await consumer.aiokafka.stop()
    rows = [line.split() for line in offsets.stdout.splitlines()]
    assert {(row[1], row[2], row[3]) for row in rows if row[3:4] and row[3].isdecimal()} == {
        (group.topics[0], "1", "700"),
        (group.topics[1], "1", "701"),
    }, offsets
    every = ",".join(map(str, range(LANES)))
    for topic in group.topics:
        assert f"{topic}:{every}" in members.stdout or f"{topic}({every})" in members.stdout, members


@pytest.mark.parametrize("fate", ["no answer", "cut after it was done", "cut before it arrived"])
async def test_without_an_answer_the_outcome_is_unknown_and_nothing_is_sent_again(group, through_proxy, fate):
    """One request is on the wire whatever is requested later, and whether it was done is unknown."""
    member = await group.member()
    await assemble(member)
    requests, replies = {
        "no answer": (Action.PASS, Action.HOLD),
        "cut after it was done": (Action.PASS, Action.CUT),
        "cut before it arrived": (Action.CUT, Action.PASS),
    }[fate]
    through_proxy.faults.set(OFFSET_COMMIT, requests=requests, replies=replies)
    commits = await group.commits(await group.client(through_proxy.proxy), seconds=1)
    with pytest.raises(CommitUnknown, match="no answer"):
        await commits.commit(member.owns(0), intent(1))
    through_proxy.faults.set(OFFSET_COMMIT)
    with pytest.raises(CommitUnknown, match="earlier commit"):
        await commits.commit(member.owns(0), intent(1))
    assert through_proxy.faults.count(OFFSET_COMMIT) == 1
    assert await commits.committed(0) == ({} if fate == "cut before it arrived" else intent(1))
    await commits.commit(member.owns(1), intent(2))  # other lanes go on, over a new connection
    assert await group.committed(1) == intent(2)


async def test_a_commit_that_was_cancelled_is_not_followed_by_another(group, through_proxy):
    """A lane that ends in mid-commit leaves its request on the wire, which nothing may overtake."""
    member = await group.member()
    await assemble(member)
    commits = await group.commits(await group.client(through_proxy.proxy))
    through_proxy.faults.set(OFFSET_COMMIT, requests=Action.HOLD)
    under_way = asyncio.create_task(commits.commit(member.owns(0), intent(1)))
    await through_proxy.proxy.held.wait()
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way
    with pytest.raises(CommitUnknown, match="earlier commit"):
        await commits.commit(member.owns(0), intent(2))
    assert through_proxy.faults.count(OFFSET_COMMIT) == 1


async def test_where_nothing_was_sent_the_lane_may_intend_again(group, through_proxy):
    """Without a connection the outcome is CommitRefused; once the broker is back the same member commits."""
    member = await group.member()
    await assemble(member)
    client = await group.client(through_proxy.proxy)
    commits = await group.commits(client, seconds=1)
    through_proxy.proxy.pause()
    with pytest.raises(CommitRefused, match="nothing was sent"):
        await commits.commit(member.owns(0), intent(2))
    assert through_proxy.faults.count(OFFSET_COMMIT) == 0
    through_proxy.proxy.resume()
    await commits.commit(member.owns(0), intent(3))
    assert await group.committed(0) == intent(3)


async def test_one_topic_refused_and_one_accepted_is_unknown(kafka, group):
    """The broker keeps what it accepted, so the lane's topics now carry different intents."""
    member = await group.member()
    await assemble(member)
    client = await group.client()
    commits = GroupCommits(client, group.name, (group.topics[0], fresh("no-such-topic")))
    with pytest.raises(CommitUnknown, match="UNKNOWN_TOPIC_OR_PARTITION"):
        await commits.commit(member.owns(0), intent(1))
    assert await group.committed(0) == {0: intent(1)[0]}


async def test_every_topic_refused_is_refused_with_the_remedy(group):
    """Nothing was committed: the lane may intend again, and the message has a remedy."""
    member = await group.member()
    await assemble(member)
    commits = GroupCommits(await group.client(), group.name, (fresh("no-such"), fresh("nor-this")))
    with pytest.raises(CommitRefused, match="create the topic"):
        await commits.commit(member.owns(0), intent(1))


@pytest.mark.slow
async def test_after_a_broker_restart_the_same_member_commits(tmp_path):
    """Group, generation and offsets are in the broker's log, so a restart costs a lane no more than its wait."""
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(running_broker(tmp_path))
        group = Group(broker.servers, await make_topics(broker.servers, LANES), stack)
        member = await group.member()
        await assemble(member)
        commits = await group.commits(seconds=PATIENCE_SECONDS)
        await commits.commit(member.owns(0), intent(1))
        broker.kill()
        await asyncio.to_thread(broker.start)
        assert await commits.committed(0) == intent(1)
        while True:
            try:
                await commits.commit(member.owns(0), intent(2))
            except CommitRefused:
                continue  # surely not done: intend again
            break
        assert await group.committed(0) == intent(2)


@pytest.mark.slow
async def test_a_broker_that_takes_less_metadata_is_named_with_its_setting(tmp_path):
    """Texts too long for this broker are refused before anything is written; too long for one topic only is unknown."""
    async with AsyncExitStack() as stack:
        broker = stack.enter_context(
            running_broker(tmp_path, properties={"offset.metadata.max.bytes": "100"})
        )
        group = Group(broker.servers, await make_topics(broker.servers, LANES), stack)
        member = await group.member()
        await assemble(member)
        commits = await group.commits()
        fits, long = Committed(7, "x" * 100), Committed(8, "x" * 101)
        await commits.commit(member.owns(0), {0: fits, 1: fits})
        with pytest.raises(
            CommitRefused, match=r"OFFSET_METADATA_TOO_LARGE(.|\n)*offset\.metadata\.max\.bytes"
        ):
            await commits.commit(member.owns(0), {0: long, 1: long})
        assert await group.committed(0) == {0: fits, 1: fits}
        with pytest.raises(CommitUnknown, match="OFFSET_METADATA_TOO_LARGE"):
            await commits.commit(member.owns(1), {0: fits, 1: long})
        assert await group.committed(1) == {0: fits}
