"""Looking at a run's tables while workers write them, past the proxies; a server that is away shows nothing."""

# ruff: noqa: S608 - the database is the run's own name, numbers are formatted as integers

import asyncio
import json
from collections.abc import Collection, Mapping

from aiokafka.admin import AIOKafkaAdminClient
from clickhouse_driver.errors import Error as DriverError

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import SinkUnavailable
from adledger.sinks.connection import NETWORK_ERRORS, connect

ANSWER_SECONDS_MAX = 10.0
AWAY = (SinkUnavailable, DriverError, *NETWORK_ERRORS)


class Look:
    """Reads ledger and events of one database. Used by one thread."""

    def __init__(self, address: ServerAddress, database: str) -> None:
        self._client = connect(address)
        self._client.timeout_seconds = ANSWER_SECONDS_MAX
        self._database = database

    def close(self) -> None:
        """Disconnect."""
        self._client.disconnect()

    def records(self) -> int | None:
        """Return how many records are in the ledger; None where it can't be read."""
        rows = self._rows(f"SELECT sum(records_received) FROM {self._database}.ledger")
        return int(rows[0][0]) if rows else None

    def batches(self, lanes: Collection[int] | None = None) -> int:
        """Return how many batches are in the ledger, of some lanes; 0 where it can't be read."""
        of = "" if lanes is None else f" WHERE lane IN ({_listed(lanes)})"
        rows = self._rows(f"SELECT count() FROM {self._database}.ledger{of}")
        return int(rows[0][0]) if rows else 0

    def last_batches(self) -> dict[int, int]:
        """Return lane -> the number of the last batch in the ledger; nothing where it can't be read."""
        rows = self._rows(f"SELECT lane, max(batch_no) FROM {self._database}.ledger GROUP BY lane")
        return {int(lane): int(batch_no) for lane, batch_no in rows}

    def ledger_rows(self, lane: int, batch_no: int) -> int:
        """Return how many ledger rows a batch has: 0 or, if all is well, 1."""
        rows = self._rows(
            f"SELECT count() FROM {self._database}.ledger WHERE lane = {lane:d} AND batch_no = {batch_no:d}"
        )
        return int(rows[0][0]) if rows else 0

    def unfinished(self, lanes: Collection[int]) -> list[tuple[int, int]]:
        """Return (lane, batch) of those that have rows in `events` and no ledger row."""
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

    def parts(self) -> int:
        """Return the active parts of all tables."""
        rows = self._rows(f"SELECT count() FROM system.parts WHERE active AND database = '{self._database}'")
        return int(rows[0][0]) if rows else 0

    def execute(self, query: str) -> None:
        """Run a statement. Raises what the client does."""
        self._client.execute(query)

    def _rows(self, query: str) -> list[tuple[int, ...]]:
        try:
            return list(self._client.execute(query))
        except AWAY:
            self._client.disconnect()
            return []


def committed_batches(servers: str, group: str) -> Mapping[int, int]:
    """Return lane -> the batch of the newest intent that is committed, as stock Kafka tools see it."""

    async def ask() -> dict[int, int]:
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        try:
            committed = await admin.list_consumer_group_offsets(group)
        finally:
            await admin.close()
        newest: dict[int, int] = {}
        for place, at in committed.items():
            batch_no = int(json.loads(at.metadata)["batch"])
            newest[place.partition] = max(batch_no, newest.get(place.partition, batch_no))
        return newest

    return asyncio.run(ask())


def _listed(lanes: Collection[int]) -> str:
    return ", ".join(f"{lane:d}" for lane in sorted(lanes))
