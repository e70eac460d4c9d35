"""The assignor in a real group: what aiokafka members assign to each other, through a real broker."""

import pytest
from aiokafka import TopicPartition

from tests.support.kafka_group import Consumer, fresh, make_topics

LANES = 7


def lanes(assigned: set[TopicPartition], topics: tuple[str, ...]) -> set[int]:
    """Return the lanes of an assignment, which has them in every topic."""
    of_topics = [{tp.partition for tp in assigned if tp.topic == topic} for topic in topics]
    assert of_topics[0] == of_topics[1]
    return of_topics[0]


@pytest.fixture
async def topics(kafka):
    return await make_topics(kafka.servers, LANES)


async def test_lanes_stay_through_a_join_and_a_leave(kafka, topics):
    """A newcomer gets its share and no more; when it leaves, exactly its lanes come back and nothing else moves."""
    group = fresh("group")
    async with Consumer(kafka.servers, group, topics) as first:
        assert lanes(await first.assigned.get(), topics) == set(range(LANES))
        async with Consumer(kafka.servers, group, topics) as second:
            kept, given = (
                lanes(await first.assigned.get(), topics),
                lanes(await second.assigned.get(), topics),
            )
            assert (len(kept), len(given), kept | given) == (4, 3, set(range(LANES)))
            async with Consumer(kafka.servers, group, topics) as third:
                shares = [lanes(await c.assigned.get(), topics) for c in (first, second, third)]
                assert sorted(map(len, shares)) == [2, 2, 3]
                assert len(kept & shares[0]) + len(given & shares[1]) == LANES - len(shares[2])
            back = [lanes(await c.assigned.get(), topics) for c in (first, second)]
            assert shares[0] <= back[0]
            assert shares[1] <= back[1]
            assert back[0] | back[1] == set(range(LANES))


async def test_a_restarted_static_member_keeps_its_lanes_without_a_rebalance(kafka, topics):
    """Within its session timeout a restart is no rebalance, whether or not it led the group, and its claim is known
    again.
    """
    group = fresh("group")
    async with Consumer(kafka.servers, group, topics, "one") as leader:
        await leader.assigned.get()
        async with Consumer(kafka.servers, group, topics, "two") as follower:
            before = {"one": await leader.assigned.get(), "two": await follower.assigned.get()}
        async with Consumer(kafka.servers, group, topics, "two") as again:
            assert await again.assigned.get() == before["two"]
            assert again.assignor.claim == follower.assignor.claim
            await leader.aiokafka.stop()
            async with Consumer(kafka.servers, group, topics, "one") as leads_again:
                assert await leads_again.assigned.get() == before["one"]
                assert leads_again.assignor.claim == leader.assignor.claim
                assert again.assigned.empty()
