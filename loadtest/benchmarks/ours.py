"""adledger in the comparison: `adledger run` with its defaults, and its own ClickHouse."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adledger.loadtest.benchmarks.traffic import MINUTE, FilledTopic
from adledger.loadtest.lab.deployment import toml_of
from adledger.loadtest.lab.measured_process import Cost, cpu_seconds, measured
from adledger.loadtest.traffic.kernels.shapes import Records
from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.rules.loader import NONE
from adledger.pipeline.settings import Settings
from adledger.schemas.classes import Class
from adledger.schemas.wire import EventType
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer, search_path

DATABASE = "adledger"
BEGINS = b"starting a worker of group"
"""What the worker logs when it joins its group."""


@dataclass(frozen=True, slots=True)
class OwnRun:
    """What a run of adledger took and found. `steady_*` begin with the worker, once its process is ready.

    Not at a quarter of the events, as for the others: batches are computed ahead, and those would be left out.
    """

    cost: Cost
    steady_cpu_seconds: float
    steady_seconds: float
    server_cpu_seconds: float
    minutes: Records


@dataclass(slots=True)
class _Begin:
    """Watches the worker's log for its first line: imports, kernels and checks are done, nothing is read yet."""

    log: Path
    cpu: float = 0.0
    when: float = 0.0

    def watch(self, pid: int) -> None:
        if not self.when and BEGINS in self.log.read_bytes():
            self.cpu, self.when = cpu_seconds(pid), time.monotonic()


def run_adledger(servers: str, traffic: FilledTopic, folder: Path, *, seconds_max: float) -> OwnRun:
    """Run a worker over the topic until the group has caught up. Raises ProcessFailed, SinkError."""
    with EmbeddedServer.start(folder / "clickhouse") as server:
        address = ServerAddress(server.host, server.port, server.http_port)
        values: dict[str, Any] = {
            "source": f"kafka://{servers}", "clickhouse": str(address), "database": DATABASE,
            "topics": (traffic.topic,), "rollups_topic": f"{traffic.topic}.rollups", "group": f"contestant-{folder.name}",
            "log_time": "record", "rules": NONE,  # contestants have none
        }  # fmt: skip
        settings = Settings(**values)
        config = folder / "adledger.toml"
        config.write_text(toml_of(settings, str(address)), "utf-8")
        command = [sys.executable, "-m", "adledger", "run", "--config", str(config), "--until-caught-up", "--without-web"]  # fmt: skip
        begin, before = _Begin(folder / "worker.log"), cpu_seconds(server.pid)
        cost = measured(
            command, folder / "worker.log", seconds_max=seconds_max, env={"PYTHONPATH": search_path()}, watch=begin.watch
        )  # fmt: skip
        ended, server_cpu = time.monotonic(), cpu_seconds(server.pid) - before
        return OwnRun(cost, cost.cpu_seconds - begin.cpu, ended - begin.when, server_cpu, _minutes(address))


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
