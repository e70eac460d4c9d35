"""The sink over ClickHouse's native protocol."""

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from clickhouse_driver import errors as driver_errors

from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import SinkError, SinkUnavailable
from adledger.pipeline.records.columns import EventColumns
from adledger.pipeline.stages.identity import dedupe_keys
from adledger.schemas.event_columns import EVENT_DTYPES, WINDOW_COLUMNS
from adledger.schemas.tables import PROTOCOL_COLUMNS, PROTOCOL_TABLES
from adledger.sinks import queries
from adledger.sinks.blocks import Block, protocol_block, row_count, text_block
from adledger.sinks.connection import NETWORK_ERRORS, Client, connect, first_line
from adledger.sinks.insert_settings import ROWS_PER_BLOCK_MAX, insert_settings
from adledger.sinks.insert_tokens import insert_token
from adledger.sinks.ledger import ledger_entry
from adledger.sinks.outcomes import insert_outcome
from adledger.sinks.overrides import ClickHouseOverrides
from adledger.sinks.pool import ClientPool
from adledger.sinks.refused import query_refused
from adledger.sinks.rules import ClickHouseRules
from adledger.sinks.sink import (
    Columns,
    Identities,
    LastRecord,
    LedgerEntry,
    RuleEvents,
    Stamp,
    StoredEvents,
    StoredReasons,
)

T = TypeVar("T")

ANSWER_GRACE_SECONDS = 5  # an insert that began in time may end after its deadline
QUIESCE_PATIENCE_SECONDS = 2  # how long running inserts may take to end before they are killed
QUIESCE_SECONDS_MAX = 60
QUIESCE_POLL_SECONDS = 0.05
KILL_POLL_SECONDS = 1
IDENTITY_ROWS_PER_BLOCK = 2**17
NO_SETTINGS: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class SinkOptions:
    """How the sink connects and waits. `cluster`: the tables are Replicated, and an insert waits for a quorum."""

    database: str = "adledger"
    cluster: str | None = None
    write_deadline_seconds: int = 10
    connections_max: int = 8
    compression: str | None = None


class ClickHouseSink:
    """`Sink` over clickhouse-driver: numpy columns, native protocol, one block an insert."""

    def __init__(self, address: ServerAddress, options: SinkOptions | None = None) -> None:
        self._options = options or SinkOptions()
        self._database = self._options.database
        self.overrides = ClickHouseOverrides(self._rows, self._database)
        """Operator overrides."""
        self.rules = ClickHouseRules(self._rows, self._insert_rows, self._database)
        """Rule sets, publishers, evaluators and alerts."""
        self._pool = ClientPool(
            lambda: connect(address, compression=self._options.compression),
            self._options.connections_max,
        )

    async def close(self) -> None:
        """Close the connections when the calls under way have ended."""
        await self._pool.close()

    async def server_time(self) -> int:
        """Return the server's clock, whole seconds since the epoch. Raises SinkUnavailable, SinkError."""
        return int((await self._rows(queries.SERVER_TIME))[0][0])

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        """Insert one block into one partition; returns when it is durable. No rows: nothing is sent.

        Raises as `Sink.insert` does, and ValueError where the columns are not one insert of the table.
        """
        block = protocol_block(table, columns, stamp)
        query_id = (
            f"{queries.insert_id_prefix(self._database, stamp.lane)}{stamp.batch_no}/{table}/{uuid.uuid4()}"
        )
        settings = insert_settings() | self._durability(table, stamp) | await self._token(table, stamp)
        await self._insert(table, block, settings, query_id)

    async def insert_texts(self, table: str, hashes: Columns) -> None:
        """Insert distinct strings: idempotent, outside the protocol. Raises as `insert`."""
        await self._insert(table, text_block(table, hashes), {"async_insert": 0}, None)

    async def quiesce(self, lane: int) -> None:
        """Return once no insert of this lane runs on the server; those that keep running are killed.

        Raises SinkError if one still runs after `QUIESCE_SECONDS_MAX`, SinkUnavailable.
        """
        began = time.monotonic()
        whose = (self._database, lane, self._options.cluster)
        while running := await self._rows(queries.running_inserts(*whose)):
            waited = time.monotonic() - began
            if waited > QUIESCE_SECONDS_MAX:
                raise SinkError(
                    f"an insert of lane {lane} still runs on ClickHouse after {waited:.0f} s: {running[0][0]}",
                    remedy="look at system.processes; restart ClickHouse if KILL QUERY does not end it",
                )
            if waited > QUIESCE_PATIENCE_SECONDS:
                await self._rows(queries.kill_inserts(*whose))
                await asyncio.sleep(KILL_POLL_SECONDS)
            await asyncio.sleep(QUIESCE_POLL_SECONDS)

    async def ledger_end(self, lane: int) -> LedgerEntry | None:
        """Return the lane's last ledger entry, or None. Raises SinkUnavailable, SinkError."""
        rows = await self._rows(queries.ledger_end(self._database, lane))
        return ledger_entry(dict(zip(queries.LEDGER_COLUMNS, rows[0], strict=True))) if rows else None

    async def batch_rows(self, lane: int, batch_no: int) -> Mapping[str, int]:
        """Return table -> rows of that batch, for every table that the protocol writes."""
        rows = await self._rows(queries.batch_rows(self._database, lane, batch_no))
        return {table.decode(): int(count) for table, count in rows}

    async def last_batches(self, lane: int, from_batch_no: int) -> Mapping[str, Sequence[int]]:
        """Return table -> the batch numbers >= from_batch_no that it holds rows of (ascending)."""
        found: dict[str, list[int]] = {table: [] for table in PROTOCOL_TABLES}
        for table, batch_no in await self._rows(queries.last_batches(self._database, lane, from_batch_no)):
            found[table.decode()].append(int(batch_no))
        return {table: sorted(numbers) for table, numbers in found.items()}

    async def stored_events(self, lane: int, batch_no: int) -> StoredEvents:
        """Return the event rows of one batch, by topic and offset."""
        query = queries.stored_events(self._database, lane, batch_no)
        found = await self._batch(query, "events", (*queries.STORED_COLUMNS, *EVENT_DTYPES))
        return StoredEvents(
            **{name: found[name] for name in queries.STORED_COLUMNS},
            columns=EventColumns(**{name: found[name] for name in EVENT_DTYPES}),
        )

    async def stored_reasons(self, lane: int, batch_no: int) -> StoredReasons:
        """Return the reasons of one batch's dead letters, by topic and offset."""
        query = queries.stored_reasons(self._database, lane, batch_no)
        return StoredReasons(**await self._batch(query, "dead_letters", queries.REASON_COLUMNS))

    async def _batch(self, query: str, table: str, names: Sequence[str]) -> dict[str, Any]:
        """Return the columns `names` of a query over a table."""
        arrays = await self._read(lambda client: client.columns(query, self._consistency()))
        none = [np.zeros(0, PROTOCOL_COLUMNS[table][name]) for name in names]
        return dict(zip(names, arrays or none, strict=True))

    async def identities(self, lane: int, clock_from: int, before_batch_no: int) -> AsyncIterator[Identities]:
        """Yield the first event of each key with lane_clock >= clock_from (ms) and a lower batch number, in no order.

        Streamed: memory holds two blocks of `IDENTITY_ROWS_PER_BLOCK`. Raises SinkUnavailable, SinkError.
        """
        which = (self._database, lane, clock_from, before_batch_no)
        expected = int((await self._rows(queries.identity_count(*which)))[0][0] or 0)

        def block(arrays: list[Any]) -> Identities:
            return replace(_identities(arrays), expected=expected)

        async with aclosing(self._stream(queries.identities(*which), block)) as stream:
            async for found in stream:
                yield found

    async def rule_events(
        self, lane: int, clock_from: int, before_batch_no: int
    ) -> AsyncIterator[RuleEvents]:
        """Yield the same events by batch, watermark, topic and offset, streamed as `identities` are."""
        query = queries.rule_events(self._database, lane, clock_from, before_batch_no)
        async with aclosing(self._stream(query, _rule_events)) as stream:
            async for found in stream:
                yield found

    async def last_record(
        self, lane: int, topic: int, before_batch_no: int, clock_from: int
    ) -> LastRecord | None:
        """Return the last record of a topic before a batch, in the epoch of the lane's last ledger row."""
        which = (self._database, lane, topic, before_batch_no, clock_from)
        rows = await self._rows(queries.last_record(*which))
        if not rows:
            return None
        batch_no, offset, log_time, id_hash, is_event = map(int, rows[0])
        return LastRecord(batch_no, offset, log_time, id_hash if is_event else None)

    async def _stream(self, query: str, block: Callable[[list[Any]], T]) -> AsyncGenerator[T]:
        """Yield `block(columns)` for each block of a query's result; `block` runs in the reading thread."""
        settings = {
            "max_block_size": IDENTITY_ROWS_PER_BLOCK,
            "preferred_block_size_bytes": 0,  # otherwise 8,192 rows, each with a packet's cost
            **self._consistency(),
        }
        stream = self._pool.stream(lambda client: map(block, client.blocks(query, settings)))
        async with aclosing(stream):
            with _as_sink_errors():
                async for found in stream:
                    yield found

    async def _insert(self, table: str, block: Block, settings: dict[str, Any], query_id: str | None) -> None:
        if row_count(block) == 0:
            return
        numpy = all(isinstance(values, np.ndarray) for values in block.values())
        columns = [v.tolist() if isinstance(v, np.ndarray) and not numpy else v for v in block.values()]
        query = queries.insert(self._database, table, list(block))

        driver = {"use_numpy": numpy, "strings_as_bytes": True, "insert_block_size": ROWS_PER_BLOCK_MAX}

        def send(client: Client) -> None:
            try:
                client.execute(
                    query, columns, columnar=True, query_id=query_id, settings={**settings, **driver}
                )
            except SinkUnavailable:
                raise
            except Exception as e:
                raise insert_outcome(table, e) from e

        await self._pool.run(send, self._options.write_deadline_seconds + ANSWER_GRACE_SECONDS)

    async def _insert_rows(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Insert a few rows outside the protocol. Raises as `insert`."""
        query = queries.insert(self._database, table, list(columns))
        quorum = {} if self._options.cluster is None else {"insert_quorum": "auto"}

        def send(client: Client) -> None:
            try:
                client.execute(query, rows, settings={"async_insert": 0, **quorum})
            except SinkUnavailable:
                raise
            except Exception as e:
                raise insert_outcome(table, e) from e

        await self._pool.run(send)

    async def _rows(self, query: str, more: Mapping[str, Any] = NO_SETTINGS) -> list[Any]:
        settings = {"strings_as_bytes": True, **self._consistency(), **more}
        rows: list[Any] = await self._read(lambda client: client.execute(query, settings=settings))
        return rows

    async def _read(self, call: Any) -> Any:
        with _as_sink_errors():
            return await self._pool.run(call)

    def _durability(self, table: str, stamp: Stamp) -> dict[str, Any]:  # noqa: ARG002 - tests' sinks need them
        """Return the settings that make OK mean durable: fsync is the table's; replicas need a quorum."""
        if self._options.cluster is None:
            return {"insert_deduplicate": 0}
        return {
            "insert_quorum": "auto",
            "insert_quorum_parallel": 0,
            "insert_quorum_timeout": self._options.write_deadline_seconds * 1000,
            "insert_deduplicate": 1,
        }

    async def _token(self, table: str, stamp: Stamp) -> dict[str, Any]:
        """Return the settings that make a repeated insert count once on replicas. Raises SinkUnavailable, InsertRefused."""
        if self._options.cluster is None:
            return {}
        return {"insert_deduplication_token": await insert_token(self._rows, self._database, table, stamp)}

    def _consistency(self) -> dict[str, Any]:
        """Return the settings that make a read see every insert that was answered OK."""
        return {} if self._options.cluster is None else {"select_sequential_consistency": 1}


def _identities(arrays: list[Any]) -> Identities:
    """Return a block of `identities` with its keys. Runs in the reading thread, without the GIL."""
    clocks, fingerprints, *rest = arrays
    columns = replace(EventColumns.zeros(0), **dict(zip(queries.KEYED, rest, strict=True)))
    return Identities(*dedupe_keys(columns), fingerprints, clocks)


def _rule_events(arrays: list[Any]) -> RuleEvents:
    """Return a block of lane_clock and WINDOW_COLUMNS."""
    clocks, *rest = arrays
    return RuleEvents(replace(EventColumns.zeros(0), **dict(zip(WINDOW_COLUMNS, rest, strict=True))), clocks)


@contextmanager
def _as_sink_errors() -> Iterator[None]:
    """Turn failed reads into SinkError: the server's refusals, and a lost connection."""
    try:
        yield
    except driver_errors.ServerException as e:
        raise query_refused(e) from None
    except NETWORK_ERRORS as e:
        raise SinkUnavailable(
            f"the connection to ClickHouse was lost in mid-answer: {first_line(e)}"
        ) from None
