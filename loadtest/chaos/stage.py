"""What a chaos run plays on: broker, ClickHouse, the proxies before them, and deployments with their workers."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from adledger.loadtest.chaos.look import Look
from adledger.loadtest.chaos.workers import ADLEDGER, ChaosWorker
from adledger.loadtest.lab.broker import HOST, Listener, LocalBroker
from adledger.loadtest.lab.clickhouse_frames import Insert
from adledger.loadtest.lab.deployment import toml_of
from adledger.loadtest.lab.disk import Disk
from adledger.loadtest.lab.processes import pause, resume
from adledger.loadtest.lab.proxies import Proxies
from adledger.loadtest.lab.waiting import NotSeen, until
from adledger.loadtest.traffic.ground_truth import Truth
from adledger.loadtest.verification.verify import verify
from adledger.pipeline.addresses import KafkaAddress, ServerAddress
from adledger.pipeline.ledger.audit import Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.pipeline.rules.loader import NONE
from adledger.pipeline.settings import Settings
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer

MID_INSERT_SECONDS_MAX = 30.0
SHORTER_THAN_AN_INSERT_SECONDS = 0.001
ANSWER_ON_ITS_WAY_SECONDS = 0.03

MOMENTS_MAX = 10
MOMENT_SECONDS = 1.0
"""Shorter than a session, so that a worker that is stopped for it keeps its lanes."""

DIRECT, WORKERS = "DIRECT", "WORKERS"

SESSION_MS = 2_000
DEADLINE_SECONDS = 2
SETTINGS: dict[str, Any] = {
    "rules": NONE, "log_time": "record", "write_deadline_seconds": DEADLINE_SECONDS, "revoke_ms_max": 3_000,
    "retry_backoff_ms_max": 500, "retry_attempts_max": 120, "cpu_threads": 1, "web_host": "127.0.0.1", "web_port": 0,
    "batch_rows_max": 4_096, "batch_age_ms_max": 300, "batch_bytes_max": 4 * 1024 * 1024, "fetch_bytes_max": 1024 * 1024,
    "inserts_per_second_max": 60,
    "kafka": {"session.timeout.ms": str(SESSION_MS), "heartbeat.interval.ms": "200"},
}  # fmt: skip
"""Short times, so that a fault's whole course fits in seconds; and limits that memory can be held against."""


class ChaosServers:
    """Broker and ClickHouse, which can be killed and started again; `kafka` and `clickhouse` lead through proxies."""

    def __init__(self, broker: LocalBroker, server: EmbeddedServer, proxies: Proxies, disk: Disk) -> None:
        self.broker, self.server, self.proxies, self.disk = broker, server, proxies, disk
        self.clickhouse = ServerAddress(HOST, proxies.clickhouse.port, server.http_port)
        self.direct = ServerAddress(server.host, server.port, server.http_port)

    def start_clickhouse(self) -> None:
        """Start ClickHouse again, where it was, on its data."""
        old = self.server
        old.stop()  # it has ended; its pipes are closed
        self.server = EmbeddedServer.start(old.directory, port=old.port, http_port=old.http_port)

    def stop_clickhouse_in_mid_insert(self, table: str | None = None) -> set[Insert]:
        """Stop ClickHouse (SIGSTOP) while inserts run on it, of them one into a table where one is named.

        Their rows were received, their answers not given. Raises NotSeen.
        """
        inserts, server = self.proxies.inserts, self.server

        def wanted() -> bool:
            return any(table in (None, insert.table) for insert in inserts.under_way())

        last = time.monotonic() + MID_INSERT_SECONDS_MAX
        while time.monotonic() < last:
            if not wanted():
                time.sleep(SHORTER_THAN_AN_INSERT_SECONDS)
                continue
            stopped = pause(server.pid)
            time.sleep(ANSWER_ON_ITS_WAY_SECONDS)
            if stopped and wanted():
                return inserts.under_way()
            resume(server.pid)
        raise NotSeen(
            f"no insert into {table or 'any table'} was running on ClickHouse", remedy="more traffic"
        )


@contextmanager
def servers(folder: Path) -> Iterator[ChaosServers]:
    """Give the servers; they end with the block, and their data goes. Raises BrokerFailed, SinkError, KafkaMissing."""
    disk = Disk(folder / "clickhouse")
    broker = LocalBroker(folder / "broker", listeners=(Listener(DIRECT), Listener(WORKERS)))
    try:
        server = EmbeddedServer.start(disk.folder / "data")
        to = (HOST, broker.ports[WORKERS]), (server.host, server.port)
        with Proxies(*to) as proxies:
            broker.advertised[WORKERS] = proxies.kafka.address
            given = ChaosServers(broker, server, proxies, disk)
            try:
                with broker:
                    if broker.ports[WORKERS] != to[0][1]:
                        raise NotSeen("another process took the broker's port", remedy="run it again")
                    yield given
            finally:
                given.server.stop()
    finally:
        disk.close()


@dataclass(slots=True)
class ChaosDeployment:
    """Topics, group and database of a run, its settings in a file, and its workers."""

    servers: ChaosServers
    settings: Settings
    direct: Settings
    folder: Path
    look: Look
    workers: list[ChaosWorker] = field(default_factory=list)

    @classmethod
    def make(cls, given: ChaosServers, folder: Path, *, partitions: int, **changes: Any) -> "ChaosDeployment":
        """Make topics and settings. `direct` are the settings of who does not go through the proxies."""
        folder.mkdir(parents=True, exist_ok=True)
        name = f"chaos_{uuid4().hex[:8]}"
        own = {
            "database": name, "group": name, "topics": (f"{name}.impressions", f"{name}.clicks"),
            "rollups_topic": f"{name}.rollups", **SETTINGS, **changes,
        }  # fmt: skip
        through = KafkaAddress((given.proxies.kafka.address,))
        settings = Settings(source=through, clickhouse=given.clickhouse, **own)
        direct = Settings(source=KafkaAddress((given.broker.servers,)), clickhouse=given.direct, **own)
        (folder / "adledger.toml").write_text(toml_of(settings, str(given.clickhouse)), "utf-8")
        asyncio.run(create_topics(direct, partitions=partitions))
        return cls(given, settings, direct, folder, Look(given.direct, name))

    def worker(self, name: str, program: Sequence[str] = ADLEDGER) -> ChaosWorker:
        """Return a worker that is not started yet."""
        made = ChaosWorker(name, self.folder / "adledger.toml", self.folder / f"{name}.log", program=program)
        self.workers.append(made)
        return made

    def held(self) -> dict[str, frozenset[int]]:
        """Return worker -> the lanes that it says it holds."""
        return {worker.name: worker.lanes() for worker in self.workers if worker.alive}

    def fill_disk(self) -> None:
        """Leave ClickHouse no room, at a moment when no insert is under way: workers stand still meanwhile.

        A worker that was stopped while it sent its rows goes on, and the moment is another. Raises NotSeen.
        """
        for _ in range(MOMENTS_MAX):
            alive = [worker for worker in self.workers if worker.alive]
            for worker in alive:
                pause(worker.pid)
            try:
                until(
                    lambda: not self.servers.proxies.inserts.under_way(), "the end of inserts", MOMENT_SECONDS
                )
                self.servers.disk.fill(self.servers.direct, self.settings.database)
            except NotSeen:
                continue
            else:
                return
            finally:
                for worker in alive:
                    resume(worker.pid)
        raise NotSeen(f"no moment of {MOMENTS_MAX} without an insert under way", remedy="less traffic")

    def free_disk(self) -> None:
        """Give ClickHouse its room back."""
        self.servers.disk.free(self.servers.direct, self.settings.database)

    def end(self, *, at_once: bool = False) -> None:
        """End what still runs, in order or by kill -9."""
        for worker in self.workers:
            if not at_once:
                worker.stop()
            elif worker.alive:
                worker.kill()
        self.look.close()

    def wrong(self, truth: Truth) -> list[str]:
        """Return where tables differ from the truth, or from the ledger counted again; nothing where all is well."""
        client = connect(self.servers.direct)
        try:
            report = verify(truth, client, self.settings.database)
            audited = audit(client, TableNames(self.settings.database), Scope(), recount=True)
        finally:
            client.disconnect()
        found = [*report.wrong_counts, *map(str, report.differences), *map(str, audited.problems)]
        if not (audited.conserved and audited.continuous):
            found.append(f"the ledger: conserved {audited.conserved}, continuous {audited.continuous}")
        return found
