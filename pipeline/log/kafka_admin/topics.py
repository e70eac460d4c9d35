"""The protocol's topics: checked before a run, and created where they are missing."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiokafka import errors
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResourceType
from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateTopicsRequest, DescribeConfigsRequest

from adledger.pipeline.addresses import KafkaAddress
from adledger.pipeline.errors import LogError, UsageError
from adledger.pipeline.findings import Finding, format_findings
from adledger.pipeline.log.kafka_admin.broker_retry import MissingAnswer
from adledger.pipeline.log.kafka_admin.failures import connected
from adledger.pipeline.log.kafka_admin.group_facts import group_operations
from adledger.pipeline.log.kafka_admin.metadata import TopicFacts, topic_facts
from adledger.pipeline.log.kafka_admin.properties import client_options
from adledger.pipeline.log.kafka_admin.rights import Resource, Role, pages_groups, principal
from adledger.pipeline.log.kafka_admin.topic_checks import (
    PROTOCOL_VERSION,
    ClusterFacts,
    event_topic_configs,
    findings,
    rollups_topic_configs,
)
from adledger.pipeline.log.kafka_admin.topology import IDS_REMEDY, gives_ids, protocol_without_ids
from adledger.pipeline.log.kafka_admin.versions import require_versions
from adledger.pipeline.retry import RetryPolicy
from adledger.pipeline.settings import Settings

PARTITIONS_DEFAULT = 16
"""The default number of lanes: it limits how many workers can share the work, and can't be reduced later."""

CREATE_SECONDS_MAX = 30
POLL_SECONDS = 0.1
CONTROLLER_RETRY = RetryPolicy(attempts_max=40, backoff_ms_max=250)
"""For about the ten seconds that electing a controller may take."""

_NO_TOPIC = errors.UnknownTopicOrPartitionError.errno
_EXISTS = errors.TopicAlreadyExistsError.errno


@dataclass(frozen=True, slots=True)
class Checked:
    """The topics of a deployment (events first, rollups last), and everything wrong with them."""

    topics: Sequence[TopicFacts]
    findings: Sequence[Finding]
    batch_bytes_max: int
    """The largest record batch that all event topics accept; 0 where none reports it."""

    @property
    def fit(self) -> bool:
        """Whether a worker may start: there are no findings but advice."""
        return all(finding.advice for finding in self.findings)


async def check_topics(settings: Settings, role: Role = Role.VIEWER) -> Checked:
    """Check brokers and topics, and the rights that this role needs.

    Raises UsageError (properties, no Kafka set), LogError (no broker, refused, brokers that are too old).
    """
    async with connected(kafka_options(settings)) as client:
        await require_versions(client)
        facts = await _facts(client, settings, role)
    limits = [
        int(facts.configs[topic.name]["max.message.bytes"])
        for topic in facts.topics
        if "max.message.bytes" in facts.configs.get(topic.name, ())
    ]
    return Checked([*facts.topics, facts.rollups], findings(facts, settings, role), min(limits, default=0))


async def require_fit_topics(settings: Settings, role: Role) -> Checked:
    """Return the topics where a worker may start: there is advice at most.

    Raises LogError listing what prevents a start; otherwise as `check_topics`.
    """
    checked = await check_topics(settings, role)
    if not checked.fit:
        refused = [finding for finding in checked.findings if not finding.advice]
        raise LogError(format_findings("Kafka is not set up as the pipeline needs it:", refused))
    return checked


async def create_topics(
    settings: Settings, partitions: int | None = None, replication_factor: int = 1
) -> tuple[str, ...]:
    """Create the missing topics, with the settings that the protocol needs, and return their names.

    Existing topics are never altered; `check_topics` reports what is wrong with them. Without `partitions`, missing event
    topics get as many as the existing one, or 16. Raises UsageError where the existing one has another number, LogError:
    also where the brokers are too old, or would give them no ids.
    """
    async with connected(kafka_options(settings)) as client:
        await require_versions(client)
        await _require_ids(client)
        named = (*settings.topics, settings.rollups_topic)
        found = await topic_facts(client, named)
        width = _width(found[:-1], partitions)
        lacking = [
            NewTopic(
                topic.name,
                width,
                replication_factor,
                topic_configs=rollups_topic_configs(replication_factor)
                if topic.name == settings.rollups_topic
                else event_topic_configs(settings, replication_factor),
            )
            for topic in found
            if topic.error_code == _NO_TOPIC
        ]
        if not lacking:
            return ()
        made = await _create(client, lacking)
        await _until_there(client, [topic.name for topic in lacking])
        return made


async def _require_ids(client: AIOKafkaClient) -> None:
    """Check that new topics get ids. Raises LogError naming the setting that prevents it."""
    node = client.get_random_node()
    broker = (await _configs(client, node, ConfigResourceType.BROKER, [str(node)])).get(str(node), {})
    version = broker.get(PROTOCOL_VERSION, "")
    if not gives_ids(version):
        raise LogError(
            f"topics would get no ids, by which lanes fetch: {protocol_without_ids(version)}",
            remedy=IDS_REMEDY,
        )


def kafka_options(settings: Settings) -> dict[str, object]:
    """Return the options of aiokafka's clients. Raises UsageError: wrong properties, or a log other than Kafka."""
    if not isinstance(settings.source, KafkaAddress):
        raise UsageError(
            f"source = {settings.source}: only Kafka has topics",
            remedy="name brokers: --source kafka://HOST:PORT",
        )
    return client_options(settings.source.servers, settings.kafka)


def _width(topics: Sequence[TopicFacts], wanted: int | None) -> int:
    for topic in topics:
        if topic.error_code:
            continue
        if wanted not in {None, topic.partitions}:
            raise UsageError(
                f"the topic {topic.name} has {topic.partitions} partitions, not {wanted}",
                remedy="leave --partitions out: all event topics have the same number, and a key must stay in its lane",
            )
        return topic.partitions
    return PARTITIONS_DEFAULT if wanted is None else wanted


async def _create(client: AIOKafkaClient, topics: Sequence[NewTopic]) -> tuple[str, ...]:
    request = CreateTopicsRequest(
        create_topic_requests=[
            (t.name, t.num_partitions, t.replication_factor, [], list(t.topic_configs.items()))
            for t in topics
        ],
        timeout=CREATE_SECONDS_MAX * 1000,
        validate_only=False,
    )
    response = await client.send(await _controller(client), request)
    codes = {name: (code, message) for name, code, message in response.topic_errors}
    refused = [
        f"{name}: {message or errors.for_code(code).__name__}"
        for name, (code, message) in codes.items()
        if code not in {0, _EXISTS}
    ] + [f"{topic.name}: the broker's answer leaves it out" for topic in topics if topic.name not in codes]
    if refused:
        raise LogError(
            "Kafka did not create the topics: " + "; ".join(refused),
            remedy="use at most as many copies (--replication-factor) as there are brokers; grant this user Create and Alter on "
            "the cluster (kafka-acls.sh); or ask its administrators",
        )
    return tuple(name for name, (code, _) in codes.items() if code == 0)


async def _controller(client: AIOKafkaClient) -> int:
    """Return the broker that creates topics. Raises LogError where the cluster has none: it is being elected, or can't be."""
    for attempt in CONTROLLER_RETRY.attempts():
        if (controller := client.cluster.controller) is not None:
            return int(controller.nodeId)
        await client.force_metadata_update()
        await CONTROLLER_RETRY.pause(attempt)
    raise LogError(
        "the Kafka cluster has no controller, so no topic can be created",
        remedy="look at the logs of the controllers (KRaft) or of ZooKeeper: a majority of them must be up",
    )


async def _until_there(client: AIOKafkaClient, topics: Sequence[str]) -> None:
    """Wait until the brokers report the new topics with a leader for each partition."""
    try:
        async with asyncio.timeout(CREATE_SECONDS_MAX):
            while any(t.error_code or -1 in t.leaders for t in await topic_facts(client, topics)):  # noqa: ASYNC110 - Kafka sends no event
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        raise LogError(
            f"the topics {', '.join(topics)} were created, but have no leaders after {CREATE_SECONDS_MAX} s",
            remedy="adledger topics check, once all brokers are up",
        ) from error


async def _facts(client: AIOKafkaClient, settings: Settings, role: Role) -> ClusterFacts:
    *topics, rollups = await topic_facts(client, (*settings.topics, settings.rollups_topic))
    there = [topic.name for topic in (*topics, rollups) if not topic.error_code]
    node = client.get_random_node()
    broker = await _configs(client, node, ConfigResourceType.BROKER, [str(node)])
    groups = (Resource("group", settings.group), pages_groups(settings.group)) if role.of_groups else ()
    servers = str(settings.source).removeprefix("kafka://")
    return ClusterFacts(
        servers=servers,
        brokers=len(client.cluster.brokers()),
        topics=topics,
        rollups=rollups,
        configs=await _configs(client, node, ConfigResourceType.TOPIC, there),
        broker=broker.get(str(node), {}),
        who=principal(servers, settings.kafka),
        group_operations={group: await group_operations(client, group.name) for group in groups},
    )


async def _configs(
    client: AIOKafkaClient, node: int, kind: ConfigResourceType, names: Sequence[str]
) -> Mapping[str, Mapping[str, str]]:
    """Return each resource's settings, except those that this user may not see."""
    if not names:
        return {}
    request = DescribeConfigsRequest(
        resources=[(int(kind), name, None) for name in names], include_synonyms=False
    )
    response = await client.send(node, request)
    if missing := set(names) - {name for *_, name, _ in response.resources}:
        raise MissingAnswer(f"the settings of {', '.join(sorted(missing))}", response.throttle_time_ms)
    return {
        name: {entry[0]: entry[1] for entry in entries if entry[1] is not None}
        for code, _message, _kind, name, entries in response.resources
        if not code
    }
