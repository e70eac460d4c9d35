"""adledger as a peer: `adledger run` with its defaults, into a ClickHouse of its own beside it."""

import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loadtest.kernels.shapes import Records
from loadtest.peers.measure import Cost, cpu_seconds, measured
from loadtest.peers.traffic import MINUTE, Traffic
from loadtest.runner.deployment import toml_of
from pipeline.addresses import ServerAddress
from pipeline.settings import Settings
from schemas.classes import Class
from schemas.wire import EventType
from sinks.connection import Client, connect
from sinks.embedded.launch import EmbeddedServer, search_path

DATABASE = "adledger"


@dataclass(frozen=True, slots=True)
class OwnRun:
    """What a run of ours took and found. `steady_*` begin when a part of the events was in the ledger."""

    cost: Cost
    mark_events: int
    steady_cpu_seconds: float
    steady_seconds: float
    server_cpu_seconds: float
    minutes: Records


@dataclass(slots=True)
class _Mark:
    """Looks at the ledger until a quarter of the events is in it."""

    address: ServerAddress
    at: int
    events: int = 0
    cpu: float = 0.0
    when: float = 0.0
    looks: int = field(default=0)

    def watch(self, pid: int) -> None:
        if self.events:
            return
        self.looks += 1
        if self.looks % 4:  # five times a second
            return
        cpu, when = cpu_seconds(pid), time.monotonic()
        done = _ledgered(self.address)
        if done >= self.at:
            self.events, self.cpu, self.when = done, cpu, when


def run_adledger(servers: str, traffic: Traffic, folder: Path, *, seconds_max: float) -> OwnRun:
    """Run a worker over the topic until the group has caught up. Raises PeerFailed, SinkError."""
    with EmbeddedServer.start(folder / "clickhouse") as server:
        address = ServerAddress(server.host, server.port, server.http_port)
        values: dict[str, Any] = {
            "source": f"kafka://{servers}", "clickhouse": str(address), "database": DATABASE,
            "topics": (traffic.topic,), "rollups_topic": f"{traffic.topic}.rollups", "group": f"peer-{folder.name}",
            "log_time": "record",
        }  # fmt: skip
        settings = Settings(**values)
        config = folder / "adledger.toml"
        config.write_text(toml_of(settings, str(address)), "utf-8")
        command = [sys.executable, "-m", "pipeline.cli", "run", "--config", str(config), "--until-caught-up", "--without-web"]  # fmt: skip
        mark, before = _Mark(address, traffic.events // 4), cpu_seconds(server.pid)
        cost = measured(
            command, folder / "worker.log", seconds_max=seconds_max, env={"PYTHONPATH": search_path()}, watch=mark.watch
        )  # fmt: skip
        ended, server_cpu = time.monotonic(), cpu_seconds(server.pid) - before
        (folder / "report.json").write_text(json.dumps({"events": _ledgered(address)}))
        return OwnRun(
            cost, mark.events, cost.cpu_seconds - mark.cpu, ended - mark.when, server_cpu, _minutes(address)
        )


def _ledgered(address: ServerAddress) -> int:
    """Return how many records the ledger has; 0 while there is no ledger yet."""
    client = connect(address)
    try:
        there = client.execute("SELECT count() FROM system.tables WHERE database = %(d)s AND name = 'ledger'", {"d": DATABASE})  # fmt: skip
        if not there[0][0]:
            return 0
        return int(client.execute(f"SELECT sum(records_received) FROM {DATABASE}.ledger")[0][0])  # noqa: S608
    finally:
        client.disconnect()


def _minutes(address: ServerAddress) -> Records:
    client: Client = connect(address)
    try:
        columns = client.columns(
            "SELECT publisher_id, toUnixTimestamp(minute) AS m, "  # noqa: S608 - numbers
            f"toInt64(sumIf(records, event_type_code = {EventType.IMPRESSION:d})), "
            f"toInt64(sumIf(records, event_type_code = {EventType.CLICK:d})), toInt64(sum(money_nanos)) "
            f"FROM {DATABASE}.rollup_minute WHERE class_code = {Class.BILLABLE:d} "
            "GROUP BY publisher_id, m ORDER BY publisher_id, m"
        )
    finally:
        client.disconnect()
    minutes = np.zeros(len(columns[0]) if columns else 0, MINUTE)
    for name, column in zip(MINUTE.names or (), columns or (), strict=bool(columns)):
        minutes[name] = column
    return minutes
