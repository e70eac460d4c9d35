"""Operator overrides of lanes in ClickHouse: reading and writing them, and clearing the rows of a batch."""

# ruff: noqa: S608 - names of tables are settings with a pattern, numbers are formatted as integers

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol

from adledger.schemas.tables import PROTOCOL_TABLES
from adledger.sinks.ledger import ledger_entry
from adledger.sinks.queries import LEDGER_COLUMNS, read_column
from adledger.sinks.sink import LedgerEntry, OffsetRange

if TYPE_CHECKING:
    from adledger.sinks.connection import Client

NO_PARENT = -1
CLEARED_TABLES = tuple(table for table in PROTOCOL_TABLES if table != "ledger")
"""The tables from which an override may remove rows; never the ledger."""


class OverrideKind(StrEnum):
    """What an override does."""

    SKIP = "skip"  # give up offsets that are gone, or an intent, or switch to another log
    GIVE_UP = "give_up"  # give up offsets that the log has, up to a position that the operator names
    ADOPT = "adopt"  # trust the ledger's end, whatever the group's commits say
    CLEAR = "clear"  # remove the rows of a batch that has no ledger row
    REPARTITION = "barrier"  # the stored name; switch to more partitions


@dataclass(frozen=True, slots=True)
class Leftover:
    """Rows of one batch in one table: how many, their latest deadline, and their digest."""

    table: str
    rows: int
    send_by: int
    digest: int


@dataclass(frozen=True, slots=True)
class LaneOverride:
    """One override. `batch_no` is the ledger batch that it becomes, or (CLEAR) the batch whose rows it removes.

    `parent_ends` are the offsets, by topic index, that the lane `parent` must have reached before a new lane begins.
    """

    lane: int
    batch_no: int
    kind: OverrideKind
    epoch: str
    ranges: tuple[OffsetRange, ...]
    parent: int = NO_PARENT
    parent_ends: tuple[int, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    reason: str = ""
    author: str = ""

    @property
    def lost(self) -> int:
        """How many offsets it gives up."""
        return sum(r.end - r.start for r in self.ranges)

    def clears(self, batch_no: int) -> bool:
        """Whether it removes rows of this batch."""
        return self.batch_no == batch_no and bool(self.leftovers)

    def fits(self, found: "LaneOverride") -> bool:
        """Whether it still matches the override that the lane needs now (`found`).

        Growth since it was written (retention took more, the parent's log grew) is left to the next override.
        """
        alike = replace(self, reason="", author="", ranges=(), parent_ends=(), leftovers=())
        if alike != replace(found, reason="", author="", ranges=(), parent_ends=(), leftovers=()):
            return False
        return (
            [(r.topic, r.start) for r in self.ranges] == [(r.topic, r.start) for r in found.ranges]
            and all(mine.end <= now.end for mine, now in zip(self.ranges, found.ranges, strict=True))
            and len(self.parent_ends) == len(found.parent_ends)
            and all(mine <= now for mine, now in zip(self.parent_ends, found.parent_ends, strict=True))
            and set(found.leftovers) <= set(self.leftovers)
        )


class OverrideStore(Protocol):
    """Reads overrides, and what they depend on. Raises SinkUnavailable, SinkError."""

    async def of_lane(self, lane: int) -> Sequence[LaneOverride]:
        """Return a lane's overrides, oldest first."""

    async def epochs(self) -> Sequence[str]:
        """Return the epochs that the ledger has rows of."""

    async def entry_reaching(self, lane: int, ends: Sequence[int]) -> LedgerEntry | None:
        """Return a lane's first ledger entry whose ranges end at these offsets (by topic) or beyond."""


class Leftovers(Protocol):
    """Rows of batches that have no ledger row."""

    async def leftovers(self, lane: int, batch_no: int) -> Sequence[Leftover]:
        """Return what the tables hold of a batch; tables without rows are left out."""

    async def clear(self, lane: int, batch_no: int, send_by: int) -> None:
        """Remove a batch's rows up to a deadline, durably. Rows that were written later stay."""


class Overrides(OverrideStore, Leftovers, Protocol):
    """Everything about operator overrides that a lane needs."""


class NoOverrides:
    """No overrides, for tests' logs and sinks."""

    async def of_lane(self, lane: int) -> Sequence[LaneOverride]:  # noqa: ARG002
        """Return none."""
        return ()

    async def epochs(self) -> Sequence[str]:
        """Return none."""
        return ()

    async def entry_reaching(self, lane: int, ends: Sequence[int]) -> LedgerEntry | None:  # noqa: ARG002
        """Return None."""
        return None

    async def leftovers(self, lane: int, batch_no: int) -> Sequence[Leftover]:  # noqa: ARG002
        """Return none."""
        return ()

    async def clear(self, lane: int, batch_no: int, send_by: int) -> None:
        """Refuse: there are no overrides."""
        raise AssertionError(
            f"lane {lane}, batch {batch_no}, {send_by}: without overrides, nothing is cleared"
        )


NO_OVERRIDES = NoOverrides()

_COLUMNS = (
    "lane", "batch_no", "kind", "epoch", "range_topic", "range_start", "range_end", "parent", "parent_ends",
    "leftover_table", "leftover_rows", "leftover_send_by", "leftover_digest", "reason", "author",
)  # fmt: skip

_KIND, _KINDS = _COLUMNS.index("kind"), frozenset(map(str, OverrideKind))

Rows = Callable[[str, Mapping[str, Any]], Awaitable[list[Any]]]
"""Runs a query with settings, and returns its rows; strings are bytes."""


class ClickHouseOverrides:
    """`Overrides` over the tables."""

    def __init__(self, rows: Rows, database: str) -> None:
        """`rows` runs the queries."""
        self._rows, self._database = rows, database

    async def of_lane(self, lane: int) -> Sequence[LaneOverride]:
        """Return a lane's overrides, oldest first; without kinds that only a newer release knows."""
        rows = await self._rows(
            f"SELECT {', '.join(_COLUMNS)} FROM {self._database}.lane_orders WHERE lane = {lane:d} ORDER BY ordered_at",
            {},
        )
        return [_override(row) for row in rows if bytes(row[_KIND]).decode() in _KINDS]

    async def epochs(self) -> Sequence[str]:
        """Return the epochs that the ledger has rows of."""
        rows = await self._rows(f"SELECT DISTINCT epoch FROM {self._database}.ledger", {})
        return sorted(bytes(epoch).decode() for (epoch,) in rows)

    async def entry_reaching(self, lane: int, ends: Sequence[int]) -> LedgerEntry | None:
        """Return a lane's first ledger entry whose ranges end at these offsets (by topic) or beyond."""
        columns = ", ".join(read_column(name) for name in LEDGER_COLUMNS)
        reached = " AND ".join(
            f"range_end[indexOf(range_topic, {t:d})] >= {end:d}" for t, end in enumerate(ends)
        )
        rows = await self._rows(
            f"SELECT {columns} FROM {self._database}.ledger WHERE lane = {lane:d} AND {reached} "
            "ORDER BY batch_no LIMIT 1",
            {},
        )
        return ledger_entry(dict(zip(LEDGER_COLUMNS, rows[0], strict=True))) if rows else None

    async def leftovers(self, lane: int, batch_no: int) -> Sequence[Leftover]:
        """Return what the tables hold of a batch; tables without rows are left out."""
        rows = await self._rows(
            f"SELECT table, rows, last_send_by, digest FROM {self._database}.v_batch_digests "
            f"WHERE lane = {lane:d} AND batch_no = {batch_no:d}",
            {},
        )
        return sorted(
            (Leftover(bytes(table).decode(), int(n), int(by), int(d)) for table, n, by, d in rows),
            key=lambda found: CLEARED_TABLES.index(found.table),
        )

    async def clear(self, lane: int, batch_no: int, send_by: int) -> None:
        """Remove a batch's rows up to a deadline, durably; events last, so that derived rows never exist without them."""
        for table in reversed(CLEARED_TABLES):
            await self._rows(
                f"ALTER TABLE {self._database}.{table} DELETE "
                f"WHERE lane = {lane:d} AND batch_no = {batch_no:d} AND send_by <= {send_by:d}",
                {"mutations_sync": 2},
            )


def write_overrides(
    client: "Client", overrides: Sequence[LaneOverride], *, database: str, cluster: str | None
) -> None:
    """Insert overrides. Raises what the driver raises.

    On replicas with a quorum, so that no consistent read misses an override that another has seen: a batch whose rows it
    removed would otherwise be written with its old deduplication token, and dropped.
    """
    quorum = {} if cluster is None else {"insert_quorum": "auto", "insert_quorum_parallel": 0}
    client.execute(
        f"INSERT INTO {database}.lane_orders ({', '.join(_COLUMNS)}) VALUES",
        [_row(override) for override in overrides],
        settings={"async_insert": 0, **quorum},
    )


def _row(override: LaneOverride) -> tuple[Any, ...]:
    """Return the row of an override, as `_COLUMNS` names its columns."""
    return (
        override.lane, override.batch_no, str(override.kind), override.epoch,
        [r.topic for r in override.ranges], [r.start for r in override.ranges], [r.end for r in override.ranges],
        override.parent, list(override.parent_ends),
        [left.table for left in override.leftovers], [left.rows for left in override.leftovers],
        [left.send_by for left in override.leftovers], [left.digest for left in override.leftovers],
        override.reason, override.author,
    )  # fmt: skip


def _override(row: Sequence[Any]) -> LaneOverride:
    lane, batch_no, kind, epoch, topics, starts, ends, parent, parent_ends, *left, reason, author = row
    return LaneOverride(
        int(lane), int(batch_no), OverrideKind(bytes(kind).decode()), bytes(epoch).decode(),
        tuple(OffsetRange(*map(int, r)) for r in zip(topics, starts, ends, strict=True)),
        int(parent), tuple(map(int, parent_ends)),
        tuple(
            Leftover(bytes(table).decode(), int(rows), int(by), int(found))
            for table, rows, by, found in zip(*left, strict=True)
        ),
        bytes(reason).decode(), bytes(author).decode(),
    )  # fmt: skip
