"""Looking at Kafka: brokers one by one, topics, the group, and a way to read without joining it."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from adledger.pipeline.doctor.report import Check
from adledger.pipeline.errors import LogError, UsageError
from adledger.pipeline.findings import Finding
from adledger.pipeline.log.kafka.commits import GroupCommits
from adledger.pipeline.log.kafka.log_times import largest_log_times
from adledger.pipeline.log.kafka.reader import KafkaReader
from adledger.pipeline.log.kafka_admin.broker_retry import BrokerRetry
from adledger.pipeline.log.kafka_admin.failures import connected, probe
from adledger.pipeline.log.kafka_admin.group_facts import GroupFacts, describe_group
from adledger.pipeline.log.kafka_admin.rights import Role
from adledger.pipeline.log.kafka_admin.topics import Checked, check_topics, kafka_options
from adledger.pipeline.log.kafka_admin.topology import topology
from adledger.pipeline.log.source import Committed, OffsetBounds, Topology
from adledger.pipeline.records.encoded import Fetched
from adledger.pipeline.retry import RetryPolicy
from adledger.pipeline.settings import Settings

AREA, TOPICS = "kafka", "topics"
READ_TRIES_MAX = 3


def _say_nothing(_: str) -> None:
    """Do nothing: a failed read is reported once, as a finding."""


@dataclass(frozen=True, slots=True)
class KafkaView:
    """What can be read of a group's log without being a member of it."""

    topology: Topology
    group: GroupFacts
    newest_log_time: int  # ms; NO_TIME (-1) where the topics are empty
    commits: GroupCommits
    reader: KafkaReader

    async def committed(self, lane: int) -> Mapping[int, Committed]:
        """Return what the group has committed. Raises LogError."""
        return await self.commits.committed(lane)

    async def bounds(self, lane: int) -> Mapping[int, OffsetBounds]:
        """Return first and end offsets. Raises LogError."""
        return await self.reader.bounds(lane)

    async def fetch(
        self, lane: int, positions: Mapping[int, int], bytes_max: int, wait_ms_max: int
    ) -> Sequence[Fetched]:
        """Fetch as `Reader.fetch` says. Raises LogError."""
        return await self.reader.fetch(lane, positions, bytes_max, wait_ms_max)

    def resume(self, lane: int, positions: Mapping[int, int], leader_epochs: Mapping[int, int]) -> None:
        """Name these leader epochs, as `Reader.resume` says."""
        self.reader.resume(lane, positions, leader_epochs)

    def leader_epochs(self, lane: int, positions: Mapping[int, int]) -> Mapping[int, int]:
        """Return what was read, as `Reader.leader_epochs` says."""
        return self.reader.leader_epochs(lane, positions)


async def brokers(settings: Settings) -> list[Check]:
    """Try each broker that the settings name, and each that those name, with the settings' properties."""
    try:
        options = kafka_options(settings)
    except UsageError as error:
        return [
            Check(
                AREA,
                "client properties",
                [Finding(error.message, "adledger config shows what is set, and from where")],
            )
        ]
    servers: Sequence[str] = options["bootstrap_servers"]  # type: ignore[assignment]
    found = await asyncio.gather(*(probe(options | {"bootstrap_servers": [server]}) for server in servers))
    how = f"{options['security_protocol']}" + (
        f", {options['sasl_mechanism']}" if "sasl_mechanism" in options else ""
    )
    # A cluster with one broker away still serves: that is advice.
    some_serve = any(not findings for findings in found)
    return [
        Check(
            AREA,
            f"{server} ({how})",
            [Finding(f.message, f.remedy, advice=some_serve) for f in findings],
        )
        for server, findings in zip(servers, found, strict=True)
    ]


async def topics(settings: Settings) -> tuple[list[Check], Checked | None]:
    """Check the topics' settings; None where they could not be looked at."""
    try:
        checked = await check_topics(settings, Role.WORKER)
    except LogError as error:
        return [Check(TOPICS, "settings", [Finding(error.message, error.remedy)])], None
    shown = ", ".join(
        f"{t.name} ({t.partitions} partitions)" if not t.error_code else t.name for t in checked.topics
    )
    return [Check(TOPICS, shown, checked.findings)], checked


@asynccontextmanager
async def kafka_view(settings: Settings, checked: Checked) -> AsyncIterator[KafkaView]:
    """Give a view of topics that were found to be lanes. Raises LogError."""
    facts = checked.topics[: len(settings.topics)]
    found = topology(facts)
    options = kafka_options(settings)
    async with connected(options) as client:
        await client.set_topics(settings.topics)
        servers = str(settings.source).removeprefix("kafka://")
        policy = RetryPolicy(READ_TRIES_MAX, settings.retry_backoff_ms_max)
        retry = BrokerRetry(servers, policy, _say_nothing)
        yield KafkaView(
            found,
            await describe_group(client, settings.group),
            max(await largest_log_times(client, facts), default=-1),
            GroupCommits(client, settings.group, settings.topics),
            KafkaReader(client, found, settings.log_time, retry),
        )
