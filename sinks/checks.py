"""Checks before a lane starts that ClickHouse meets the protocol's requirements. Each finding names its fix."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from adledger.pipeline.errors import SinkError
from adledger.pipeline.findings import Finding
from adledger.schemas import roles
from adledger.schemas.tables import DISK_FREE_BYTES_MIN, PROTOCOL_TABLES
from adledger.sinks.connection import Client
from adledger.sinks.insert_settings import insert_settings
from adledger.sinks.outcomes import DEADLINE_CONSTRAINT

VERSION_MIN = (25, 8)
"""The oldest supported release, one with long-term support."""

VERSION_TESTED = (26, 9)
"""The newest release that tests run on: the embedded engine's. ClickHouse's own server is tested at 26.7."""

_CONSTRAINT = f"CONSTRAINT {DEADLINE_CONSTRAINT} CHECK toUnixTimestamp(nowInBlock()) <= send_by"
_LANE_ORDERS = ("ORDER BY (lane, batch_no, ", "PROJECTION by_lane")
"""Either is in the definition of `events`: its own order, or in databases from before it the order of a projection."""
_PARTITION_KEYS = {
    "events": "toYYYYMMDD(lane_clock)",
    "dead_letters": "toYYYYMMDD(lane_clock)",
    "rollup_minute": "toYYYYMMDD(clock_day)",
    "ledger": "toYYYYMMDD(clock_after)",
}
_FSYNC = (
    "fsync_after_insert",
    "fsync_part_directory",
    "min_rows_to_fsync_after_merge",
    "min_compressed_bytes_to_fsync_after_merge",
)
_DISK_FREE = "min_free_disk_bytes_to_perform_insert"
_DISK_FREE_SET = re.compile(rf"\b{_DISK_FREE} = [1-9]|\bmin_free_disk_ratio_to_perform_insert = 0?\.0*[1-9]")
_SENT = (
    "async_insert",
    "max_partitions_per_insert_block",
    "min_insert_block_size_rows",
    "min_insert_block_size_bytes",
)


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A protocol table's engine and settings on the server."""

    engine: str
    engine_full: str
    partition_key: str
    create_query: str


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What a server reports. `settings` are those in force for a query sent with the sink's settings."""

    version: str
    database: str
    cluster: str | None
    tables: Mapping[str, TableFacts]
    settings: Mapping[str, str]


def check_version(client: Client) -> None:
    """Raise SinkError for a server that is too old, before a migration fails there with an unclear error."""
    if refused := too_old(str(client.execute("SELECT version()")[0][0])):
        raise SinkError(refused[0].message, remedy=refused[0].remedy)


def check_server(client: Client, database: str, cluster: str | None = None) -> list[Finding]:
    """Return a finding for each requirement that the server does not meet.

    A server hides tables from users without a grant on them: then the missing grants are the findings. Raises
    SinkUnavailable, and ServerException if the user lacks the right to check.
    """
    facts = _facts(client, database, cluster)
    if len(facts.tables) < len(PROTOCOL_TABLES) and (lacking := missing_grants(client, database, cluster)):
        return [
            Finding(
                f"the user {client.address.user} lacks {', '.join(lacking)}",
                f"use a user with the role {roles.WRITER}: adledger roles sql",
            )
        ]
    return findings(facts)


def missing_grants(client: Client, database: str, cluster: str | None = None) -> list[str]:
    """Return the grants of pipeline_writer that the client's user lacks. Raises as `check_server` does."""
    wanted = roles.single_grants(roles.WRITER, roles.RoleTarget(database, cluster))
    return [grant for grant in wanted if not client.execute(f"CHECK GRANT {grant}")[0][0]]


def findings(facts: ServerFacts) -> list[Finding]:
    """Return a finding for each requirement that is not met."""
    return [
        *_server_findings(facts),
        *(f for table in PROTOCOL_TABLES for f in _table_findings(facts, table)),
    ]


def too_old(version: str) -> list[Finding]:
    """Return a finding if the server's version is too old, otherwise none."""
    if tuple(int(part) for part in version.split(".")[:2]) >= VERSION_MIN:
        return []
    floor, newest = (".".join(map(str, v)) for v in (VERSION_MIN, VERSION_TESTED))
    return [
        Finding(
            f"ClickHouse {version} is older than {floor}, the oldest supported; the newest tested is {newest}",
            f"upgrade ClickHouse to {floor} or newer, e.g. {newest}",
        )
    ]


def _server_findings(facts: ServerFacts) -> Iterator[Finding]:
    yield from too_old(facts.version)
    sent = insert_settings()
    for name in _SENT:
        if facts.settings.get(name) != str(sent[name]):
            yield Finding(
                f"the setting {name} is {facts.settings.get(name)} where the sink sends {sent[name]}",
                f"lift the constraint on {name} in the profile of the sink's user",
            )


def _table_findings(facts: ServerFacts, table: str) -> Iterator[Finding]:
    name = f"{facts.database}.{table}"
    found = facts.tables.get(table)
    if found is None:
        yield Finding(f"there is no table {name}", "adledger migrate")
        return
    if found.engine.startswith("Replicated") != (facts.cluster is not None):
        yield Finding(
            f"{name} has the engine {found.engine}, and cluster is {facts.cluster or 'not set'}",
            "set cluster as it was when the database was migrated",
        )
    if _CONSTRAINT not in found.create_query:
        yield Finding(
            f"{name} has no deadline: late inserts would be stored", f"ALTER TABLE {name} ADD {_CONSTRAINT}"
        )
    if table == "events" and not any(order in found.create_query for order in _LANE_ORDERS):
        yield Finding(
            f"{name} is not ordered by lane, and has no projection by_lane: recovery and rebuilds would read the whole table",
            "it can't be added later: migrate into a database with another name",
        )
    if found.partition_key != _PARTITION_KEYS[table]:
        yield Finding(
            f"{name} is partitioned by {found.partition_key}, not {_PARTITION_KEYS[table]}: inserts are not atomic",
            "a partition key can't be changed: migrate into a database with another name",
        )
    if missing := [f"{setting} = 1" for setting in _FSYNC if f"{setting} = 1" not in found.engine_full]:
        yield Finding(
            f"{name} does not fsync: rows that it acknowledged may be lost in a power failure",
            f"ALTER TABLE {name} MODIFY SETTING {', '.join(missing)}",
        )
    if not _DISK_FREE_SET.search(found.engine_full):
        yield Finding(
            f"{name} accepts inserts until its disk is full: one under way then may be acknowledged and lost",
            f"ALTER TABLE {name} MODIFY SETTING {_DISK_FREE} = {DISK_FREE_BYTES_MIN}",
        )
    if " TTL " in found.engine_full:
        yield Finding(
            f"{name} has a TTL, which follows the server's clock and would drop the rows of an old log",
            f"ALTER TABLE {name} REMOVE TTL",
        )


def _facts(client: Client, database: str, cluster: str | None) -> ServerFacts:
    tables = client.execute(
        "SELECT name, engine, engine_full, partition_key, create_table_query FROM system.tables "
        "WHERE database = %(database)s AND name IN %(names)s",
        {"database": database, "names": PROTOCOL_TABLES},
    )
    settings = client.execute(
        "SELECT name, value FROM system.settings WHERE name IN %(names)s",
        {"names": _SENT},
        settings=insert_settings(),
    )
    return ServerFacts(
        version=client.execute("SELECT version()")[0][0],
        database=database,
        cluster=cluster,
        tables={name: TableFacts(*row) for name, *row in tables},
        settings=dict(settings),
    )
