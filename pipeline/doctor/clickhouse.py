"""Looking at ClickHouse: reachable, new enough, migrated, as the protocol needs it; and its clock."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from clickhouse_driver.errors import ServerException

from adledger.pipeline.addresses import EmbeddedAddress, ServerAddress
from adledger.pipeline.doctor.report import Check
from adledger.pipeline.doctor.rules import NO_TABLES, RulesFacts, read_tables
from adledger.pipeline.errors import SinkError
from adledger.pipeline.findings import Finding
from adledger.pipeline.settings import Settings
from adledger.schemas import migrate
from adledger.sinks.checks import check_server, missing_grants, too_old
from adledger.sinks.connection import Client
from adledger.sinks.periods import close_delays, delay_findings
from adledger.sinks.refused import query_refused

AREA = "clickhouse"


@dataclass(slots=True)
class ServerInspection:
    """What was found. `address` is set if the server has tables; `ahead_ms` is how far its clock is ahead of ours.

    `rules` is None if the server can't be read.
    """

    checks: list[Check] = field(default_factory=list)
    address: ServerAddress | None = None
    ahead_ms: int | None = None
    window_events: int = 0
    rules: RulesFacts | None = NO_TABLES


def inspect_server(client: Client, settings: Settings) -> ServerInspection:
    """Inspect a server. Raises SinkError if it does not answer or refuses the queries."""
    seen = ServerInspection()
    try:
        version = str(client.execute("SELECT version()")[0][0])
        seen.checks.append(Check(AREA, f"{client.address}: ClickHouse {version} answers"))
        if refused := too_old(version):
            not_made = "migrations, settings and clock need a newer one"
            seen.checks.append(Check(AREA, "version", refused, not_made=not_made))
            seen.rules = None
            return seen
        recorded = migrate.recorded(client, settings.database)
        seen.checks.append(_migrations(recorded, settings))
        if recorded:
            found = check_server(client, settings.database, settings.cluster)
            seen.checks.append(
                Check(
                    AREA,
                    "version, deadlines, partitions, fsync and insert settings",
                    [Finding(f.message, f.remedy) for f in found],
                )
            )
            seen.checks.append(_grants(client, settings))
            seen.checks.extend(_close_delay(client, settings, len(recorded)))
            seen.window_events = _window_events(client, settings)
            seen.rules = read_tables(client, settings.database)
            seen.address = client.address
        seen.ahead_ms = _ahead_ms(client)
    except ServerException as error:
        raise query_refused(error) from None
    return seen


def no_directory_yet(settings: Settings) -> ServerInspection | None:
    """Return what there is to say of an embedded server whose directory the first run makes; else None."""
    address = settings.clickhouse
    if not isinstance(address, EmbeddedAddress) or address.directory.exists():
        return None
    return ServerInspection([Check(AREA, f"{address}: not there yet, the first `adledger run` makes it")])


def _grants(client: Client, settings: Settings) -> Check:
    """Return which grants of pipeline_writer this user lacks."""
    user = client.address.user
    findings = [
        Finding(f"the user {user} lacks {grant}", f"GRANT {grant} TO {user}; or the role: adledger roles sql")
        for grant in missing_grants(client, settings.database, settings.cluster)
    ]
    return Check(AREA, f"grants of {user}", findings)


def _migrations(recorded: list[tuple[int, str]], settings: Settings) -> Check:
    known = migrate.load()
    what = f"database {settings.database}: {len(recorded)} of {len(known)} migrations"
    try:
        lacking = migrate.pending(known, recorded, settings.database)
    except SinkError as error:
        return Check(AREA, what, [Finding(error.message, error.remedy)])
    if not lacking:
        return Check(AREA, what)
    numbers = ", ".join(f"{m.version:04} {m.name}" for m in lacking)
    message = (
        f"not applied to database {settings.database} yet: {numbers}; a worker applies them when it starts"
    )
    return Check(AREA, what, [Finding(message, "adledger migrate", advice=True)])


def _close_delay(client: Client, settings: Settings, migrations: int) -> Iterator[Check]:
    """Yield whether the setting is the database's, where its migrations are this release's."""
    if migrations < len(migrate.load()):
        return
    minutes = settings.period_close_delay_minutes
    what = f"periods close {minutes} minutes after their end"
    try:
        delays = close_delays(client, settings.database)
    except SinkError as error:
        yield Check(AREA, what, [Finding(error.message, error.remedy)])
    else:
        yield Check(AREA, what, delay_findings(delays, settings.database, minutes))


def _window_events(client: Client, settings: Settings) -> int:
    """Return how many records the dedupe window holds now, by the ledger."""
    rows = client.execute(
        f"SELECT sum(records_received) FROM {settings.database}.ledger "  # noqa: S608 - the setting is a checked name
        f"WHERE clock_after > (SELECT max(clock_after) FROM {settings.database}.ledger) "
        "- toIntervalHour(%(hours)s)",
        {"hours": settings.dedupe_window_hours},
    )
    return int(rows[0][0] or 0)


def _ahead_ms(client: Client) -> int:
    """Return the server's clock less ours, taken in mid-query."""
    before = time.time()
    server_ms = int(client.execute("SELECT toUnixTimestamp64Milli(now64(3))")[0][0])
    return round(server_ms - (before + time.time()) * 500)
