"""A load test's target: the servers that the command names, and the settings and names of one run on them."""

import asyncio
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from adledger.loadtest.lab.deployment import LabDeployment
from adledger.loadtest.lab.names import Names
from adledger.loadtest.lab.servers import Servers, named_servers, own_servers
from adledger.loadtest.results.run_folder import Run
from adledger.pipeline.addresses import (
    EmbeddedAddress,
    FilesAddress,
    ServerAddress,
    parse_clickhouse,
    parse_source,
)
from adledger.pipeline.errors import UsageError
from adledger.pipeline.log.kafka_admin.failures import connected
from adledger.pipeline.log.kafka_admin.metadata import topic_facts
from adledger.pipeline.log.kafka_admin.topics import kafka_options
from adledger.pipeline.rules.loader import NONE
from adledger.pipeline.settings import Settings
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer, find

LOCAL = "local"
PREFIX = "adledger_lt_"
IDLE_WATERMARK_SECONDS = 3_600
"""Of a replay: an idle lane's watermark would jump from the replayed hours to now."""


@dataclass(frozen=True, slots=True)
class RunTarget:
    """What the command names. `clickhouse` is empty with `local`; `urls` and `pids` are processes that others started."""

    target: str
    clickhouse: str
    workers: int
    urls: tuple[str, ...] = ()
    pids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def new_id(now: str) -> str:
    """Return a run's id: its time, and four digits that tell apart runs of one second."""
    return f"{now}_{uuid4().hex[:4]}"


def names_of(run_id: str) -> Names:
    """Return the run's own names."""
    return Names.starting_with(f"{PREFIX}{run_id}")


@contextmanager
def servers(target: RunTarget, folder: Path) -> Iterator[Servers]:
    """Yield the servers; those that are started here keep their data in `folder` and end with the block.

    Raises UsageError, SinkError, BrokerFailed.
    """
    if target.target == LOCAL:
        with own_servers(folder) as given:
            yield given
        return
    source = _parsed(parse_source, target.target)
    if not target.clickhouse:
        raise UsageError(
            f"--target {target.target} needs ClickHouse's address",
            remedy="--clickhouse clickhouse://HOST:PORT or --clickhouse embedded:DIR",
        )
    with named_servers(source, _parsed(parse_clickhouse, target.clickhouse), target.clickhouse) as given:
        yield given


@contextmanager
def tables_of(run: Run, folder: Path, clickhouse: str = "") -> Iterator[ServerAddress]:
    """Yield the ClickHouse with a run's tables; `clickhouse` overrides the run's own. Raises SinkError."""
    named = clickhouse or (f"embedded:{_own_tables(folder)}" if run.own_servers else run.clickhouse)
    address = _parsed(parse_clickhouse, named)
    if not isinstance(address, EmbeddedAddress):
        yield address
    elif (running := find(address.directory)) is not None:
        yield ServerAddress(running.host, running.port, running.http_port)
    else:
        with EmbeddedServer.start(address.directory) as server:
            yield ServerAddress(server.host, server.port, server.http_port)


def settings_of(servers: Servers, names: Names, changes: Mapping[str, Any], *, log_time: str) -> Settings:
    """Return the settings of the run's workers and senders: without rules, unless the profile names some. Raises UsageError."""
    more = {"log_time": log_time} if servers.source.startswith("kafka:") else {}
    if log_time == "record":
        more["idle_watermark_interval_seconds"] = str(IDLE_WATERMARK_SECONDS)
    values = {
        "source": servers.source, "clickhouse": servers.clickhouse, "database": names.database,
        "topics": names.topics, "rollups_topic": names.rollups_topic, "group": names.group,
        "web_host": "127.0.0.1", "web_port": 0, "rules": NONE, **more, **changes,
    }  # fmt: skip
    try:
        return Settings(**values)
    except ValueError as error:
        raise UsageError(
            f"the run's settings: {error}", remedy="correct [settings] of the profile, or --set"
        ) from None


def deploy(
    servers: Servers, settings: Settings, names: Names, folder: Path, *, partitions: int, workers: int
) -> LabDeployment[Servers]:
    """Create topics or log, settings and workers; nothing is started.

    Raises UsageError where the run's names already hold rows or records: those don't belong to the run.
    """
    _refuse_foreign(servers, settings, names)
    if isinstance(settings.source, FilesAddress) and workers > 1:
        raise UsageError("a files: log has one consumer", remedy="--workers 1, or a kafka:// target")
    made = LabDeployment.make(
        servers, names, settings, folder, clickhouse_text=servers.clickhouse_text, partitions=partitions
    )
    for number in range(1, workers + 1):
        made.worker(f"worker-{number}")
    return made


def drop_broker_data(servers: Servers) -> None:
    """Remove the data of our own stopped broker: hundreds of bytes for each event sent."""
    if servers.broker is not None and not servers.broker.alive:
        shutil.rmtree(servers.broker.directory / "data", ignore_errors=True)


def _own_tables(folder: Path) -> Path:
    """Return where a run's own ClickHouse has its data: in its folder, or in the folder of its search."""
    for place in (folder, folder.with_name(folder.name.rpartition("_")[0])):
        if (place / "clickhouse").is_dir():
            return place / "clickhouse"
    raise UsageError(
        f"{folder} has no tables: they were removed", remedy="repeat the run: run.json has its command"
    )


def _refuse_foreign(servers: Servers, settings: Settings, names: Names) -> None:
    client = connect(servers.clickhouse)
    try:
        found = client.execute(
            "SELECT count() FROM system.databases WHERE name = %(name)s", {"name": names.database}
        )
    finally:
        client.disconnect()
    if found[0][0]:
        raise UsageError(
            f"the database {names.database} exists: it holds rows that are not this run's",
            remedy=f"take another --run-id, or adledger loadtest clean {names.database.removeprefix(PREFIX)}",
        )
    if isinstance(settings.source, FilesAddress):
        directory = settings.source.directory
        if directory.exists() and any(directory.iterdir()):
            raise UsageError(
                f"{directory} is not empty: it holds files that are not this run's",
                remedy="name a new or empty folder",
            )
        return
    there = asyncio.run(_existing(settings, names))
    if there:
        raise UsageError(
            f"the topics {', '.join(there)} exist: they hold records that are not this run's",
            remedy="take another --run-id, or clean the run that created them",
        )


async def _existing(settings: Settings, names: Names) -> list[str]:
    async with connected(kafka_options(settings)) as client:
        facts = await topic_facts(client, (*names.topics, names.rollups_topic))
    return [topic.name for topic in facts if not topic.error_code]


def _parsed(parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(str(error), remedy="--target kafka://HOST:PORT, files:DIR or local") from None
