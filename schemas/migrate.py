"""Table migrations: numbered SQL files, applied in order, once each, recorded in `schema_migrations`.

A file may hold several statements. Each can run again without harm (a test checks it), so that an interrupted
migration, or two workers that migrate at once, end with the same tables. Never edit a released file: add a new one.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from adledger.pipeline.errors import SinkError
from adledger.schemas.cluster import check_cluster
from adledger.schemas.periods import CLOSE_DELAY_MINUTES
from adledger.schemas.statements import Target, render

FOLDER = Path(__file__).parent / "migrations"
NEW_DATABASE = Path(__file__).parent / "new_database"
"""Tables in a form that no migration can give them where they exist, such as another order. A database without any migration
gets them before the first, whose CREATE TABLE IF NOT EXISTS then changes nothing."""

_RECORD = """
CREATE TABLE IF NOT EXISTS {database}.schema_migrations {on_cluster}
(
    version UInt32,
    name String,
    checksum String COMMENT 'sha256 of the file',
    applied_at DateTime64(3, 'UTC') DEFAULT now64(3, 'UTC'),
    release String
)
ENGINE = {merge_tree_of_all_shards}
ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
"""
_FILE_NAME = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")


class MigrationClient(Protocol):
    """What migrating needs from clickhouse-driver's client."""

    def execute(self, query: str, params: Any = None, **options: Any) -> Any:
        """Run one statement, or insert `params`; returns the rows of a SELECT."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: `version` is its number, `checksum` the SHA-256 of its text with newlines as they are on Unix."""

    version: int
    name: str
    sql: str
    checksum: str

    @property
    def file_name(self) -> str:
        """Name of the file it came from."""
        return f"{self.version:04}_{self.name}.sql"


@dataclass(frozen=True, slots=True)
class Applied:
    """One migration that was applied now (or would be, in a dry run), with the statements as they were run."""

    version: int
    name: str
    statements: tuple[str, ...]


def load(folder: Path = FOLDER) -> list[Migration]:
    """Return the migrations in order. Raises ValueError unless they are numbered 0001, 0002 ... without a gap."""
    migrations = []
    for number, path in enumerate(sorted(folder.glob("*.sql")), start=1):
        named = _FILE_NAME.fullmatch(path.name)
        if named is None or int(named.group(1)) != number:
            raise ValueError(f"{path}: expected {number:04}_name.sql")
        sql = path.read_text("utf-8").replace("\r\n", "\n")
        checksum = hashlib.sha256(sql.encode()).hexdigest()
        migrations.append(Migration(number, named.group(2), sql, checksum))
    return migrations


def pending(
    migrations: Sequence[Migration], recorded: Sequence[tuple[int, str]], database: str
) -> list[Migration]:
    """Return the migrations that are not recorded yet; `recorded` holds (version, checksum).

    Raises SinkError when a recorded one has been edited, or is not known to this release.
    """
    known = {m.version: m for m in migrations}
    for version, checksum in recorded:
        if version not in known:
            raise SinkError(
                f"database {database} is at migration {version}; this release knows {len(known)}",
                remedy="run the release that migrated it, or a newer one",
            )
        if known[version].checksum != checksum:
            raise SinkError(
                f"schemas/migrations/{known[version].file_name} was applied to database {database} and edited since",
                remedy="restore the file as it was released; put the change into a new migration",
            )
    done = {version for version, _ in recorded}
    return [m for m in migrations if m.version not in done]


def migrate(
    client: MigrationClient,
    *,
    database: str,
    cluster: str | None = None,
    release: str,
    dry_run: bool = False,
    migrations: Sequence[Migration] | None = None,
    close_delay_minutes: int = CLOSE_DELAY_MINUTES,
) -> list[Applied]:
    """Bring the database to this release's tables; return what was applied, in order.

    A database without a close delay for its periods is given this one.

    The client must be connected to a database that exists (`default`), as this one may not yet. A dry run changes
    nothing. Raises SinkError as `pending` and `check_cluster` do, and what the client raises.
    """
    target = Target(database, cluster)
    applied = recorded(client, database)
    todo = pending(load() if migrations is None else migrations, applied, database)
    plan = [Applied(m.version, m.name, tuple(render(m.sql, target))) for m in todo]
    if plan and not applied:
        plan[0] = replace(plan[0], statements=(*new_tables(target), *plan[0].statements))
    if dry_run:
        return plan
    if plan:
        if cluster is not None:
            check_cluster(client, cluster)
        for statement in bootstrap(target):
            client.execute(statement)
    for migration, step in zip(todo, plan, strict=True):
        for statement in step.statements:
            client.execute(statement)
        row = (migration.version, migration.name, migration.checksum, release)
        client.execute(
            f"INSERT INTO {database}.schema_migrations (version, name, checksum, release) VALUES",
            [row],
            settings={"async_insert": 0},
        )
    _write_first_close_delay(client, database, close_delay_minutes)
    return plan


def bootstrap(target: Target) -> list[str]:
    """Return the statements that run before every migration: the database and the record of migrations."""
    return render("CREATE DATABASE IF NOT EXISTS {database} {on_cluster};" + _RECORD, target)


def new_tables(target: Target) -> list[str]:
    """Return the statements that only a new database gets, before its first migration."""
    return [s for path in sorted(NEW_DATABASE.glob("*.sql")) for s in render(path.read_text("utf-8"), target)]


def recorded(client: MigrationClient, database: str) -> list[tuple[int, str]]:
    """Return (version, checksum) of every migration that was applied; none where there is no such database yet."""
    if not _has_table(client, database, "schema_migrations"):
        return []
    rows = client.execute(
        f"SELECT DISTINCT version, checksum FROM {database}.schema_migrations ORDER BY version"  # noqa: S608
    )
    return [(int(version), str(checksum)) for version, checksum in rows]


def _write_first_close_delay(client: MigrationClient, database: str, minutes: int) -> None:
    """Give a database without one the delay of all its periods. Of two rows written at once the first one holds."""
    if not _has_table(client, database, "period_settings"):  # migrated to an earlier release's tables
        return
    rows = client.execute(f"SELECT count() FROM {database}.period_settings")  # noqa: S608
    if not rows[0][0]:
        client.execute(
            f"INSERT INTO {database}.period_settings (effective_from_period, period_close_delay_minutes) VALUES",
            [(datetime.fromtimestamp(0, UTC), minutes)],
            settings={"async_insert": 0},
        )


def _has_table(client: MigrationClient, database: str, table: str) -> bool:
    found = client.execute(
        "SELECT count() FROM system.tables WHERE database = %(database)s AND name = %(table)s",
        {"database": database, "table": table},
    )
    return bool(found[0][0])
