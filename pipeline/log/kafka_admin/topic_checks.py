"""Checks topics and brokers against what the protocol needs, from their settings: each finding with its remedy."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from adledger.pipeline.findings import Finding
from adledger.pipeline.log.kafka_admin.metadata import TopicFacts
from adledger.pipeline.log.kafka_admin.rights import (
    Operation,
    Principal,
    Resource,
    Role,
    missing_rights,
    pages_groups,
)
from adledger.pipeline.log.kafka_admin.topology import UNAUTHORISED, unfit_topics
from adledger.pipeline.settings import Settings
from adledger.schemas.wire import RECORD_BYTES_MAX, USER_ID_BYTES_MAX

HOUR_MS = 60 * 60 * 1000
RETENTION_HOURS_MIN = 7 * 24
"""The minimum retention of a topic that we create: Kafka's own default."""
MESSAGE_BYTES_MIN = RECORD_BYTES_MAX + USER_ID_BYTES_MAX + 128
"""The largest record of the contract with its key, alone in a batch: 61 bytes of header, then the record."""
ROLLUP_MESSAGE_BYTES_MAX = 8 * 1024 * 1024
"""Message size of `rollups_topic`: one message has the columns of a whole batch."""

PROTOCOL_VERSION = "inter.broker.protocol.version"
CREATE_TIME, APPEND_TIME = "CreateTime", "LogAppendTime"
FOREVER = -1
_NO_BOUND_MS = 2**62
"""Kafka's default bound of a record's age is the largest int64; values near it count as no bound."""
_AGE_BOUNDS = ("message.timestamp.before.max.ms", "message.timestamp.difference.max.ms")
"""Kafka 3.1 to 3.5 have the second alone, 4.0 the first; those between have both, and the second counts where the first is the default."""


@dataclass(frozen=True, slots=True)
class ClusterFacts:
    """The cluster, as far as the protocol depends on it.

    `topics` are the event topics in topic-index order, then `rollups`. `configs` has the settings, by name, of each topic
    whose settings this user may see; `broker` has one broker's, empty where this user may not see them.
    `who` is this user, `group_operations` what it may do with groups, as bits.
    """

    servers: str
    brokers: int
    topics: Sequence[TopicFacts]
    rollups: TopicFacts
    configs: Mapping[str, Mapping[str, str]]
    broker: Mapping[str, str]
    who: Principal
    group_operations: Mapping[Resource, int]


def findings(facts: ClusterFacts, settings: Settings, role: Role) -> list[Finding]:
    """Return everything that does not suit these settings, and the rights that this role lacks, advice last."""
    found = [
        *_rights(facts, settings, role),
        *unfit_topics(
            [topic for topic in facts.topics if topic.error_code != UNAUTHORISED],
            facts.broker.get(PROTOCOL_VERSION, ""),
        ),
        *(finding for topic in facts.topics for finding in _event_topic(facts, topic, settings)),
        *_rollups_topic(facts),
        *_broker(facts, settings),
    ]
    return sorted(found, key=lambda finding: finding.advice)


def wanted_retention_ms(settings: Settings) -> int:
    """Return how long event topics must retain a record: FOREVER (-1), or ms."""
    if settings.log_time == "record":
        return FOREVER
    return (settings.dedupe_window_hours + settings.retention_min_hours) * HOUR_MS


def event_topic_configs(settings: Settings, replication_factor: int) -> dict[str, str]:
    """Return the settings with which an event topic is created."""
    retention = wanted_retention_ms(settings)
    return {
        "cleanup.policy": "delete",
        "message.timestamp.type": _timestamp_type(settings),
        "retention.ms": str(
            retention if retention == FOREVER else max(retention, RETENTION_HOURS_MIN * HOUR_MS)
        ),
        "min.insync.replicas": _min_insync(replication_factor),
    }


def rollups_topic_configs(replication_factor: int) -> dict[str, str]:
    """Return the settings with which `rollups_topic` is created. Its messages are live figures: a day is plenty."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(24 * HOUR_MS),
        "max.message.bytes": str(ROLLUP_MESSAGE_BYTES_MAX),
        "min.insync.replicas": _min_insync(replication_factor),
    }


def _rights(facts: ClusterFacts, settings: Settings, role: Role) -> Iterator[Finding]:
    needed = {Resource("topic", topic.name): role.of_events for topic in facts.topics}
    needed[Resource("topic", facts.rollups.name)] = role.of_rollups
    if role.of_groups:
        needed |= dict.fromkeys(
            (Resource("group", settings.group), pages_groups(settings.group)), role.of_groups
        )
    allowed = {
        Resource("topic", topic.name): 0 if topic.error_code == UNAUTHORISED else topic.operations
        for topic in (*facts.topics, facts.rollups)
        if topic.error_code in {0, UNAUTHORISED}
    }
    yield from missing_rights(facts.who, needed, {**allowed, **facts.group_operations})


def _min_insync(replication_factor: int) -> str:
    return "2" if replication_factor >= 3 else "1"


def _timestamp_type(settings: Settings) -> str:
    return CREATE_TIME if settings.log_time == "record" else APPEND_TIME


def _event_topic(facts: ClusterFacts, topic: TopicFacts, settings: Settings) -> Iterator[Finding]:
    if topic.error_code:
        return
    config = facts.configs.get(topic.name)
    if config is None:
        return  # the missing right is a finding of its own
    fitting = _fitting(settings)
    if unreported := sorted(fitting.keys() - config.keys()):
        yield Finding(
            f"{topic.name}: the brokers don't report {', '.join(unreported)}, so that is not checked",
            "see that the topic has " + ", ".join(f"{name}={fitting[name]}" for name in unreported),
            advice=True,
        )
    config = {**fitting, **config}
    if "compact" in config["cleanup.policy"]:
        yield Finding(
            f"{topic.name} has cleanup.policy = {config['cleanup.policy']}: compaction would remove events",
            _alter(facts, topic.name, "cleanup.policy", "delete"),
        )
    wanted = _timestamp_type(settings)
    if (timestamps := config["message.timestamp.type"]) != wanted:
        yield Finding(
            f"{topic.name} has message.timestamp.type = {timestamps}, and log_time = {settings.log_time} needs {wanted}"
            + (": producers could set the lanes' watermarks" if wanted == APPEND_TIME else ""),
            _alter(facts, topic.name, "message.timestamp.type", wanted),
        )
    yield from _retention(facts, topic.name, config, settings)
    if int(config["max.message.bytes"]) < MESSAGE_BYTES_MIN:
        yield Finding(
            f"{topic.name} has max.message.bytes = {config['max.message.bytes']}: the largest event is {MESSAGE_BYTES_MIN}",
            _alter(facts, topic.name, "max.message.bytes", str(1024 * 1024)),
        )
    yield from _durability(facts, topic, config)


def _fitting(settings: Settings) -> dict[str, str]:
    """Return values that pass the checks of the settings that every broker should report of an event topic."""
    return {
        "cleanup.policy": "delete",
        "message.timestamp.type": _timestamp_type(settings),
        "retention.ms": str(wanted_retention_ms(settings)),
        "retention.bytes": str(FOREVER),
        "max.message.bytes": str(1024 * 1024),
        "min.insync.replicas": "2",
    }


def _retention(
    facts: ClusterFacts, topic: str, config: Mapping[str, str], settings: Settings
) -> Iterator[Finding]:
    retained, wanted = int(config["retention.ms"]), wanted_retention_ms(settings)
    if wanted == FOREVER and retained != FOREVER:
        yield Finding(
            f"{topic} has retention.ms = {retained}, and log_time = record: old events would be deleted as they arrive",
            _alter(facts, topic, "retention.ms", str(FOREVER)),
        )
    elif retained != FOREVER and retained < wanted:
        yield Finding(
            f"{topic} has retention.ms = {retained} ({retained / HOUR_MS:.3g} h): less than dedupe_window_hours + "
            f"retention_min_hours = {wanted // HOUR_MS} h, so an outage could lose events",
            _alter(facts, topic, "retention.ms", str(wanted)),
        )
    if int(config["retention.bytes"]) != FOREVER:
        yield Finding(
            f"{topic} has retention.bytes = {config['retention.bytes']}: a flood deletes events before their time",
            _alter(facts, topic, "retention.bytes", str(FOREVER)),
            advice=True,
        )
    if settings.log_time != "record":
        return
    for bound in _AGE_BOUNDS:
        if int(config.get(bound, _NO_BOUND_MS)) < _NO_BOUND_MS:
            yield Finding(
                f"{topic} has {bound} = {config[bound]}: older events of an import would be refused",
                _alter(facts, topic, bound, str(2**63 - 1)),
            )


def _durability(facts: ClusterFacts, topic: TopicFacts, config: Mapping[str, str]) -> Iterator[Finding]:
    if topic.replication_factor < 3:
        yield Finding(
            f"{topic.name} has {topic.replication_factor} "
            + ("copy" if topic.replication_factor == 1 else "copies")
            + f" on {facts.brokers} broker{'s' * (facts.brokers > 1)}: a lost disk may lose events",
            "keep 3 copies: kafka-reassign-partitions.sh",
            advice=True,
        )
    elif int(config["min.insync.replicas"]) < 2:
        yield Finding(
            f"{topic.name} has min.insync.replicas = 1: an event may be acknowledged while one broker alone has it",
            _alter(facts, topic.name, "min.insync.replicas", "2"),
            advice=True,
        )
    if config.get("unclean.leader.election.enable") == "true":
        yield Finding(
            f"{topic.name} has unclean.leader.election.enable = true: a lagging broker may become leader and lose events",
            _alter(facts, topic.name, "unclean.leader.election.enable", "false"),
            advice=True,
        )


def _rollups_topic(facts: ClusterFacts) -> Iterator[Finding]:
    name = facts.rollups.name
    if facts.rollups.error_code == UNAUTHORISED:
        return
    if facts.rollups.error_code:
        yield from unfit_topics([facts.rollups])
        return
    config = facts.configs.get(name, {})
    if "compact" in config.get("cleanup.policy", ""):
        yield Finding(
            f"{name} has cleanup.policy = {config['cleanup.policy']}: compaction needs keys, and messages have none",
            _alter(facts, name, "cleanup.policy", "delete"),
        )
    if int(config.get("max.message.bytes", ROLLUP_MESSAGE_BYTES_MAX)) < ROLLUP_MESSAGE_BYTES_MAX:
        yield Finding(
            f"{name} has max.message.bytes = {config['max.message.bytes']}: the message of a large batch may not fit",
            _alter(facts, name, "max.message.bytes", str(ROLLUP_MESSAGE_BYTES_MAX)),
            advice=True,
        )


def _broker(facts: ClusterFacts, settings: Settings) -> Iterator[Finding]:
    minutes = facts.broker.get("offsets.retention.minutes")
    if minutes is None:
        yield Finding(
            "this user may not see the brokers' settings: offsets.retention.minutes is not checked",
            facts.who.grant_on_cluster(Operation.DESCRIBE_CONFIGS),
            advice=True,
        )
    elif int(minutes) < settings.retention_min_hours * 60:
        yield Finding(
            f"the brokers have offsets.retention.minutes = {minutes}: committed offsets, and the intents in them, would "
            f"be lost in an outage of retention_min_hours = {settings.retention_min_hours} h",
            f"set offsets.retention.minutes={settings.retention_min_hours * 60} or more in every broker's server.properties",
        )


def _alter(facts: ClusterFacts, topic: str, name: str, value: str) -> str:
    return (
        f"kafka-configs.sh --bootstrap-server {facts.servers} --alter --entity-type topics "
        f"--entity-name {shlex.quote(topic)} --add-config {name}={value}"
    )
