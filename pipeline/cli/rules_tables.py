"""Reading and writing the tables `rules`, `alerts` and `judges` for one command."""

# ruff: noqa: S608 - names of tables are settings with a pattern, numbers are formatted as integers

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adledger.pipeline.cli import connect
from adledger.pipeline.errors import UsageError
from adledger.pipeline.lanes.rules_in_force import standing
from adledger.pipeline.rules.loader import PUBLISHED, load_rules, shipped_name
from adledger.pipeline.rules.rule_set import RuleSet
from adledger.sinks.rules import (
    ALERT_COLUMNS,
    AlertKind,
    AlertRow,
    PublishedRules,
    alert_row,
    alert_values,
    alerts_sql,
    published_row,
    published_sql,
)

if TYPE_CHECKING:
    from adledger.pipeline.settings import Settings
    from adledger.sinks.connection import Client

HISTORY_ROWS_MAX = 1_000
VERSION_DIGITS = 16


@dataclass(frozen=True, slots=True)
class RulesTables:
    """The tables of one database, over a connection. Raises what the connection raises."""

    client: "Client"
    database: str

    def history(self, rows_max: int = HISTORY_ROWS_MAX) -> list[PublishedRules]:
        """Return the published sets, the newest first."""
        return [published_row(row) for row in self._rows(published_sql(self.database, rows_max))]

    def publish(self, rules: RuleSet, text: str, author: str, reason: str) -> PublishedRules:
        """Add a set, and return its row."""
        self._insert(
            "rules", ("version", "text", "author", "reason"), [(rules.version, text, author, reason)]
        )
        return self.history(1)[0]

    def alerts(self, rows_max: int) -> list[AlertRow]:
        """Return the last alerts, oldest first."""
        rows = self._rows(f"SELECT * FROM ({alerts_sql(self.database)} DESC LIMIT {rows_max:d})")
        return [alert_row(row) for row in reversed(rows)]

    def alerts_of(self, rules_version: int) -> list[AlertRow]:
        """Return the breaches and resumptions of one published set, oldest first."""
        where = f"rules_version = {rules_version:d} AND kind != '{AlertKind.REFUSED}'"
        return [alert_row(row) for row in self._rows(alerts_sql(self.database, where))]

    def add_alert(self, alert: AlertRow) -> None:
        """Add an alert."""
        self._insert("alerts", ALERT_COLUMNS, [alert_values(alert)])

    def in_force(self) -> dict[int, int]:
        """Return lane -> version of the published set that evaluated its last batch."""
        rows = self._rows(
            "SELECT lane, any(j.rules_version) FROM "
            f"(SELECT lane, argMax(judge_version, batch_no) AS version FROM {self.database}.ledger GROUP BY lane) AS l "
            f"INNER JOIN {self.database}.judges AS j ON j.version = l.version GROUP BY lane ORDER BY lane"
        )
        return {int(lane): int(version) for lane, version in rows}

    def demoted(self, in_force: Mapping[int, int]) -> dict[str, dict[int, list[int]]]:
        """Return rule name -> set version -> the lanes in which guardrails have demoted that rule of the set in force."""
        found: dict[str, dict[int, list[int]]] = {}
        for version in sorted(set(in_force.values())):
            alerts = self.alerts_of(version)
            for lane, evaluated_by in in_force.items():
                for rule in sorted(standing(alerts, lane).demoted) if evaluated_by == version else ():
                    found.setdefault(rule.name, {}).setdefault(version, []).append(lane)
        return found

    def read(self, name: str) -> tuple[RuleSet, str]:
        """Return a set and its text: `published` (the newest; the shipped one if there is none) or a version.

        Raises UsageError.
        """
        for found in self.history():
            if name == PUBLISHED or found.version == int(name, 16):
                return RuleSet.parse(found.text, f"rules {found.version:016x}"), found.text
        if name == PUBLISHED:
            shipped = load_rules(shipped_name(name))
            return shipped, shipped.text()
        raise UsageError(f"no rule set {name} is published", remedy="adledger rules history")

    def _rows(self, query: str) -> list[Any]:
        rows: list[Any] = self.client.execute(query)
        return rows

    def _insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.client.execute(
            f"INSERT INTO {self.database}.{table} ({', '.join(columns)}) VALUES",
            rows,
            settings={"async_insert": 0},
        )


def read_named(settings: "Settings", name: str) -> tuple[RuleSet, str]:
    """Return a rule set and its text by the name that an operator gives: a file, or a name of `RulesTables.read`.

    Raises UsageError.
    """
    if not needs_tables(name):
        found = load_rules(name)
        return found, found.text()
    with connect.client(settings) as client:
        return RulesTables(client, settings.database).read(name)


def needs_tables(name: str) -> bool:
    """Return whether a rule set of this name is stored in ClickHouse."""
    return name == PUBLISHED or (len(name) == VERSION_DIGITS and all(c in "0123456789abcdef" for c in name))
