"""Who may do what with which table: one source for the SQL, for users.xml, and for what `doctor` checks.

Add a new table or view to ACCESS together with its migration; a test fails until it is there.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape

WRITER, BILLING, FRAUD, OPERATOR, PUBLISHER = (
    "pipeline_writer", "billing_reader", "fraud_analyst", "operator", "publisher",
)  # fmt: skip

ROLES: Mapping[str, str] = {
    WRITER: "workers, closings, and the retention job: writes batches and finals, changes no final; creates no table",
    BILLING: "invoices: final sums, adjustments, rollups and the ledger; no users, addresses or raw events",
    FRAUD: "investigations: reads everything, dead letters' bytes too; writes nothing",
    OPERATOR: "lane and period overrides, rule sets and publishers: sees counts, positions, reasons of dead letters and digests, no raw events",
    PUBLISHER: "one publisher's statement, by a row policy on its id; no rules and no reasons",
}
"""Role -> what it is for."""

SELECT, INSERT = "SELECT", "INSERT"
CLEAR = "ALTER DELETE"
"""Removes what a lane override names, and the days that retention drops."""

POSITION = "SELECT(lane, batch_no, send_by, topic, offset, log_time, lane_clock)"
"""A record's position in the log, and nothing of its content."""

_READ = (SELECT,)
_WRITTEN = (SELECT, INSERT)
_ALL_READERS = {BILLING: _READ, FRAUD: _READ, OPERATOR: _READ}

ACCESS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "events": {WRITER: (SELECT, INSERT, CLEAR), FRAUD: _READ, OPERATOR: (POSITION, "SELECT(id_hash)")},
    "dead_letters": {
        WRITER: (SELECT, INSERT, CLEAR),
        FRAUD: _READ,
        OPERATOR: (POSITION, "SELECT(records, reason_code)"),
    },
    "rollup_minute": {WRITER: (SELECT, INSERT, CLEAR), **_ALL_READERS, PUBLISHER: _READ},
    "ledger": {WRITER: _WRITTEN, **_ALL_READERS},
    "user_agents": {WRITER: (SELECT, INSERT, CLEAR), FRAUD: _READ},
    "pages": {WRITER: (SELECT, INSERT, CLEAR), FRAUD: _READ},
    "lane_orders": {WRITER: _READ, FRAUD: _READ, OPERATOR: _WRITTEN},
    "retention_log": {WRITER: _WRITTEN, **_ALL_READERS},
    "rules": {WRITER: _READ, FRAUD: _READ, OPERATOR: _WRITTEN},
    "publishers": {WRITER: _READ, FRAUD: _READ, OPERATOR: _WRITTEN},
    "judges": {WRITER: _WRITTEN, FRAUD: _READ, OPERATOR: _READ},
    "alerts": {WRITER: _WRITTEN, FRAUD: _READ, OPERATOR: _WRITTEN},
    "period_settings": {WRITER: _READ, **_ALL_READERS},
    "closings": {WRITER: _WRITTEN, **_ALL_READERS},
    "publisher_periods": {WRITER: _WRITTEN, **_ALL_READERS},
    "adjustments": {WRITER: _WRITTEN, **_ALL_READERS},
    "period_books": {WRITER: _WRITTEN, **_ALL_READERS},
    "period_overrides": {WRITER: _READ, BILLING: _READ, FRAUD: _READ, OPERATOR: _WRITTEN},
    "schema_migrations": {WRITER: _READ, FRAUD: _READ, OPERATOR: _READ, BILLING: _READ},
    "v_events": {FRAUD: _READ},
    "v_events_of_ip": {FRAUD: _READ},
    "v_rollup_minute": {BILLING: _READ, FRAUD: _READ, OPERATOR: _READ},
    "v_ledger": {BILLING: _READ, FRAUD: _READ, OPERATOR: _READ},
    "v_reasons": {FRAUD: _READ},
    "v_duplicate_conflicts": {FRAUD: _READ},
    "v_statement": {BILLING: _READ, FRAUD: _READ, PUBLISHER: _READ},
    "v_closings": {WRITER: _READ, **_ALL_READERS},
    "v_publisher_periods": dict(_ALL_READERS),
    "v_adjustments": dict(_ALL_READERS),
    "v_batch_digests": {WRITER: _READ, FRAUD: _READ, OPERATOR: _READ},
}
"""Table or view -> role -> its privileges. With a cluster, `TABLE_all` is granted as TABLE is."""

SYSTEM: Mapping[str, tuple[str, ...]] = {
    "system.tables": (WRITER, FRAUD, OPERATOR),
    "system.columns": (WRITER, FRAUD, OPERATOR),
    "system.settings": (WRITER, FRAUD, OPERATOR),
    "system.processes": (WRITER, OPERATOR),
    "system.parts": (WRITER,),
}
"""System table -> the roles that read it: a server may be configured to require a grant for these too."""

SHARDED = frozenset(
    {"events", "dead_letters", "rollup_minute", "ledger", "user_agents", "pages", "retention_log"}
)
"""Tables that have a Distributed one beside them on a cluster."""

ROW_POLICY_TABLE = "rollup_minute"

ACCESS_DENIED = 497
"""The server's code for a missing grant."""

_LACKING = re.compile(
    r"(?P<user>[^\s:]+): Not enough privileges\..*?the grants? (?P<grant>.+? ON (?P<table>[\w`]+(?:\.[\w`*]+)?))"
)

ALL_COLUMNS = frozenset({"*"})
"""The columns of a privilege that names none."""


@dataclass(frozen=True, slots=True)
class RoleTarget:
    """Where roles are granted: a database, a cluster, and the publishers that log in themselves."""

    database: str
    cluster: str | None = None
    publishers: tuple[int, ...] = ()


def grants(role: str, target: RoleTarget) -> list[str]:
    """Return what a role is granted, as `GRANT PRIVILEGES ON DATABASE.TABLE`."""
    return [
        *(f"GRANT {', '.join(privileges)} ON {place}" for place, privileges in _granted(role, target)),
        *(f"GRANT SELECT ON {table}" for table, roles in SYSTEM.items() if role in roles),
        *(["GRANT REMOTE ON *.*"] if target.cluster is not None else []),
        *(["GRANT KILL QUERY ON *.*"] if role == WRITER else []),
    ]


def single_grants(role: str, target: RoleTarget) -> list[str]:
    """Return what a role is granted, one privilege each, as `PRIVILEGE ON TABLE`."""
    tables = [(p, place) for place, privileges in _granted(role, target) for p in privileges]
    return [
        *(f"{privilege} ON {place}" for privilege, place in tables),
        *(f"SELECT ON {table}" for table, granted in SYSTEM.items() if role in granted),
    ]


def roles_with(privileges: str, table: str) -> list[str]:
    """Return the roles that have all of `privileges` (`SELECT(a, b)` or `SELECT`) on `DATABASE.TABLE`."""
    wanted = _columns_by_kind(privileges)
    name = table.rpartition(".")[2]
    of_table = ACCESS.get(name) or ACCESS.get(name.removesuffix("_all"), {})
    granted = {role: _columns_by_kind(", ".join(has)) for role, has in of_table.items()}
    granted |= {role: {SELECT: ALL_COLUMNS} for role in SYSTEM.get(table, ())}
    return [role for role in ROLES if role in granted and _covers(granted[role], wanted)]


def grant_remedy(message: str) -> str:
    """Return what to do about a missing grant: a role of `adledger roles` that has it, or the grant alone."""
    lacking = _LACKING.search(message)
    if lacking is None:
        return "use a user that may do this: `adledger roles sql` prints the roles"
    user, grant = lacking["user"], lacking["grant"]
    roles = roles_with(grant.rpartition(" ON ")[0], lacking["table"])
    if not roles:
        return f"use an administrator's user: no role of `adledger roles sql` has {grant}"
    return (
        f"use a user with the role {' or '.join(roles)} (`adledger roles sql` prints it); "
        f"or GRANT {grant} TO {user}"
    )


def _columns_by_kind(privileges: str) -> dict[str, frozenset[str]]:
    """Return kind of privilege -> its columns; ALL_COLUMNS where none are named."""
    found: dict[str, frozenset[str]] = {}
    privileges = privileges.replace("SHOW COLUMNS", SELECT)  # SELECT implies it
    for kind, columns in re.findall(r"([A-Z][A-Z ]*[A-Z])(?:\(([^)]*)\))?", privileges):
        named = frozenset(columns.split(", ")) if columns else ALL_COLUMNS
        before = found.get(kind, named)
        found[kind] = ALL_COLUMNS if ALL_COLUMNS in (before, named) else before | named
    return found


def _covers(granted: Mapping[str, frozenset[str]], wanted: Mapping[str, frozenset[str]]) -> bool:
    return all(
        kind in granted
        and (granted[kind] == ALL_COLUMNS or (columns != ALL_COLUMNS and columns <= granted[kind]))
        for kind, columns in wanted.items()
    )


def _granted(role: str, target: RoleTarget) -> Iterator[tuple[str, tuple[str, ...]]]:
    for table, roles in ACCESS.items():
        if role in roles:
            yield f"{target.database}.{table}", roles[role]
            if target.cluster is not None and table in SHARDED:
                yield f"{target.database}.{table}_all", tuple(p for p in roles[role] if p.startswith(SELECT))


def sql(target: RoleTarget) -> list[str]:
    """Return the statements that create the roles and grant their privileges; running them again changes nothing."""
    everywhere = f" ON CLUSTER {target.cluster}" if target.cluster is not None else ""
    statements = []
    for role, purpose in ROLES.items():
        statements.append(f"-- {role}: {purpose}\nCREATE ROLE IF NOT EXISTS {role}{everywhere}")
        statements += [
            f"{grant.replace('GRANT', f'GRANT{everywhere}', 1)} TO {role}" for grant in grants(role, target)
        ]
    if target.publishers:
        table = f"{target.database}.{ROW_POLICY_TABLE}"
        whole = ", ".join(role for role in ROLES if role != PUBLISHER)
        statements.append(
            f"CREATE ROW POLICY IF NOT EXISTS adledger_whole{everywhere} ON {table} USING 1 TO {whole}"
        )
    for number in target.publishers:
        name = publisher_name(number)
        statements += [
            f"CREATE ROLE IF NOT EXISTS {name}{everywhere}",
            f"GRANT{everywhere} {PUBLISHER} TO {name}",
            f"CREATE ROW POLICY IF NOT EXISTS {name}{everywhere} ON {table} USING publisher_id = {number:d} TO {name}",
        ]
    return statements


def publisher_name(number: int) -> str:
    """Return the name of a publisher's own role (SQL) or user (users.xml)."""
    return f"publisher_{number:d}"


def users_xml(target: RoleTarget) -> str:
    """Return the roles as a file for users.d; publishers are users there, since a row policy in XML is a user's."""
    roles = "".join(_xml_role(role, target) for role in ROLES)
    users = "".join(_xml_publisher(number, target.database) for number in target.publishers)
    return (
        f"<clickhouse>\n  <roles>\n{roles}  </roles>\n"
        + (f"  <users>\n{users}  </users>\n" if users else "")
        + "</clickhouse>"
    )


def _xml_role(role: str, target: RoleTarget) -> str:
    queries = "".join(
        f"        <query>{escape(grant, quote=False)}</query>\n" for grant in grants(role, target)
    )
    return (
        f"    <!-- {ROLES[role]} -->\n    <{role}>\n      <grants>\n{queries}      </grants>\n    </{role}>\n"
    )


def _xml_publisher(number: int, database: str) -> str:
    name = publisher_name(number)
    return (
        f"    <{name}>\n      <!-- give it a password: <password_sha256_hex> -->\n      <no_password/>\n"
        "      <networks><ip>::1</ip><ip>127.0.0.1</ip></networks>\n"
        "      <profile>default</profile>\n      <quota>default</quota>\n"
        f"      <grants><query>GRANT {PUBLISHER}</query></grants>\n"
        f"      <databases><{database}><{ROW_POLICY_TABLE}><filter>publisher_id = {number:d}</filter>"
        f"</{ROW_POLICY_TABLE}></{database}></databases>\n    </{name}>\n"
    )
