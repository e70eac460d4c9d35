"""Rule sets, publishers, rule evaluators and alerts, as ClickHouse keeps them: append-only, outside the batch protocol."""

# ruff: noqa: S608 - names of tables are settings with a pattern, numbers are formatted as integers

import datetime as dt
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Protocol

from adledger.schemas.classes import Class

NO_LANE = -1
EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


class AlertKind(StrEnum):
    """What an alert reports."""

    BREACH = "breach"  # a rule left its bounds in a lane, and is flagged there
    RESUME = "resume"  # an operator lets a rule enforce again, in all lanes
    REFUSED = "refused"  # a published set that workers can't use


@dataclass(frozen=True, slots=True)
class PublishedRules:
    """One row of `rules`. `published_at`: microseconds since the epoch, by the server's clock."""

    version: int
    text: str
    author: str
    reason: str
    published_at: int


@dataclass(frozen=True, slots=True)
class AlertRow:
    """One row of `alerts`; `clock` is the watermark (ms), `raised_at` microseconds by the server's clock (0: not stored yet)."""

    kind: AlertKind
    rules_version: int
    rule: str = ""
    lane: int = NO_LANE
    batch_no: int = 0
    clock: int = 0
    currency_code: int = 0
    events: int = 0
    invalidated_nanos: int = 0
    money_nanos: int = 0
    share_min_ppm: int = 0
    share_max_ppm: int = 0
    author: str = ""
    what: str = ""
    raised_at: int = 0


@dataclass(frozen=True, slots=True)
class EvaluatorRow:
    """One row of `judges`: everything that an evaluator version depends on.

    `list_*` are parallel, `turned` names the demoted rules.
    """

    version: int
    rules_version: int
    turned: tuple[str, ...]
    rules: str
    enforced: int
    not_evaluated: Mapping[str, str]
    list_names: tuple[str, ...]
    list_versions: tuple[str, ...]
    list_contents: tuple[str, ...]
    list_usable: tuple[bool, ...]
    lists_version: str
    publishers_version: str
    logic_version: int
    release: str


@dataclass(frozen=True, slots=True)
class EvaluatedBatch:
    """A batch of the ledger, with the rules (bits) that its evaluator enforced, and sums of its evaluated events.

    `sums`: (minute of the watermark since the epoch, currency code, class code, reasons, events, money in nanos).
    """

    batch_no: int
    clock_after: int
    enforced: int
    sums: tuple[tuple[int, int, int, int, int, int], ...]


class RuleStore(Protocol):
    """What workers need from these tables. Raises SinkUnavailable, SinkError, and InsertUnknown in writing."""

    async def published(self) -> Sequence[PublishedRules]:
        """Return the newest published sets, the newest first."""

    async def publishers_version(self) -> int:
        """Return the version of the newest import of publishers; 0: none."""

    async def publishers(self) -> Sequence[tuple[int, str]]:
        """Return (publisher id, status) by the highest version of each."""

    async def alerts(self, rules_version: int) -> Sequence[AlertRow]:
        """Return the breaches and resumptions of one published set, oldest first."""

    async def add_alert(self, alert: AlertRow) -> None:
        """Write an alert; returns when it is durable."""

    async def store_evaluator(self, evaluator: EvaluatorRow) -> None:
        """Write an evaluator unless it is stored already; returns when it is durable."""

    async def evaluated(
        self, lane: int, window_ms: int, before_batch_no: int, rules_version: int
    ) -> Sequence[EvaluatedBatch]:
        """Return a lane's batches before one, evaluated by one published set, in order.

        They reach back `window_ms` of log time from the start of the last of them.
        """


class NoRuleStore:
    """Keeps nothing: for tests of the protocol, and deployments without tables."""

    async def published(self) -> Sequence[PublishedRules]:
        """Return none."""
        return ()

    async def publishers_version(self) -> int:
        """Return 0: there is no import."""
        return 0

    async def publishers(self) -> Sequence[tuple[int, str]]:
        """Return none."""
        return ()

    async def alerts(self, rules_version: int) -> Sequence[AlertRow]:  # noqa: ARG002
        """Return none."""
        return ()

    async def add_alert(self, alert: AlertRow) -> None:
        """Forget it."""

    async def store_evaluator(self, evaluator: EvaluatorRow) -> None:
        """Forget it."""

    async def evaluated(
        self,
        lane: int,  # noqa: ARG002
        window_ms: int,  # noqa: ARG002
        before_batch_no: int,  # noqa: ARG002
        rules_version: int,  # noqa: ARG002
    ) -> Sequence[EvaluatedBatch]:
        """Return none."""
        return ()


NO_RULE_STORE = NoRuleStore()

Rows = Callable[[str], Awaitable[list[Any]]]
"""Runs a query and returns its rows; strings are bytes."""

Insert = Callable[[str, Sequence[str], Sequence[Sequence[Any]]], Awaitable[None]]
"""Inserts rows (table, columns, rows) durably. Raises as `BatchWriter.insert`."""

PUBLISHED_TRIED = 5
"""A worker uses the first usable set among this many newest ones."""
ALERT_COLUMNS = tuple(f.name for f in fields(AlertRow))[:-1]
EVALUATOR_COLUMNS = tuple(f.name for f in fields(EvaluatorRow))


class ClickHouseRules:
    """`RuleStore` over the tables."""

    def __init__(self, rows: Rows, insert: Insert, database: str) -> None:
        """`rows` and `insert` run on the server."""
        self._rows, self._insert, self._database = rows, insert, database

    async def published(self) -> Sequence[PublishedRules]:
        """Return the newest published sets, the newest first."""
        rows = await self._rows(published_sql(self._database, PUBLISHED_TRIED))
        return [published_row(row) for row in rows]

    async def publishers_version(self) -> int:
        """Return the version of the newest import of publishers; 0: none."""
        return int((await self._rows(f"SELECT max(version) FROM {self._database}.publishers"))[0][0])

    async def publishers(self) -> Sequence[tuple[int, str]]:
        """Return (publisher id, status) by the highest version of each."""
        rows = await self._rows(publishers_sql(self._database))
        return [(int(publisher), _text(status)) for publisher, status in rows]

    async def alerts(self, rules_version: int) -> Sequence[AlertRow]:
        """Return the breaches and resumptions of one published set, oldest first."""
        where = f"rules_version = {rules_version:d} AND kind != '{AlertKind.REFUSED}'"
        return [alert_row(row) for row in await self._rows(alerts_sql(self._database, where))]

    async def add_alert(self, alert: AlertRow) -> None:
        """Write an alert; returns when it is durable."""
        await self._insert("alerts", ALERT_COLUMNS, [alert_values(alert)])

    async def store_evaluator(self, evaluator: EvaluatorRow) -> None:
        """Write an evaluator unless it is stored already; returns when it is durable."""
        there = await self._rows(
            f"SELECT count() FROM {self._database}.judges WHERE version = {evaluator.version:d}"
        )
        if not there[0][0]:
            await self._insert("judges", EVALUATOR_COLUMNS, [_values(evaluator, EVALUATOR_COLUMNS)])

    async def evaluated(
        self, lane: int, window_ms: int, before_batch_no: int, rules_version: int
    ) -> Sequence[EvaluatedBatch]:
        """Return a lane's batches before one, evaluated by one published set, in order.

        They reach back `window_ms` of log time from the start of the last of them.
        """
        database = self._database
        batches = await self._rows(
            "SELECT batch_no, toUnixTimestamp64Milli(clock_after), enforced "
            f"FROM {database}.ledger AS l INNER JOIN (SELECT version, any(enforced) AS enforced FROM {database}.judges "
            f"WHERE rules_version = {rules_version:d} GROUP BY version) AS j ON l.judge_version = j.version "
            f"WHERE lane = {lane:d} AND toUnixTimestamp64Milli(l.clock_after) > ("
            f"SELECT toUnixTimestamp64Milli(max(clock_before)) - {window_ms:d} FROM {database}.ledger "
            f"WHERE lane = {lane:d} AND batch_no < {before_batch_no:d}) AND batch_no < {before_batch_no:d} ORDER BY batch_no"
        )
        if not batches:
            return []
        evaluated = ", ".join(f"{c:d}" for c in (Class.BILLABLE, Class.GIVT, Class.SIVT))
        sums: dict[int, list[tuple[int, int, int, int, int, int]]] = {}
        for batch_no, *values in await self._rows(
            "SELECT batch_no, intDiv(toUnixTimestamp64Milli(events.lane_clock), 60000) AS minute, currency_code, "
            "class_code, reasons, count(), sum(money_nanos) "
            f"FROM {database}.events WHERE lane = {lane:d} AND batch_no >= {batches[0][0]:d} "
            f"AND batch_no < {before_batch_no:d} AND class_code IN ({evaluated}) "
            "GROUP BY batch_no, minute, currency_code, class_code, reasons"
        ):
            minute, currency, class_code, reasons, events, nanos = map(int, values)
            sums.setdefault(int(batch_no), []).append((minute, currency, class_code, reasons, events, nanos))
        return [
            EvaluatedBatch(int(no), int(clock), int(enforced), tuple(sums.get(int(no), ())))
            for no, clock, enforced in batches
        ]


def published_sql(database: str, rows_max: int) -> str:
    """Return the query for `published_row`, the newest first."""
    return (
        "SELECT version, text, author, reason, toUnixTimestamp64Micro(published_at) "
        f"FROM {database}.rules ORDER BY published_at DESC LIMIT {rows_max:d}"
    )


def published_row(row: Sequence[Any]) -> PublishedRules:
    """Return a row of `published_sql`."""
    version, text, author, reason, published_at = row
    return PublishedRules(int(version), _text(text), _text(author), _text(reason), int(published_at))


def publishers_sql(database: str) -> str:
    """Return the query for (publisher id, status)."""
    return f"SELECT publisher_id, argMax(status, version) FROM {database}.publishers GROUP BY publisher_id"


def alerts_sql(database: str, where: str = "1") -> str:
    """Return the query for `alert_row`, oldest first."""
    columns = ", ".join("toUnixTimestamp64Milli(clock)" if c == "clock" else c for c in ALERT_COLUMNS)
    return (
        f"SELECT {columns}, toUnixTimestamp64Micro(raised_at) FROM {database}.alerts "
        f"WHERE {where} ORDER BY raised_at"
    )


def alert_row(row: Sequence[Any]) -> AlertRow:
    """Return a row of `alerts_sql`."""
    values: dict[str, Any] = dict(zip((*ALERT_COLUMNS, "raised_at"), row, strict=True))
    texts = {name: _text(values[name]) for name in ("kind", "rule", "author", "what")}
    return AlertRow(**{**values, **texts, "kind": AlertKind(texts["kind"])})


def alert_values(alert: AlertRow) -> list[Any]:
    """Return the values of `ALERT_COLUMNS`, as they are inserted."""
    values = _values(alert, ALERT_COLUMNS)
    values[0] = str(alert.kind)
    values[ALERT_COLUMNS.index("clock")] = EPOCH + dt.timedelta(milliseconds=alert.clock)
    return values


def _values(row: Any, columns: Sequence[str]) -> list[Any]:
    values = [getattr(row, name) for name in columns]
    return [list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, Mapping) else v for v in values]


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
