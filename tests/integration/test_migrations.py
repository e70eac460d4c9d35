"""The migrations on the engine: the tables are those of `schemas/tables.py`, and are created once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from clickhouse_driver.errors import ServerException

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import SinkError
from adledger.schemas.classes import CLASS_NAMES, Reason
from adledger.schemas.migrate import Applied, bootstrap, load, migrate, new_tables
from adledger.schemas.statements import Target, render
from adledger.schemas.tables import PROTOCOL_COLUMNS, TEXT_COLUMNS
from adledger.schemas.wire import EventType, Flag, Malformed, country_code, currency_code
from adledger.sinks.checks import check_server
from adledger.sinks.connection import Client, connect
from adledger.sinks.embedded.launch import EmbeddedServer

STORED_TYPES = {
    "u1": "UInt8",
    "u2": "UInt16",
    "u4": "UInt32",
    "u8": "UInt64",
    "i4": "Int32",
    "i8": "Int64",
    "O": "String",
}
TIMES = {"Int64": "DateTime64(3, 'UTC')", "UInt32": "DateTime('UTC')"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as running:
        yield ServerAddress(running.host, running.port, running.http_port)


@pytest.fixture
def client(server: ServerAddress) -> Iterator[Client]:
    with connect(server) as client:
        yield client


@pytest.fixture(scope="module")
def database(server: ServerAddress) -> str:
    with connect(server) as client:
        migrate(client, database="migrated", release="0.0.1")
    return "migrated"


def stored_type(dtype: str) -> set[str]:
    """Return the SQL types that may hold a column of a numpy dtype."""
    if dtype.startswith("["):
        return {f"Array({STORED_TYPES[dtype[1:-1]]})"}
    plain = STORED_TYPES[dtype]
    return {plain, TIMES.get(plain, plain)}


def insert(client: Client, table: str, rows: int = 1, **columns: int | str) -> None:
    """Insert rows made of SQL expressions; `number` counts them."""
    client.execute(
        f"INSERT INTO {table} ({', '.join(columns)}) SELECT {', '.join(str(v) for v in columns.values())} "
        f"FROM numbers({rows}) SETTINGS async_insert = 0"
    )


@pytest.mark.parametrize("table", [*PROTOCOL_COLUMNS, *TEXT_COLUMNS])
def test_the_tables_have_the_columns_that_are_written(client: Client, database: str, table: str) -> None:
    """Every stored column without a default is one that the sink writes, of its type, and vice versa."""
    found = client.execute(
        "SELECT name, type, default_kind FROM system.columns "
        "WHERE database = %(d)s AND table = %(t)s AND default_kind IN ('', 'DEFAULT')",
        {"d": database, "t": table},
    )
    expected = {**PROTOCOL_COLUMNS, **TEXT_COLUMNS}[table]
    types = {name: sql_type for name, sql_type, _ in found}
    assert {name for name, _, default in found if not default} <= set(expected) <= types.keys()
    for name, dtype in expected.items():
        assert types[name] in stored_type(dtype), name


def test_names_in_sql_are_the_codes_of_the_contract(client: Client, database: str) -> None:
    """Classes, event types and reasons of dead letters are Enums with exactly our numbers."""
    columns = client.execute(
        "SELECT table, name, type FROM system.columns WHERE database = %(d)s AND default_kind = 'ALIAS'",
        {"d": database},
    )
    types = {(table, name): sql_type for table, name, sql_type in columns}

    def enum(names: dict[str, int]) -> str:
        return "Enum8(" + ", ".join(f"'{name}' = {code}" for name, code in names.items()) + ")"

    classes = enum({name: int(code) for code, name in CLASS_NAMES.items()})
    kinds = enum({kind.name.lower(): int(kind) for kind in EventType})
    for table in ("events", "rollup_minute"):
        assert types[table, "class"] == classes
        assert types[table, "event_type"] == kinds
    assert types["dead_letters", "reason"] == enum({reason.name.lower(): int(reason) for reason in Malformed})


def test_reasons_in_v_events_are_the_contracts(client: Client, database: str) -> None:
    """Each bit has its Reason's name, and an unknown bit is shown by number."""
    (query,) = client.execute(
        "SELECT create_table_query FROM system.tables WHERE database = %(d)s AND name = 'v_events'",
        {"d": database},
    )[0]
    numbers = ", ".join(str(int(reason)) for reason in Reason)
    names = ", ".join(f"'{reason.name}'" for reason in Reason)
    assert f"[{numbers}]" in query
    assert f"[{names}]" in query


def test_v_events_says_what_the_numbers_mean(client: Client, database: str) -> None:
    """It shows codes, flags, address, money and dimension strings of an event in readable form."""
    flags = 1 << Flag.HAS_WIDTH | 1 << Flag.PREFETCH | 1 << Flag.MISROUTED | 1 << Flag.PAGE_TRUNCATED
    reasons = 1 << Reason.MISROUTED | 1 << Reason.PERIODIC | 1 << 63
    insert(
        client, f"{database}.events", lane=1, send_by=4_000_000_000, event_type_code=2,
        event_time="'2026-01-02 03:04:05.678'", currency_code=currency_code("EUR"), country_code=country_code("DE"),
        ip_hi=0x20010DB800000000, ip_lo=1, width_px=300, height_px=250, flags=flags, class_code=4, reasons=reasons,
        money_nanos=-1, ua_hash=7, page_hash=8,
    )  # fmt: skip
    client.execute(f"INSERT INTO {database}.user_agents SELECT 7, 'Mozilla' FROM numbers(2)")
    (row,) = client.execute(
        "SELECT event_type, class, reasons, toString(money), currency, country, toString(ip), width, height, "
        "is_prefetch, is_test, misrouted, user_agent, page_url, toString(event_time), user_agent_truncated, "
        f"page_url_truncated FROM {database}.v_events"
    )
    assert row == (
        "click", "sivt", ["MISROUTED", "PERIODIC", "BIT_63"], "-0.000000001", "EUR", "DE", "2001:db8::1", 300, None,
        True, False, True, "Mozilla", "", "2026-01-02 03:04:05.678", False, True,
    )  # fmt: skip
    of_ip = (
        f"SELECT user_agent_truncated, page_url_truncated FROM {database}.v_events_of_ip(ip = '2001:db8::1')"
    )
    of_table = f"SELECT user_agent_truncated, page_url_truncated FROM {database}.events"
    assert client.execute(of_ip) == client.execute(of_table) == [(False, True)]


def test_views_sum_beyond_64_bits(client: Client, database: str) -> None:
    """Money of many rows is exact where Int64 would have overflowed, and the view keeps currencies separate."""
    greatest = 2**63 - 1
    for class_code in (1, 2):
        insert(
            client, f"{database}.rollup_minute", rows=20, lane=1, batch_no=1, send_by=4_000_000_000, publisher_id=9,
            minute=60, event_type_code=1, class_code=class_code, currency_code="1 + number % 2", records=5,
            money_nanos=greatest,
        )  # fmt: skip
    rows = client.execute(
        "SELECT currency, impressions, clicks, ctr, toDecimalString(money, 9), duplicates, toDecimalString(duplicate_money, 9) "
        f"FROM {database}.v_rollup_minute WHERE publisher_id = 9 ORDER BY currency"
    )
    total = f"{greatest * 10 // 10**9}.{greatest * 10 % 10**9}"
    assert rows == [("AAA", 50, 0, 0.0, total, 50, total), ("AAB", 50, 0, 0.0, total, 50, total)]


def test_migrating_twice_changes_nothing(client: Client) -> None:
    """The second run applies nothing; each migration is recorded once, with its checksum and release."""
    first = migrate(client, database="twice", release="1.2.3")
    assert [step.version for step in first] == [m.version for m in load()]
    assert migrate(client, database="twice", release="9") == []
    recorded = client.execute(
        "SELECT version, name, checksum, release FROM twice.schema_migrations ORDER BY version"
    )
    assert recorded == [(m.version, m.name, m.checksum, "1.2.3") for m in load()]


def test_a_dry_run_changes_nothing(client: Client) -> None:
    """It prints what it would do, to the statement, and does not even create the database."""
    plan = migrate(client, database="dry", release="1", dry_run=True)
    assert [step.version for step in plan] == [m.version for m in load()]
    assert any("CREATE TABLE IF NOT EXISTS dry.events" in s for step in plan for s in step.statements)
    assert client.execute("SELECT count() FROM system.databases WHERE name = 'dry'") == [(0,)]


def test_a_new_database_gets_its_tables_before_the_first_migration(client: Client) -> None:
    """Both forms of `events` have the same columns, of the same types; only order, codecs and indexes differ."""
    client.execute("CREATE DATABASE had_tables")
    for statement in render(load()[0].sql, Target("had_tables")):
        client.execute(statement)
    for database in ("had_tables", "is_new"):
        migrate(client, database=database, release="1")
        assert check_server(client, database) == []
    orders = client.execute(
        "SELECT database, sorting_key FROM system.tables WHERE name = 'events' AND database IN ('had_tables', 'is_new')"
    )
    assert dict(orders) == {
        "had_tables": "publisher_id, event_time",
        "is_new": "lane, batch_no, topic, offset",
    }
    had, new = (
        client.execute(
            "SELECT name, type, default_kind, default_expression, comment FROM system.columns "
            f"WHERE database = '{database}' AND table = 'events' ORDER BY position"
        )
        for database in ("had_tables", "is_new")
    )
    assert had == new


def test_a_database_that_is_there_keeps_its_tables(client: Client) -> None:
    """Only a database without any migration gets the new form: a later run leaves the order as it is."""
    known = load()
    client.execute("CREATE DATABASE kept")
    for statement in render(known[0].sql, Target("kept")):
        client.execute(statement)
    assert not any("by_publisher" in s for step in _after_the_first(client, "kept") for s in step.statements)


def _after_the_first(client: Client, database: str) -> list[Applied]:
    """Return the plan of a database in which only the first migration is recorded."""
    migrate(client, database=database, release="1", migrations=load()[:1])
    return migrate(client, database=database, release="1", dry_run=True)


def test_an_edited_migration_is_refused_before_anything_runs(client: Client) -> None:
    """A new one after an edited one is not applied either."""
    known = load()
    migrate(client, database="edited", release="1", migrations=known[:2])
    changed = [known[0], replace(known[1], checksum="other"), *known[2:]]
    with pytest.raises(SinkError, match="0002_rollup_minute"):
        migrate(client, database="edited", release="2", migrations=changed)
    assert client.execute("SELECT max(version) FROM edited.schema_migrations") == [(2,)]


def test_an_interrupted_migration_is_run_again(client: Client) -> None:
    """It is recorded only when all its statements ran; the next run begins with its first."""
    known = load()
    broken = replace(
        known[0], sql=known[0].sql + ";\nCREATE VIEW broken.v AS SELECT nonsense FROM broken.events"
    )
    with pytest.raises(ServerException):
        migrate(client, database="broken", release="1", migrations=[broken])
    assert [s.version for s in migrate(client, database="broken", release="1")] == [m.version for m in known]


def test_two_migrators_at_once_are_harmless(server: ServerAddress) -> None:
    """Both succeed, with every table there, and later runs find nothing to do."""

    def run() -> None:
        with connect(server) as client:
            migrate(client, database="both", release="1")

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(run) for _ in range(2)]:
            done.result()
    with connect(server) as client:
        assert migrate(client, database="both", release="1") == []
        assert check_server(client, "both") == []


def test_the_replicated_forms_are_sql(client: Client) -> None:
    """The engine parses them; running them takes a cluster. Every table but the record is also on all shards."""
    target = Target("db", cluster="main")
    statements = bootstrap(target) + [s for m in load() for s in render(m.sql, target)]
    for statement in statements + new_tables(target):
        client.execute(f"EXPLAIN AST {statement}")
    made = "\n".join(statements)
    for table in (*PROTOCOL_COLUMNS, *TEXT_COLUMNS):
        assert f"db.{table}_all ON CLUSTER main AS db.{table}" in made
    by_operators = (
        "lane_orders",
        "retention_log",
        "rules",
        "publishers",
        "period_settings",
    )  # by commands, beside the record of migrations
    by_evaluators = ("judges", "alerts")  # by workers, outside the protocol
    by_closings = ("closings", "publisher_periods", "adjustments", "period_overrides", "period_books")
    assert (
        made.count("= Replicated")
        == len(PROTOCOL_COLUMNS)
        + len(TEXT_COLUMNS)
        + len(by_operators)
        + len(by_evaluators)
        + len(by_closings)
        + 1
    )


def test_migrated_tables_have_no_findings(client: Client, database: str) -> None:
    """The migrations create what the protocol relies on."""
    assert check_server(client, database) == []


def test_a_database_that_is_not_migrated_is_found(client: Client) -> None:
    """Every missing table is named, with the command."""
    found = check_server(client, "nothing_here")
    assert len(found) == len(PROTOCOL_COLUMNS)
    assert {finding.remedy for finding in found} == {"adledger migrate"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("ALTER TABLE fixed.events DROP CONSTRAINT in_time", "no deadline"),
        ("ALTER TABLE fixed.ledger MODIFY SETTING fsync_after_insert = 0", "does not fsync"),
        ("ALTER TABLE fixed.events RESET SETTING min_free_disk_bytes_to_perform_insert", "its disk is full"),
        ("ALTER TABLE fixed.events MODIFY TTL toDateTime(lane_clock) + INTERVAL 1 DAY", "TTL"),
    ],
)
def test_the_statement_of_a_finding_fixes_it(client: Client, damage: str, message: str) -> None:
    """A manual change is found, and its remedy, run unchanged, leaves nothing to find."""
    migrate(client, database="fixed", release="1")
    client.execute(damage)
    (finding,) = check_server(client, "fixed")
    assert message in finding.message
    client.execute(finding.remedy)
    assert check_server(client, "fixed") == []
