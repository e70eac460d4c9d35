"""A deployment on a real broker: its own topics, group and database, worker processes, and what its tables hold."""

import asyncio
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from aiokafka.admin import AIOKafkaAdminClient
from clickhouse_driver.errors import Error as DriverError

from adledger.loadtest.traffic.ground_truth import GroundTruth
from adledger.loadtest.verification.verify import verify
from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import SinkUnavailable
from adledger.pipeline.ledger.audit import Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.log.kafka_admin.topics import create_topics
from adledger.pipeline.settings import Settings
from adledger.sinks.connection import NETWORK_ERRORS, Client, connect
from tests.support.clickhouse_servers import AnyServer, address_of
from tests.support.commands import QUERY_POLL_SECONDS, Command, adledger, started

SESSION_MS, HEARTBEAT_MS = 2_000, 200
ON_ITS_WAY_SECONDS = 0.5
"""Well below the session's timeout, and long for an insert on the loopback."""
QUICK = {
    "write_deadline_seconds": 2, "revoke_ms_max": 3_000, "retry_backoff_ms_max": 500, "log_time": "record",
    "rules": "none",  # the ground truth knows no rules
    "kafka": {"session.timeout.ms": str(SESSION_MS), "heartbeat.interval.ms": str(HEARTBEAT_MS)},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Deployment:
    """Settings of a group of workers, in a file; `folder` keeps each process's output."""

    settings: Settings
    folder: Path
    server: ServerAddress

    @classmethod
    def make(
        cls, broker: str, server: AnyServer, folder: Path, *, partitions: int, **changes: Any
    ) -> "Deployment":
        """Make the topics, and write the settings to `adledger.toml`; `changes` are settings."""
        made = cls.without_topics(broker, server, folder, **changes)
        asyncio.run(create_topics(made.settings, partitions=partitions))
        return made

    @classmethod
    def without_topics(cls, broker: str, server: AnyServer, folder: Path, **changes: Any) -> "Deployment":
        """Write only the settings."""
        name = f"w{uuid4().hex[:10]}"
        values = {
            "source": f"kafka://{broker}", "database": name, "group": name,
            "clickhouse": f"clickhouse://{server.host}:{server.port}/?http_port={server.http_port}",
            "topics": [f"{name}.impressions", f"{name}.clicks"], "rollups_topic": f"{name}.rollups",
            **QUICK, **changes,
        }  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "adledger.toml").write_text(_toml(values))
        return cls(Settings(**values), folder, address_of(server))

    def arguments(self, *more: str) -> tuple[str, ...]:
        """Return the arguments of `adledger run`."""
        return ("run", "--config", str(self.folder / "adledger.toml"), "--without-web", *more)

    def worker(self, name: str, *more: str) -> AbstractContextManager[Command]:
        """Start a worker; it does not outlive the block."""
        return started(self.folder / name, *self.arguments(*more))

    def run_to_the_end(self, name: str, *more: str) -> Command:
        """Run one worker until the group has caught up."""
        ended = adledger(self.folder / name, *self.arguments("--until-caught-up", *more))
        assert ended.process.returncode == 0, ended.err
        return ended

    async def intents(self) -> dict[int, dict[str, Any]]:
        """Return lane -> the newest committed intent, as stock Kafka tools see it."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.settings.source.servers)
        await admin.start()
        try:
            committed = await admin.list_consumer_group_offsets(self.settings.group)
        finally:
            await admin.close()
        newest: dict[int, dict[str, Any]] = {}
        for place, at in committed.items():
            intent = json.loads(at.metadata)
            if intent["batch"] >= newest.get(place.partition, intent)["batch"]:
                newest[place.partition] = intent
        return newest

    @contextmanager
    def client(self) -> Iterator[Client]:
        """Yield a connection to ClickHouse."""
        client = connect(self.server)
        try:
            yield client
        finally:
            client.disconnect()

    def assert_expected(self, ground_truth: GroundTruth) -> None:
        """Check that every table equals the ground truth, and that ledger and tables agree, batch by batch, counted
        again.
        """
        with self.client() as client:
            report = verify(ground_truth, client, self.settings.database)
            assert report.equal, report
            audited = audit(client, TableNames(self.settings.database), Scope(), recount=True)
        assert audited.conserved
        assert audited.continuous
        assert not audited.problems
        assert audited.totals.records_received == ground_truth.records_received


@dataclass(frozen=True, slots=True)
class LedgerReader:
    """Reads a deployment's tables while its workers write them."""

    client: Client
    database: str

    def batches(self) -> int:
        """Return how many batches are done, 0 where there is no ledger yet."""
        return self._number("count()")

    def records(self) -> int:
        """Return how many records are done."""
        return self._number("sum(records_received)")

    def newest(self) -> dict[int, int]:
        """Return lane -> its newest batch that is done."""
        try:
            return dict(
                self.client.execute(f"SELECT lane, max(batch_no) FROM {self.database}.ledger GROUP BY lane")
            )
        except (SinkUnavailable, DriverError, *NETWORK_ERRORS):
            self.client.disconnect()
            return {}

    def unfinished(self) -> list[tuple[int, int]]:
        """Return (lane, batch_no) of those that have rows in `events` and no ledger row; none while the server is away."""
        try:
            return self.client.execute(
                f"SELECT DISTINCT lane, batch_no FROM {self.database}.events "
                f"WHERE (lane, batch_no) NOT IN (SELECT lane, batch_no FROM {self.database}.ledger)"
            )
        except (SinkUnavailable, DriverError, *NETWORK_ERRORS):
            self.client.disconnect()
            return []

    def wait_for_batches(self, command: Command, more: int) -> None:
        """Return when this many more batches are done; `command` must live as long."""
        before = self.batches()
        command.until(lambda: self.batches() >= before + more, poll_seconds=QUERY_POLL_SECONDS)

    def kill_in_mid_batch(self, worker: Command, lanes: set[int]) -> list[tuple[int, int]]:
        """kill -9 a worker between a batch's first insert and its last, and return such batches of its lanes."""
        found = self.stop_in_mid_batch(worker, lanes)
        os.kill(worker.process.pid, signal.SIGKILL)
        assert worker.wait() == -signal.SIGKILL
        return found

    def stop_in_mid_batch(self, worker: Command, lanes: set[int]) -> list[tuple[int, int]]:
        """SIGSTOP a worker between a batch's first insert and its last, and return such batches of its lanes.

        The tables are read again once it has stopped, so that the returned batches stay in that state.
        """
        found: list[tuple[int, int]] = []

        def stopped_there() -> bool:
            nonlocal found
            if not self._unfinished_of(lanes):
                return False
            os.kill(worker.process.pid, signal.SIGSTOP)
            time.sleep(
                ON_ITS_WAY_SECONDS
            )  # an insert that was sent before may be stored yet, the ledger row's too
            found = self._unfinished_of(lanes)
            if not found:
                os.kill(worker.process.pid, signal.SIGCONT)
            return bool(found)

        worker.until(stopped_there)
        return found

    def _unfinished_of(self, lanes: set[int]) -> list[tuple[int, int]]:
        return [batch for batch in self.unfinished() if batch[0] in lanes]

    def _number(self, what: str) -> int:
        try:
            return int(self.client.execute(f"SELECT {what} FROM {self.database}.ledger")[0][0])
        except (SinkUnavailable, DriverError, *NETWORK_ERRORS):
            self.client.disconnect()
            return 0


def owned_lanes(command: Command) -> set[int]:
    """Return the lanes that a worker last reported as its own."""
    lines = [line for line in command.err.splitlines() if "now owned: " in line]
    if not lines:
        return set()
    owned = lines[-1].split("now owned: ")[1].rstrip('"').strip()
    return set() if owned == "none" else {int(lane) for lane in owned.split(",")}


def _toml(values: dict[str, Any]) -> str:
    flat = {name: value for name, value in values.items() if not isinstance(value, dict)}
    text = "".join(f"{name} = {json.dumps(value)}\n" for name, value in flat.items())
    for name, section in values.items():
        if isinstance(section, dict):
            text += f"[{name}]\n" + "".join(
                f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in section.items()
            )
    return text
