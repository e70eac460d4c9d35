"""A run's ledger and events, read while workers write them. An unreachable server reads as empty."""

# ruff: noqa: S608 - the database is the run's own name, numbers are formatted as integers

from collections.abc import Collection
from typing import Any

from clickhouse_driver.errors import Error as DriverError

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import SinkError
from adledger.sinks.connection import NETWORK_ERRORS, connect

ANSWER_SECONDS_MAX = 10.0
UNREACHABLE = (SinkError, DriverError, *NETWORK_ERRORS)


class TablesView:
    """Reads one database. For one thread at a time."""

    def __init__(self, address: ServerAddress, database: str) -> None:
        self._client = connect(address)
        self._client.timeout_seconds = ANSWER_SECONDS_MAX
        self._database = database

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()

    def records(self) -> int | None:
        """Return how many records are in the ledger; None where it is unreachable."""
        rows = self._rows(f"SELECT sum(records_received) FROM {self._database}.ledger")
        return int(rows[0][0]) if rows else None

    def batches(self, lanes: Collection[int] | None = None) -> int:
        """Return how many batches are in the ledger, of some lanes; 0 where it is unreachable."""
        of = "" if lanes is None else f" WHERE lane IN ({_listed(lanes)})"
        rows = self._rows(f"SELECT count() FROM {self._database}.ledger{of}")
        return int(rows[0][0]) if rows else 0

    def last_batches(self) -> dict[int, int]:
        """Return lane -> the number of its last batch in the ledger; nothing where it is unreachable."""
        rows = self._rows(f"SELECT lane, max(batch_no) FROM {self._database}.ledger GROUP BY lane")
        return {int(lane): int(batch_no) for lane, batch_no in rows}

    def ledger_rows(self, lane: int, batch_no: int) -> int:
        """Return how many ledger rows a batch has: 0, or 1 when all is well."""
        rows = self._rows(
            f"SELECT count() FROM {self._database}.ledger WHERE lane = {lane:d} AND batch_no = {batch_no:d}"
        )
        return int(rows[0][0]) if rows else 0

    def unfinished(self, lanes: Collection[int]) -> list[tuple[int, int]]:
        """Return (lane, batch) of the batches with rows in `events` and none in the ledger."""
        if not lanes:
            return []
        rows = self._rows(
            f"SELECT DISTINCT lane, batch_no FROM {self._database}.events WHERE lane IN ({_listed(lanes)}) "
            f"AND (lane, batch_no) NOT IN (SELECT lane, batch_no FROM {self._database}.ledger)"
        )
        return [(lane, batch_no) for lane, batch_no in rows]

    def records_of(self, batches: Collection[tuple[int, int]]) -> int:
        """Return the records of these batches (lane, number) that are in the ledger."""
        if not batches:
            return 0
        listed = ", ".join(f"({lane:d}, {batch_no:d})" for lane, batch_no in batches)
        rows = self._rows(
            f"SELECT sum(records_received) FROM {self._database}.ledger WHERE (lane, batch_no) IN ({listed})"
        )
        return int(rows[0][0]) if rows else 0

    def ledger_from(self, batch_no: int) -> list[tuple[Any, ...]]:
        """Return (lane, batch, records, topics, starts, ends) of the batches from a number on, lane by lane in order."""
        return self._rows(
            "SELECT lane, batch_no, records_received, range_topic, range_start, range_end "
            f"FROM {self._database}.ledger WHERE batch_no >= {batch_no:d} ORDER BY lane, batch_no"
        )

    def parts(self) -> int | None:
        """Return the number of active parts of all tables; None where it is unreachable."""
        rows = self._rows(f"SELECT count() FROM system.parts WHERE active AND database = '{self._database}'")
        return int(rows[0][0]) if rows else None

    def _rows(self, query: str) -> list[tuple[Any, ...]]:
        try:
            return list(self._client.execute(query))
        except UNREACHABLE:
            self._client.disconnect()
            return []


def _listed(lanes: Collection[int]) -> str:
    return ", ".join(f"{lane:d}" for lane in sorted(lanes))
