"""A chaos deployment: settings with short times behind the proxies, a disk that fills up, and the final comparison."""

from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

from adledger.loadtest.lab.deployment import LabDeployment
from adledger.loadtest.lab.names import Names
from adledger.loadtest.lab.processes import pause, resume
from adledger.loadtest.lab.proxied import ProxiedServers
from adledger.loadtest.lab.waiting import NotSeen, until
from adledger.loadtest.traffic.ground_truth import GroundTruth
from adledger.loadtest.verification.verify import verify
from adledger.pipeline.ledger.audit import Scope, audit
from adledger.pipeline.ledger.queries import TableNames
from adledger.pipeline.rules.loader import NONE
from adledger.pipeline.settings import Settings
from adledger.sinks.connection import connect

MOMENTS_MAX = 10
MOMENT_SECONDS = 1.0
"""Shorter than a session, so that a worker that is paused for it keeps its lanes."""

SESSION_MS = 2_000
DEADLINE_SECONDS = 2
SETTINGS: dict[str, Any] = {
    "rules": NONE, "log_time": "record", "write_deadline_seconds": DEADLINE_SECONDS, "revoke_ms_max": 3_000,
    "retry_backoff_ms_max": 500, "retry_attempts_max": 120, "cpu_threads": 1, "web_host": "127.0.0.1", "web_port": 0,
    "batch_rows_max": 4_096, "batch_age_ms_max": 300, "batch_bytes_max": 4 * 1024 * 1024, "fetch_bytes_max": 1024 * 1024,
    "inserts_per_second_max": 60,
    "kafka": {"session.timeout.ms": str(SESSION_MS), "heartbeat.interval.ms": "200"},
}  # fmt: skip
"""Short times, so that a fault and its recovery fit into seconds; and limits that memory is checked against."""

ChaosDeployment: TypeAlias = LabDeployment[ProxiedServers]


def deploy(given: ProxiedServers, folder: Path, *, partitions: int, **changes: Any) -> ChaosDeployment:
    """Make topics and settings: workers go through the proxies, `direct` settings go past them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = Names.starting_with(f"chaos_{uuid4().hex[:8]}")
    own = {
        "database": names.database, "group": names.group, "topics": names.topics, "rollups_topic": names.rollups_topic,
        **SETTINGS, **changes,
    }  # fmt: skip
    settings = Settings(source=given.source, clickhouse=given.clickhouse, **own)
    direct = Settings(source=given.direct_source, clickhouse=given.server.address, **own)
    return LabDeployment.make(
        given, names, settings, folder, clickhouse_text=str(given.clickhouse), partitions=partitions, direct=direct
    )  # fmt: skip


def fill_disk(on: ChaosDeployment) -> None:
    """Leave ClickHouse no disk space, at a moment when no insert is under way: workers are paused meanwhile.

    A worker that was paused while it sent its rows is resumed, and another moment is tried. Raises NotSeen.
    """
    inserts = on.servers.proxies.inserts
    for _ in range(MOMENTS_MAX):
        alive = [worker for worker in on.workers if worker.alive]
        for worker in alive:
            pause(worker.pid)
        try:
            until(lambda: not inserts.under_way(), "the end of inserts", MOMENT_SECONDS)
            on.servers.disk.fill(on.servers.server.address, on.settings.database)
        except NotSeen:
            continue
        else:
            return
        finally:
            for worker in alive:
                resume(worker.pid)
    raise NotSeen(f"no moment of {MOMENTS_MAX} without an insert under way", remedy="less traffic")


def free_disk(on: ChaosDeployment) -> None:
    """Free ClickHouse's disk space."""
    on.servers.disk.free(on.servers.server.address, on.settings.database)


def differences_from(ground_truth: GroundTruth, on: ChaosDeployment) -> list[str]:
    """Return where tables differ from the ground truth, or from the ledger counted again; nothing when all is well."""
    client = connect(on.servers.server.address)
    try:
        report = verify(ground_truth, client, on.settings.database)
        audited = audit(client, TableNames(on.settings.database), Scope(), recount=True)
    finally:
        client.disconnect()
    found = [*report.wrong_counts, *map(str, report.differences), *map(str, audited.problems)]
    if not (audited.conserved and audited.continuous):
        found.append(f"the ledger: conserved {audited.conserved}, continuous {audited.continuous}")
    return found
