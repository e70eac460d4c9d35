"""What is missing from a broker's answer is asked for again: it is never taken for an empty log, nor for a bug."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError

from adledger.pipeline.errors import LogError, UnreadableBatch
from adledger.pipeline.log.kafka import commits as group_commits
from adledger.pipeline.log.kafka import log_times
from adledger.pipeline.log.kafka.commits import GroupCommits
from adledger.pipeline.log.kafka.log_times import largest_log_times
from adledger.pipeline.log.kafka_admin.broker_retry import THROTTLE_MS_MAX, MissingAnswer
from adledger.pipeline.log.kafka_admin.metadata import TopicFacts, topic_facts
from adledger.pipeline.log.source import Committed, OffsetBounds
from tests.support.kafka_answers import (
    CLICKS,
    LANE,
    METADATA,
    NODE,
    USUAL_PAUSE_SECONDS,
    Broker,
    Pauses,
    at,
    empty,
    fetched,
    offsets,
    read,
    reader,
)

NO_STORAGE, SERVER_ERROR, UNKNOWN_TOPIC_ID = 56, -1, 100


@pytest.mark.parametrize(
    ("throttle_ms", "seconds"),
    [(0, USUAL_PAUSE_SECONDS), (1, USUAL_PAUSE_SECONDS), (2_500, 2.5), (1 << 30, THROTTLE_MS_MAX / 1000)],
)
async def test_a_throttled_fetch_is_sent_again_when_the_broker_says(throttle_ms: int, seconds: float) -> None:
    """After the broker's time, which is bounded, and never sooner than after any other failure."""
    broker, pauses = Broker([empty(throttle_ms=throttle_ms), fetched()]), Pauses()
    assert await read(broker, pauses) == 1
    assert pauses.seconds == [seconds]
    assert ("throttles this client" in pauses.said[0]) == (throttle_ms > 0)


async def test_another_partition_is_no_answer() -> None:
    """A lane reads its own partition's records only."""
    assert await read(Broker([fetched(at(5), partition=0), fetched()]), Pauses()) == 1


async def test_what_is_missing_each_time_is_an_error() -> None:
    """After the last attempt, and it names what is missing."""
    pauses = Pauses(attempts_max=2)
    with pytest.raises(LogError, match=f"leaves out partition {LANE} of topic {CLICKS}"):
        await read(Broker([empty(), empty()]), pauses)


async def test_an_error_of_the_request_as_a_whole_is_an_error() -> None:
    """Fetch 13 then names no topics: a transient error is tried again, any other is raised."""
    pauses = Pauses()
    assert await read(Broker([empty(code=NO_STORAGE), fetched()]), pauses) == 1
    assert pauses.seconds == [USUAL_PAUSE_SECONDS]
    with pytest.raises(LogError, match="the broker refuses to read: UnknownError"):
        await read(Broker([empty(code=SERVER_ERROR)]), pauses)


async def test_a_fetch_of_one_topic_may_be_throttled_too() -> None:
    """So may each fetch that follows one that brought nothing, and each that looks for the end of what can't be read."""
    nothing = fetched(b"", end=5)
    broker = Broker([nothing, empty(throttle_ms=900), nothing, fetched(end=5)])
    pauses = Pauses()
    assert await read(broker, pauses) == 1
    assert pauses.seconds == [0.9]

    damaged, there = fetched(b"", code=SERVER_ERROR, end=3), fetched(at(2), end=3)
    broker = Broker(
        [damaged, empty(throttle_ms=900), damaged, fetched(b"", end=3), there],
        [METADATA, offsets((0, 3))] * 2,
    )
    broker.others.insert(2, METADATA)  # which is refreshed before the next attempt
    with pytest.raises(UnreadableBatch) as refused:
        await read(broker, pauses)
    assert (refused.value.start, refused.value.end) == (0, 2)


@pytest.mark.parametrize("code", [NO_STORAGE, UNKNOWN_TOPIC_ID])
async def test_a_broker_that_is_not_ready_says_nothing_about_what_can_be_read(code: int) -> None:
    """Neither that an offset can't be read, nor how far: it is asked again, so no good record is given up."""
    assert await read(Broker([fetched(b"", code=code), fetched()]), Pauses()) == 1
    damaged = fetched(b"", code=SERVER_ERROR, end=3)
    broker = Broker(
        [damaged, fetched(b"", code=code, end=3), damaged, fetched(at(1), end=3)],
        [METADATA, offsets((0, 3)), METADATA, METADATA, offsets((0, 3))],
    )
    with pytest.raises(UnreadableBatch) as refused:
        await read(broker, Pauses())
    assert refused.value.end == 1


async def test_offsets_that_are_missing_are_asked_for_again() -> None:
    """A lane's bounds have every topic."""
    broker, pauses = (
        Broker([], [offsets(), offsets((0, 9)), METADATA, METADATA, offsets((0, 4)), offsets((0, 9))]),
        Pauses(),
    )
    broker.others.insert(0, METADATA)
    assert await reader(broker, pauses).bounds(LANE) == {0: OffsetBounds(4, 9)}
    assert pauses.seconds == [USUAL_PAUSE_SECONDS]


async def test_a_topic_that_is_missing_is_a_transient_error() -> None:
    """Of a description of topics."""
    with pytest.raises(MissingAnswer, match=r"ad\.clicks") as missing:
        await topic_facts(Broker([], [SimpleNamespace(throttle_time_ms=0, topics=[])]), ["ad.clicks"])
    assert isinstance(missing.value, KafkaError)
    assert missing.value.retriable


async def test_a_partition_without_an_answer_is_not_empty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its largest time is asked for again: a lane's age is not known without it."""

    def times(*partitions: int) -> SimpleNamespace:
        return SimpleNamespace(topics=[("ad.clicks", [(p, 0, 10 + p, 0, 0, {}) for p in partitions], {})])

    monkeypatch.setattr(log_times, "LEADERS_RETRY", Pauses().retry.policy)
    facts = TopicFacts("ad.clicks", 0, CLICKS, (NODE, NODE), 1, 0)
    assert await largest_log_times(Broker([], [times(0), METADATA, times(0, 1)]), [facts]) == [10, 11]


async def test_a_topic_without_an_answer_is_not_uncommitted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its committed position is missing, it is asked for again: a lane would take it for the group's first."""

    def committed(*topics: str, partition: int = LANE) -> SimpleNamespace:
        found: Callable[[str], Any] = lambda name: (name, [(partition, 5, -1, "m", 0, {})], {})  # noqa: E731
        return SimpleNamespace(error_code=0, topics=[found(name) for name in topics])

    monkeypatch.setattr(group_commits, "COORDINATOR_WAIT", Pauses().retry.policy)
    checked, all_of_it = committed("a", "b"), committed("a", "b")
    broker = Broker(
        [], [checked, committed("a"), checked, committed("a", "b", partition=0), checked, all_of_it]
    )
    found = await GroupCommits(broker, "group", ("a", "b")).committed(LANE)
    assert found == {0: Committed(5, "m"), 1: Committed(5, "m")}
