"""One deployment: its own database, topics and group on some servers, settings in a file, and workers."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar
from uuid import uuid4

from adledger.loadtest.lab.names import Names
from adledger.loadtest.lab.tables_view import TablesView
from adledger.loadtest.lab.workers import ADLEDGER, WorkerProcess
from adledger.pipeline.addresses import FilesAddress, ServerAddress
from adledger.pipeline.log.files.manifest import Manifest, Topic
from adledger.pipeline.log.files.source import lock_file
from adledger.pipeline.log.files.writer import FilesLogWriter
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.pipeline.settings import Settings
from adledger.schemas.wire import EventType

S = TypeVar("S")


@dataclass(slots=True)
class LabDeployment(Generic[S]):
    """The deployment of one run. Workers use `settings`; the run itself uses `direct`, which bypasses proxies."""

    servers: S
    names: Names
    settings: Settings
    direct: Settings
    folder: Path
    tables: TablesView
    workers: list[WorkerProcess] = field(default_factory=list)

    @classmethod
    def make(
        cls, servers: S, names: Names, settings: Settings, folder: Path, *, clickhouse_text: str, partitions: int,
        direct: Settings | None = None,
    ) -> "LabDeployment[S]":  # fmt: skip
        """Create the topics or the log, and write the workers' settings; nothing is started."""
        direct = direct or settings
        _make_log(direct, names, partitions)
        config = _config(folder)
        config.touch(mode=0o600)  # it may hold ClickHouse's password
        config.write_text(toml_of(settings, clickhouse_text), "utf-8")
        assert isinstance(direct.clickhouse, ServerAddress), "servers are processes of their own"
        return cls(servers, names, settings, direct, folder, TablesView(direct.clickhouse, names.database))

    def worker(self, name: str, program: Sequence[str] = ADLEDGER) -> WorkerProcess:
        """Add a worker, which is not started yet."""
        source = self.settings.source
        lock = lock_file(source.directory, self.settings.group) if isinstance(source, FilesAddress) else None
        made = WorkerProcess(
            name, _config(self.folder), self.folder / f"{name}.log", program=program, lock=lock
        )
        self.workers.append(made)
        return made

    def owned(self) -> dict[str, frozenset[int]]:
        """Return worker -> the lanes that it owns, as it last reported."""
        return {worker.name: worker.lanes() for worker in self.workers if worker.alive}

    def end(self, *, at_once: bool = False) -> None:
        """End the workers that still run: gracefully, or with SIGKILL."""
        for worker in self.workers:
            if not at_once:
                worker.stop()
            elif worker.alive:
                worker.kill()
        self.tables.close()


def _config(folder: Path) -> Path:
    return folder / "adledger.toml"


def _make_log(settings: Settings, names: Names, partitions: int) -> None:
    if isinstance(settings.source, FilesAddress):
        topics = tuple(
            Topic(name, kind, uuid4().hex)
            for name, kind in zip(names.topics, (EventType.IMPRESSION, EventType.CLICK), strict=True)
        )
        FilesLogWriter.create(settings.source.directory, Manifest(uuid4().hex, topics, partitions)).close()
    else:
        asyncio.run(create_topics(settings, partitions=partitions))


def toml_of(settings: Settings, clickhouse: str) -> str:
    """Return the settings that are not defaults as adledger.toml, with `clickhouse` as the address (its password included)."""
    values = {**settings.model_dump(mode="json", exclude_unset=True), "clickhouse": clickhouse}
    flat = {name: value for name, value in values.items() if not isinstance(value, dict)}
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in flat.items() if value is not None)
    for name, section in values.items():
        if isinstance(section, dict) and section:
            text += f"\n[{name}]\n" + "".join(
                f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in section.items()
            )
    return text
