"""The event topics as the brokers describe them: ids, kinds and partitions, or why they can't be read as lanes."""

from collections.abc import Iterator, Sequence

from aiokafka import errors
from aiokafka.client import AIOKafkaClient

from adledger.pipeline.errors import LogError
from adledger.pipeline.findings import Finding, format_findings
from adledger.pipeline.log.kafka_admin.failures import RIGHTS_REMEDY
from adledger.pipeline.log.kafka_admin.metadata import NO_TOPIC_ID, TopicFacts, topic_facts
from adledger.pipeline.log.source import Topology, topic_kinds

_UNKNOWN, _NO_LEADER, UNAUTHORISED = (
    error.errno
    for error in (
        errors.UnknownTopicOrPartitionError,
        errors.LeaderNotAvailableError,
        errors.TopicAuthorizationFailedError,
    )
)

IDS_REMEDY = (
    "set inter.broker.protocol.version to the brokers' own version, or leave it out, in every broker's server.properties, "
    "and restart them one after the other: existing topics then get ids"
)
FIRST_WITH_IDS = (2, 8)
"""The inter.broker.protocol.version since which topics have ids."""


async def read_topology(client: AIOKafkaClient, topics: Sequence[str]) -> Topology:
    """Return the topology of the event topics (impressions and clicks, or one for both).

    The topic ids are Kafka's own, as `kafka-topics.sh --describe` prints them. Raises LogError naming everything
    that prevents reading them as lanes, each with the command that fixes it; KafkaError.
    """
    return topology(await topic_facts(client, topics))


def topology(facts: Sequence[TopicFacts]) -> Topology:
    """Return the topology of topics in topic-index order. Raises LogError."""
    if found := list(unfit_topics(facts)):
        raise LogError(format_findings("the topics can't be read as lanes:", found))
    return Topology(
        topics=tuple(topic.name for topic in facts),
        kinds=topic_kinds(len(facts)),
        topic_ids=tuple(topic.topic_id for topic in facts),
        partitions=facts[0].partitions,
    )


def unfit_topics(facts: Sequence[TopicFacts], protocol_version: str = "") -> Iterator[Finding]:
    """Yield what prevents reading topics as lanes: missing, without leader, forbidden, without id, unequal partition counts.

    `protocol_version` is the brokers' inter.broker.protocol.version, where this user may see it.
    """
    for topic in facts:
        if topic.error_code == _UNKNOWN:
            yield Finding(f"there is no topic {topic.name}", "adledger topics create")
        elif topic.error_code == UNAUTHORISED:
            yield Finding(
                f"this user may not see the topic {topic.name}",
                RIGHTS_REMEDY,
            )
        elif topic.error_code == _NO_LEADER or -1 in topic.leaders:
            yield Finding(
                f"the topic {topic.name} has partitions without a leader",
                "start the brokers that hold its replicas: kafka-topics.sh --describe --unavailable-partitions",
            )
        elif topic.error_code:
            yield Finding(
                f"the topic {topic.name} can't be described: {errors.for_code(topic.error_code).__name__}",
                "look at the brokers' log",
            )
        elif topic.topic_id == NO_TOPIC_ID:
            yield Finding(
                f"the topic {topic.name} has no id: {protocol_without_ids(protocol_version)}", IDS_REMEDY
            )
    widths = {topic.name: topic.partitions for topic in facts if not topic.error_code}
    if len(set(widths.values())) > 1:
        widest = max(widths.values())
        narrow = [name for name, width in widths.items() if width < widest]
        counts = ", ".join(f"{name} has {width}" for name, width in widths.items())
        yield Finding(
            f"the event topics differ in partitions ({counts}): a click would not be in its impression's lane",
            "while they are still empty: "
            + "; ".join(f"kafka-topics.sh --alter --topic {name} --partitions {widest}" for name in narrow)
            + ". If they already have events, create new topics (adledger topics create) with other names",
        )


def protocol_without_ids(version: str) -> str:
    """Return the clause that says why topics get no ids; `version` is inter.broker.protocol.version, "" if unknown."""
    if version:
        return f"the brokers have inter.broker.protocol.version = {version}, and topics have ids since 2.8"
    return "the brokers' inter.broker.protocol.version is below 2.8"


def gives_ids(version: str) -> bool:
    """Whether brokers with this inter.broker.protocol.version ("2.7-IV2"; "" if unknown) give new topics ids."""
    numbers = version.partition("-")[0].split(".")[:2]
    if not all(number.isdigit() for number in numbers) or len(numbers) < 2:
        return True
    return (int(numbers[0]), int(numbers[1])) >= FIRST_WITH_IDS
