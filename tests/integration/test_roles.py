"""The roles that `adledger roles` prints, on ClickHouse's own server: what each may and may not do."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from clickhouse_driver.errors import ServerException
from typer.testing import CliRunner

from adledger.loadtest.traffic.model import TrafficModel
from adledger.pipeline.cli.app import app
from adledger.pipeline.doctor.clickhouse import inspect_server
from adledger.pipeline.settings import Settings
from adledger.schemas import roles
from adledger.schemas.migrate import load
from adledger.schemas.roles import BILLING, FRAUD, OPERATOR, PUBLISHER, WRITER
from adledger.schemas.statements import Target, render
from adledger.schemas.tables import PROTOCOL_TABLES
from adledger.sinks.connection import connect
from tests.support.clickhouse_servers import AnyServer
from tests.support.role_server import as_user, role_server

MODEL = TrafficModel(seed=9, events=2_000, partitions=2, duration_hours=2, malformed_share=0.02)
NOT_GRANTED = 497
FIRST_PUBLISHER = 100_000
"""Stands for the publisher of the row policy: replaced by one that has rows."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnyServer]:
    """A server that a worker has filled, as pipeline_writer."""
    with role_server(tmp_path_factory.mktemp("roles"), MODEL, publishers=(FIRST_PUBLISHER,)) as running:
        yield running.server


def ask(server: AnyServer, user: str, query: str) -> list[tuple[object, ...]]:
    with connect(as_user(server, user)) as client:
        rows: list[tuple[object, ...]] = client.execute(query)
        return rows


def refused(server: AnyServer, user: str, query: str) -> None:
    with pytest.raises(ServerException) as error:
        ask(server, user, query)
    assert error.value.code == NOT_GRANTED, f"{user}: {query}: {error.value}"


def insert_of(table: str) -> str:
    return f"INSERT INTO adledger.{table} SELECT * FROM adledger.{table} LIMIT 0"


FINALS = ("closings", "publisher_periods", "adjustments")
"""What closing writes, and nobody changes."""

MAY = {
    WRITER: (
        *(f"INSERT INTO adledger.{t} (run_id) SELECT generateUUIDv4() WHERE 0" for t in FINALS),
        "SELECT count() FROM adledger.events", "SELECT name FROM system.tables WHERE database = 'adledger'",
    ),
    BILLING: (
        "SELECT sum(money) FROM adledger.v_rollup_minute", "SELECT count() FROM adledger.v_ledger",
        "SELECT sum(money) FROM adledger.v_statement", "SELECT sum(money) FROM adledger.v_publisher_periods",
        "SELECT sum(money) FROM adledger.v_adjustments", "SELECT count() FROM adledger.v_closings",
    ),
    FRAUD: (
        "SELECT user_agent, ip FROM adledger.v_events LIMIT 1", "SELECT value FROM adledger.dead_letters LIMIT 1",
        "SELECT count() FROM adledger.v_reasons", "SELECT text FROM adledger.rules",
    ),
    OPERATOR: (
        "SELECT digest, rows FROM adledger.v_batch_digests ORDER BY lane LIMIT 1",
        "SELECT lane, batch_no, max(offset) FROM adledger.events GROUP BY lane, batch_no",
        "SELECT offset, reason_code, records FROM adledger.dead_letters LIMIT 1",
        "INSERT INTO adledger.lane_orders (lane, batch_no, kind) SELECT 1, 1, 'adopt' WHERE 0",
        "INSERT INTO adledger.rules (version, text) SELECT 1, '' WHERE 0",
        "INSERT INTO adledger.period_overrides (lane, reason) SELECT 1, '' WHERE 0",
    ),
    PUBLISHER: ("SELECT class, sum(events), sum(money) FROM adledger.v_statement GROUP BY class",),
}  # fmt: skip
MAY_NOT = {
    WRITER: (
        "CREATE TABLE adledger.x (a UInt8) ENGINE = Memory", "DROP TABLE adledger.events", "TRUNCATE TABLE adledger.ledger",
        "ALTER TABLE adledger.ledger DELETE WHERE 1", "INSERT INTO adledger.rules (version) SELECT 1 WHERE 0",
        "INSERT INTO adledger.period_overrides (lane) SELECT 1 WHERE 0",
        *(f"ALTER TABLE adledger.{t} DELETE WHERE 1" for t in FINALS), *(f"TRUNCATE TABLE adledger.{t}" for t in FINALS),
        *(f"ALTER TABLE adledger.{t} UPDATE run_id = generateUUIDv4() WHERE 1" for t in FINALS),
        "ALTER TABLE adledger.events DROP CONSTRAINT in_time", "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    ),
    BILLING: (
        "SELECT user_hash FROM adledger.events", "SELECT ip_lo FROM adledger.events", "SELECT * FROM adledger.v_events",
        "SELECT value FROM adledger.dead_letters", "SELECT text FROM adledger.user_agents", "SELECT text FROM adledger.rules",
        *(f"INSERT INTO adledger.{t} (lane) SELECT 1 WHERE 0" for t in PROTOCOL_TABLES),
    ),
    FRAUD: (
        *(f"INSERT INTO adledger.{t} (lane) SELECT 1 WHERE 0" for t in (*PROTOCOL_TABLES, "lane_orders")),
        "INSERT INTO adledger.rules (version) SELECT 1 WHERE 0", "ALTER TABLE adledger.events DELETE WHERE 1",
    ),
    OPERATOR: (
        "SELECT user_hash FROM adledger.events", "SELECT ip_hi FROM adledger.events", "SELECT publisher_id FROM adledger.events",
        "SELECT * FROM adledger.v_events", "SELECT value FROM adledger.dead_letters", "SELECT key FROM adledger.dead_letters",
        "SELECT text FROM adledger.pages", "INSERT INTO adledger.ledger (lane) SELECT 1 WHERE 0",
        "ALTER TABLE adledger.events DELETE WHERE 1",
    ),
    PUBLISHER: (
        "SELECT reasons FROM adledger.events", "SELECT * FROM adledger.v_reasons", "SELECT text FROM adledger.rules",
        "SELECT * FROM adledger.judges", "SELECT * FROM adledger.ledger", "SELECT * FROM adledger.alerts",
    ),
}  # fmt: skip


@pytest.mark.parametrize("role", roles.ROLES)
def test_a_role_may_do_its_work_and_nothing_else(server: AnyServer, role: str) -> None:
    """Each query of its work is answered, and each beyond it is refused for lack of a grant."""
    for query in MAY[role]:
        ask(server, f"{role}_1", query)
    for query in MAY_NOT[role]:
        refused(server, f"{role}_1", query)


def test_a_worker_needs_no_more_than_the_writer(server: AnyServer) -> None:
    """The fixture's worker ran as pipeline_writer, with system tables behind grants, and its ledger is complete."""
    assert ask(
        server, "default", "SELECT sum(records_received) > 1900, sum(malformed) > 0 FROM adledger.ledger"
    ) == [(1, 1)]


def test_doctor_names_the_grants_that_are_missing(server: AnyServer) -> None:
    """None are missing for pipeline_writer; for another role each that a worker needs is named, with the statement that
    grants it.
    """

    def missing(user: str) -> list[str]:
        settings = Settings(clickhouse=as_user(server, user))
        with connect(as_user(server, user)) as client:
            checks = inspect_server(client, settings).checks
        (grants,) = (check for check in checks if check.what.startswith("grants of"))
        return [f"{finding.message} | {finding.remedy}" for finding in grants.findings]

    assert missing(f"{WRITER}_1") == []
    found = missing(f"{FRAUD}_1")
    assert any(
        "lacks INSERT ON adledger.events | GRANT INSERT ON adledger.events TO fraud_analyst_1" in f
        for f in found
    )
    assert not [f for f in found if "lacks SELECT ON adledger" in f]


def test_a_publisher_sees_its_own_rows_alone(server: AnyServer) -> None:
    """By the row policy a publisher's statement is its own, one without rows has none, and readers see all."""
    everyone = dict(
        ask(server, f"{BILLING}_1", "SELECT publisher_id, sum(events) FROM adledger.v_statement GROUP BY 1")
    )
    assert len(everyone) > 1
    (named,) = (n for (n,) in ask(server, "default", "SELECT name FROM system.users WHERE name LIKE 'publisher\\_%'")
                if n not in (f"{PUBLISHER}_1", f"publisher_{FIRST_PUBLISHER}"))  # fmt: skip
    number = int(str(named).removeprefix("publisher_"))
    own = ask(server, str(named), "SELECT publisher_id, sum(events) FROM adledger.v_statement GROUP BY 1")
    assert own == [(number, everyone[number])]
    assert ask(server, f"publisher_{FIRST_PUBLISHER}", "SELECT count() FROM adledger.v_statement") == [(0,)]


def test_every_table_and_view_is_in_access() -> None:
    """A new table is added to ACCESS with its migration; otherwise no role could read it."""
    made = set(re.findall(r"(?:TABLE IF NOT EXISTS|REPLACE VIEW) db\.(\w+)", "\n".join(
        s for m in load() for s in render(m.sql, Target("db")))))  # fmt: skip
    assert made | {"schema_migrations"} == set(roles.ACCESS)


@pytest.mark.parametrize("cluster", ["", "cluster=main"])
def test_the_sql_is_parsed_by_the_engine(server: AnyServer, tmp_path: Path, cluster: str) -> None:
    """CREATE ROLE can't run there, so every statement is only parsed, also those for a cluster."""
    (tmp_path / "adledger.toml").write_text('database = "adledger"\n' + (cluster and 'cluster = "main"\n'))
    arguments = ["roles", "sql", "--publisher", "42", "--config", str(tmp_path / "adledger.toml")]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0, printed.output
    statements = [s for s in printed.stdout.split(";\n") if s.strip()]
    assert len([s for s in statements if "CREATE ROLE" in s]) == len(roles.ROLES) + 1
    for statement in statements:
        ask(server, "default", f"EXPLAIN AST {re.sub('^--.*$', '', statement, flags=re.MULTILINE)}")
        assert ("ON CLUSTER main" in statement) is bool(cluster), statement


def test_digests_of_the_view_are_those_of_the_code(server: AnyServer) -> None:
    """Operators name rows by the digests that overrides are checked with."""
    from adledger.pipeline.stages import digest
    from adledger.schemas.digests import FIRST

    for table in digest.DIGESTED:
        counted = ask(
            server,
            "default",
            f"SELECT lane, batch_no, count(), {digest.sql(table, FIRST)} FROM adledger.{table} GROUP BY 1, 2",
        )
        rows = ask(
            server,
            f"{OPERATOR}_1",
            f"SELECT lane, batch_no, rows, digest FROM adledger.v_batch_digests WHERE table = '{table}'",
        )
        assert counted
        assert sorted(rows) == sorted(counted)
