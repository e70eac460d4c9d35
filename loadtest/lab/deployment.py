"""What a run works on: a broker and a ClickHouse, brought or named; names of its own; its workers."""

import asyncio
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from adledger.loadtest.lab.broker import LocalBroker
from adledger.loadtest.lab.workers import WorkerProcess
from adledger.loadtest.results.run_folder import Names, Run
from adledger.pipeline.addresses import (
    EmbeddedAddress,
    FilesAddress,
    ServerAddress,
    parse_clickhouse,
    parse_source,
)
from adledger.pipeline.errors import UsageError
from adledger.pipeline.log.files.manifest import Manifest, Topic
from adledger.pipeline.log.files.source import lock_file
from adledger.pipeline.log.files.writer import FilesLogWriter
from adledger.pipeline.log.kafka_admin.failures import connected
from adledger.pipeline.log.kafka_admin.metadata import topic_facts
from adledger.pipeline.log.kafka_admin.topics import create_topics, kafka_options
from adledger.pipeline.rules.loader import NONE
from adledger.pipeline.settings import Settings
from adledger.schemas.wire import EventType
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer, find

LOCAL = "local"
IDLE_CLOCK_SECONDS = 3_600
"""Of a replay: an idle lane's clock would jump from the replayed hours to now."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command asks for. `clickhouse` is empty with `local`; `urls` are workers that others started."""

    target: str
    clickhouse: str
    workers: int
    urls: tuple[str, ...] = ()
    pids: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


@dataclass(slots=True)
class Servers:
    """Broker and ClickHouse for one or several runs. Those that are ours can be hurt; others are None."""

    source: str
    clickhouse: ServerAddress
    clickhouse_text: str
    broker: LocalBroker | None
    server: EmbeddedServer | None

    def pids(self, named: Mapping[str, tuple[int, ...]]) -> dict[str, Sequence[int]]:
        """Return the processes to watch, by part."""
        own = {
            "broker": [self.broker.pid] if self.broker is not None and self.broker.alive else [],
            "clickhouse": [self.server.pid] if self.server is not None else [],
        }
        return {part: [*own.get(part, []), *named.get(part, ())] for part in {*own, *named}}


@dataclass(slots=True)
class RunDeployment:
    """A run's names on its servers, and its workers."""

    servers: Servers
    settings: Settings
    names: Names
    config: Path
    workers: list[WorkerProcess]


def new_id(now: str) -> str:
    """Return a run's id: its time, and four digits that tell apart runs of one second."""
    return f"{now}_{uuid4().hex[:4]}"


def names_of(run_id: str) -> Names:
    """Return the run's own names."""
    base = f"adledger_lt_{run_id}"
    return Names(base, (f"{base}.impressions", f"{base}.clicks"), f"{base}.rollups", base)


@contextmanager
def servers(wanted: Wanted, folder: Path) -> Iterator[Servers]:
    """Give the servers; those that are brought keep their data in `folder` and end with the block.

    Raises UsageError, SinkError, BrokerFailed.
    """
    with ExitStack() as stack:
        if wanted.target == LOCAL:
            broker = stack.enter_context(LocalBroker(folder / "broker"))
            server = stack.enter_context(EmbeddedServer.start(folder / "clickhouse"))
            where = _address(server)
            yield stack.enter_context(
                _stopped_after(Servers(f"kafka://{broker.servers}", where, str(where), broker, server))
            )
            return
        source = _parsed(parse_source, wanted.target)
        if not wanted.clickhouse:
            raise UsageError(
                f"--target {wanted.target} needs to know where ClickHouse is",
                remedy="--clickhouse clickhouse://HOST:PORT or --clickhouse embedded:DIR",
            )
        address = _parsed(parse_clickhouse, wanted.clickhouse)
        own: EmbeddedServer | None = None
        if isinstance(address, EmbeddedAddress):
            own = stack.enter_context(EmbeddedServer.start(address.directory))
            address = _address(own)
        text = wanted.clickhouse if own is None else str(address)
        yield stack.enter_context(_stopped_after(Servers(str(source), address, text, None, own)))


@contextmanager
def _stopped_after(brought: Servers) -> Iterator[Servers]:
    """Stop the ClickHouse that a fault may have started in the place of the first."""
    try:
        yield brought
    finally:
        if brought.server is not None:
            brought.server.stop()


@contextmanager
def tables_of(run: Run, folder: Path, clickhouse: str = "") -> Iterator[ServerAddress]:
    """Give the ClickHouse that holds a run's tables; `clickhouse` goes before the run's own. Raises SinkError."""
    named = clickhouse or (f"embedded:{_own_tables(folder)}" if run.own_servers else run.clickhouse)
    address = _parsed(parse_clickhouse, named)
    if not isinstance(address, EmbeddedAddress):
        yield address
    elif (running := find(address.directory)) is not None:
        yield ServerAddress(running.host, running.port, running.http_port)
    else:
        with EmbeddedServer.start(address.directory) as server:
            yield _address(server)


def _own_tables(folder: Path) -> Path:
    """Return where a run's own ClickHouse has its data: in its folder, or in that of the search it is a step of."""
    for place in (folder, folder.with_name(folder.name.rpartition("_")[0])):
        if (place / "clickhouse").is_dir():
            return place / "clickhouse"
    raise UsageError(
        f"{folder} has no tables: they were removed", remedy="repeat the run: run.json has its command"
    )


def settings_of(servers: Servers, names: Names, changes: Mapping[str, Any], *, log_time: str) -> Settings:
    """Return the settings of the run's workers and senders: without rules, unless the profile names some. Raises UsageError."""
    more = {"log_time": log_time} if servers.source.startswith("kafka:") else {}
    if log_time == "record":
        more["idle_watermark_interval_seconds"] = str(IDLE_CLOCK_SECONDS)
    values = {
        "source": servers.source, "clickhouse": servers.clickhouse, "database": names.database,
        "topics": names.topics, "rollups_topic": names.rollups_topic, "group": names.group,
        "web_host": "127.0.0.1", "web_port": 0, "rules": NONE, **more, **changes,
    }  # fmt: skip
    try:
        return Settings(**values)
    except ValueError as error:
        raise UsageError(
            f"the run's settings: {error}", remedy="mend [settings] of the profile, or --set"
        ) from None


def prepare(
    servers: Servers, settings: Settings, names: Names, folder: Path, *, partitions: int, workers: int
) -> RunDeployment:
    """Make topics or log, write the workers' settings, and return all of it; nothing is started.

    Raises UsageError where the run's names hold something: those are foreign rows.
    """
    _refuse_foreign(servers, settings, names)
    if isinstance(settings.source, FilesAddress):
        if workers > 1:
            raise UsageError("a files: log has one consumer", remedy="--workers 1, or a kafka:// target")
        topics = tuple(
            Topic(name, kind, uuid4().hex)
            for name, kind in zip(names.topics, (EventType.IMPRESSION, EventType.CLICK), strict=True)
        )
        FilesLogWriter.create(settings.source.directory, Manifest(uuid4().hex, topics, partitions)).close()
    else:
        asyncio.run(create_topics(settings, partitions=partitions))
    config = folder / "adledger.toml"
    config.touch(mode=0o600)  # it may hold ClickHouse's password
    config.write_text(toml_of(settings, servers.clickhouse_text), "utf-8")
    source = settings.source
    lock = lock_file(source.directory, settings.group) if isinstance(source, FilesAddress) else None
    return RunDeployment(
        servers,
        settings,
        names,
        config,
        [WorkerProcess(n, config, folder, lock=lock) for n in range(1, workers + 1)],
    )


def toml_of(settings: Settings, clickhouse: str) -> str:
    """Return settings that are not the defaults as adledger.toml, ClickHouse's address with its password."""
    values = {**settings.model_dump(mode="json", exclude_unset=True), "clickhouse": clickhouse}
    flat = {name: value for name, value in values.items() if not isinstance(value, dict)}
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in flat.items() if value is not None)
    for name, section in values.items():
        if isinstance(section, dict) and section:
            text += f"\n[{name}]\n" + "".join(
                f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in section.items()
            )
    return text


def drop_broker_data(servers: Servers) -> None:
    """Remove the data of a broker that is ours and stopped: hundreds of bytes for each event sent."""
    if servers.broker is not None and not servers.broker.alive:
        shutil.rmtree(servers.broker.directory / "data", ignore_errors=True)


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
            remedy=f"take another --run-id, or adledger loadtest clean {names.database.removeprefix('adledger_lt_')}",
        )
    if isinstance(settings.source, FilesAddress):
        directory = settings.source.directory
        if directory.exists() and any(directory.iterdir()):
            raise UsageError(
                f"{directory} holds something that is not this run's", remedy="name a new or empty folder"
            )
        return
    there = asyncio.run(_existing(settings, names))
    if there:
        raise UsageError(
            f"the topics {', '.join(there)} exist: they hold records that are not this run's",
            remedy="take another --run-id, or clean the run that made them",
        )


async def _existing(settings: Settings, names: Names) -> list[str]:
    async with connected(kafka_options(settings)) as client:
        facts = await topic_facts(client, (*names.topics, names.rollups_topic))
    return [topic.name for topic in facts if not topic.error_code]


def _address(server: EmbeddedServer) -> ServerAddress:
    return ServerAddress(server.host, server.port, server.http_port)


def _parsed(parse: Any, text: str) -> Any:
    try:
        return parse(text)
    except ValueError as error:
        raise UsageError(str(error), remedy="--target kafka://HOST:PORT, files:DIR or local") from None
