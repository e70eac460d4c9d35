"""An answer about groups, topics and brokers that leaves out what was asked for: asked again, or a clear error."""

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.kafka_admin import group_facts, topics
from adledger.pipeline.log.kafka_admin.broker_retry import MissingAnswer
from adledger.pipeline.log.kafka_admin.group_facts import describe_group
from adledger.pipeline.log.kafka_admin.metadata import topic_facts
from adledger.pipeline.log.kafka_admin.versions import require_versions
from tests.support.kafka_answers import CLICKS, NODE, USUAL_PAUSE_SECONDS, Broker, Pauses

GROUP = "billing"
NOT_COORDINATOR, FORBIDDEN = 16, GroupAuthorizationFailedError.errno


def described(*names: str, code: int = 0) -> SimpleNamespace:
    """An answer to DescribeGroups."""
    groups: list[Any] = [(code, name, "Empty", "consumer", "adledger-lanes", [], 8) for name in names]
    return SimpleNamespace(throttle_time_ms=0, groups=groups)


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> Pauses:
    made = Pauses(attempts_max=3)
    monkeypatch.setattr(group_facts, "COORDINATOR_RETRY", made.retry.policy)
    monkeypatch.setattr(topics, "CONTROLLER_RETRY", made.retry.policy)
    return made


@pytest.mark.parametrize("first", [described(), described("another"), described(GROUP, code=NOT_COORDINATOR)])
async def test_a_group_without_an_answer_is_asked_for_again(first: SimpleNamespace, pauses: Pauses) -> None:
    """Neither an empty answer nor another group's is a description."""
    facts = await describe_group(Broker([], [first, described(GROUP)]), GROUP)
    assert (facts.name, facts.state) == (GROUP, "Empty")
    assert pauses.seconds == [USUAL_PAUSE_SECONDS]


async def test_a_group_that_is_missing_each_time_is_an_error(pauses: Pauses) -> None:
    """After the last attempt, and it names the group; what the coordinator refuses is not asked for again."""
    with pytest.raises(MissingAnswer, match=f"leaves out group {GROUP}"):
        await describe_group(Broker([], [described()] * 3), GROUP)
    pauses.seconds.clear()
    with pytest.raises(GroupAuthorizationFailedError):
        await describe_group(Broker([], [described(GROUP, code=FORBIDDEN)]), GROUP)
    assert not pauses.seconds


async def test_a_partition_that_is_missing_is_a_transient_error() -> None:
    """Leaders are listed by partition: without one in the middle the others would be taken for their neighbours."""

    def metadata(*partitions: int) -> SimpleNamespace:
        listed: list[Any] = [(0, p, NODE, 0, [NODE], [NODE], [], {}) for p in partitions]
        return SimpleNamespace(throttle_time_ms=0, topics=[(0, "ad.clicks", CLICKS, False, listed, 0, {})])

    with pytest.raises(MissingAnswer, match=r"partition 1 of topic ad\.clicks") as missing:
        await topic_facts(Broker([], [metadata(2, 0)]), ["ad.clicks"])
    assert isinstance(missing.value, KafkaError)
    assert missing.value.retriable
    [facts] = await topic_facts(Broker([], [metadata(2, 0, 1)]), ["ad.clicks"])
    assert facts.partitions == 3


async def test_settings_that_are_missing_are_not_taken_for_forbidden_ones() -> None:
    """A resource that this user may not see is in the answer, with a code."""

    def configs(*resources: tuple[int, str]) -> SimpleNamespace:
        entries = [("retention.ms", "5"), ("secret", None)]
        return SimpleNamespace(
            throttle_time_ms=0, resources=[(code, None, 2, name, entries) for code, name in resources]
        )

    read = topics._configs
    answer = configs((0, "a"), (29, "b"))
    assert await read(Broker([], [answer]), NODE, ConfigResourceType.TOPIC, ["a", "b"]) == {
        "a": {"retention.ms": "5"}
    }
    with pytest.raises(MissingAnswer, match="the settings of b"):
        await read(Broker([], [configs((0, "a"))]), NODE, ConfigResourceType.TOPIC, ["a", "b"])


class Brokers(Broker):
    """With a controller after some metadata updates."""

    def __init__(self, others: list[Any], updates: int = 0) -> None:
        super().__init__([], others)
        self.cluster.controller, self.updates = None, updates
        self.cluster.brokers = lambda: [SimpleNamespace(nodeId=NODE, host="k1", port=9092)]
        self._elect()

    async def force_metadata_update(self) -> bool:
        self.updates -= 1
        self._elect()
        return True

    def _elect(self) -> None:
        if self.updates <= 0:
            self.cluster.controller = SimpleNamespace(nodeId=NODE)


async def test_a_topic_that_the_answer_leaves_out_was_not_created(pauses: Pauses) -> None:
    """It is refused by name, instead of being waited for; a controller that is being elected is waited for."""
    wanted = [NewTopic("a", 1, 1), NewTopic("b", 1, 1)]
    both, one = ([(name, 0, None) for name in names] for names in ("ab", "a"))
    broker = Brokers([SimpleNamespace(topic_errors=both), SimpleNamespace(topic_errors=one)], updates=2)
    assert await topics._create(broker, wanted) == ("a", "b")
    assert pauses.seconds == [USUAL_PAUSE_SECONDS] * 2
    with pytest.raises(LogError, match="did not create the topics: b: the broker's answer leaves it out"):
        await topics._create(broker, wanted)


async def test_a_cluster_without_a_controller_is_an_error(pauses: Pauses) -> None:
    """After the last attempt."""
    with pytest.raises(LogError, match="has no controller"):
        await topics._create(Brokers([], updates=9), [NewTopic("a", 1, 1)])
    assert len(pauses.seconds) == 3


async def test_a_broker_that_names_no_versions_is_not_called_old() -> None:
    """Which versions it has is unknown."""
    with pytest.raises(MissingAnswer, match="k1:9092 supports"):
        await require_versions(Brokers([SimpleNamespace(api_versions=[])]))
