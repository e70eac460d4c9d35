"""A sink in memory, for tests, with the same contract as ClickHouse.

It has everything that the protocol relies on: a deadline by the server's own clock, checked when the block arrives;
a block in one partition, stored whole or not at all; an insert that keeps running after its client has gone.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adledger.pipeline.errors import InsertRefused, InsertUnknown
from adledger.pipeline.records.columns import EventColumns
from adledger.pipeline.stages import identity
from adledger.schemas.classes import Class
from adledger.schemas.event_columns import EVENT_DTYPES
from adledger.schemas.tables import PROTOCOL_COLUMNS, PROTOCOL_TABLES, TEXT_COLUMNS
from adledger.sinks.blocks import Block, protocol_block, row_count, text_block
from adledger.sinks.ledger import ledger_entry
from adledger.sinks.queries import REASON_COLUMNS, STORED_COLUMNS
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


class SinkFaults:
    """What happens to an insert on its way. Override to delay (await) or to fail (raise SinkError)."""

    async def request(self, table: str, stamp: Stamp) -> None:
        """On the wire to the server; raising here means that it never arrived."""

    async def running(self, table: str, stamp: Stamp) -> None:
        """On the server, past the deadline's check, not stored yet."""

    async def reply(self, table: str, stamp: Stamp) -> None:
        """On the wire back, the rows stored; raising here means that no answer came."""


@dataclass(slots=True)
class MemorySink:
    """`Sink` over lists. `clock` is the server's, in seconds; `faults` may be set at any time."""

    clock: Callable[[], float] = time.time
    faults: SinkFaults = field(default_factory=SinkFaults)
    tables: dict[str, list[tuple[Stamp, Block]]] = field(
        default_factory=lambda: {table: [] for table in PROTOCOL_TABLES}
    )
    texts: dict[str, dict[int, bytes]] = field(default_factory=lambda: {table: {} for table in TEXT_COLUMNS})
    _running: dict["asyncio.Task[None]", int] = field(default_factory=dict)

    async def server_time(self) -> int:
        """Return the server's clock, whole seconds since the epoch."""
        return int(self.clock())

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        """Insert one block, as `Sink.insert`; no rows: nothing is sent. Cancelling it does not stop the server."""
        block = protocol_block(table, columns, stamp)
        if row_count(block) == 0:
            return
        task = asyncio.create_task(self._serve(table, block, stamp))
        task.add_done_callback(lambda done: done.exception())  # reported to the client, unless that has gone
        try:
            await asyncio.shield(task)
        finally:
            del task  # it has the error, whose traceback refers to this frame: a cycle, with the rows
        await self.faults.reply(table, stamp)

    async def _serve(self, table: str, block: Block, stamp: Stamp) -> None:
        await self.faults.request(table, stamp)
        if int(self.clock()) > stamp.send_by:
            raise InsertRefused(f"an insert into {table} arrived after its deadline", late=True, code=469)
        task = asyncio.current_task()
        assert task is not None
        self._running[task] = stamp.lane
        try:
            await self.faults.running(table, stamp)
        except asyncio.CancelledError:
            raise InsertUnknown(f"an insert into {table} was killed") from None
        finally:
            del self._running[task]
        self.tables[table].append((stamp, block))

    async def insert_texts(self, table: str, hashes: Columns) -> None:
        """Insert distinct strings: idempotent."""
        key, text = text_block(table, hashes).values()
        self.texts[table].update(zip(key.tolist(), text, strict=True))

    async def quiesce(self, lane: int) -> None:
        """Kill the lane's running inserts; return when there are none."""
        while mine := [task for task, owner in self._running.items() if owner == lane]:
            for task in mine:
                task.cancel()
            await asyncio.wait(mine)

    async def ledger_end(self, lane: int) -> LedgerEntry | None:
        """Return the lane's last ledger entry, or None."""
        rows = [(stamp.batch_no, block) for stamp, block in self.tables["ledger"] if stamp.lane == lane]
        if not rows:
            return None
        last = max(rows, key=lambda row: row[0])[1]
        return ledger_entry({name: values[0] for name, values in last.items()})

    async def batch_rows(self, lane: int, batch_no: int) -> Mapping[str, int]:
        """Return table -> rows of that batch."""
        return {
            table: sum(row_count(b) for s, b in blocks if (s.lane, s.batch_no) == (lane, batch_no))
            for table, blocks in self.tables.items()
        }

    async def last_batches(self, lane: int, from_batch_no: int) -> Mapping[str, Sequence[int]]:
        """Return table -> the batch numbers >= from_batch_no that it holds rows of (ascending)."""
        return {
            table: sorted({s.batch_no for s, _ in blocks if s.lane == lane and s.batch_no >= from_batch_no})
            for table, blocks in self.tables.items()
        }

    async def stored_events(self, lane: int, batch_no: int) -> StoredEvents:
        """Return the event rows of one batch, by topic and offset."""
        found = self._batch("events", lane, batch_no, (*STORED_COLUMNS, *EVENT_DTYPES))
        return StoredEvents(
            **{name: found[name] for name in STORED_COLUMNS},
            columns=EventColumns(**{name: found[name] for name in EVENT_DTYPES}),
        )

    async def stored_reasons(self, lane: int, batch_no: int) -> StoredReasons:
        """Return the reasons of one batch's dead letters, by topic and offset."""
        return StoredReasons(**self._batch("dead_letters", lane, batch_no, REASON_COLUMNS))

    def _batch(self, table: str, lane: int, batch_no: int, names: Sequence[str]) -> dict[str, Any]:
        """Return columns of one batch's rows, by topic and offset."""
        blocks = [b for s, b in self.tables[table] if (s.lane, s.batch_no) == (lane, batch_no)]
        none = {name: np.zeros(0, PROTOCOL_COLUMNS[table][name]) for name in names}
        found = {name: np.concatenate([b[name] for b in (none, *blocks)]) for name in names}
        order = np.lexsort((found["offset"], found["topic"]))
        return {name: values[order] for name, values in found.items()}

    async def identities(self, lane: int, clock_from: int, before_batch_no: int) -> AsyncIterator[Identities]:
        """Yield the first event of each key with lane_clock >= clock_from and a lower batch number, a block a batch."""
        for number in (await self.last_batches(lane, 0))["events"]:
            if number >= before_batch_no:
                return
            events = await self.stored_events(lane, number)
            first = (events.class_code != Class.DUPLICATE) & (events.lane_clock >= clock_from)
            columns = events.columns.take(first)
            yield Identities(*identity.identity(columns), events.lane_clock[first])

    async def rule_events(
        self, lane: int, clock_from: int, before_batch_no: int
    ) -> AsyncIterator[RuleEvents]:
        """Yield the same events by batch, watermark, topic and offset, a block a batch."""
        for number in (await self.last_batches(lane, 0))["events"]:
            if number >= before_batch_no:
                return
            events = await self.stored_events(lane, number)
            first = np.flatnonzero((events.class_code != Class.DUPLICATE) & (events.lane_clock >= clock_from))
            order = first[np.argsort(events.lane_clock[first], kind="stable")]
            yield RuleEvents(events.columns.take(order), events.lane_clock[order])

    async def last_record(
        self, lane: int, topic: int, before_batch_no: int, clock_from: int
    ) -> LastRecord | None:
        """Return the last record of a topic before a batch, in the epoch of the lane's last ledger row and after its last loss."""
        entries = [
            (s.batch_no, b["epoch"][0], int(b["lost"][0])) for s, b in self.tables["ledger"] if s.lane == lane
        ]
        ledger = sorted(entries, key=lambda entry: entry[0])
        begins = min(
            (number for number, epoch, _ in ledger if epoch == ledger[-1][1]), default=before_batch_no
        )
        begins = max([begins, *(number for number, _, lost in ledger if lost)])
        found: list[tuple[int, int, int, int | None]] = []
        for table in ("events", "dead_letters"):
            for stamp, block in self.tables[table]:
                if stamp.lane != lane or not begins <= stamp.batch_no < before_batch_no:
                    continue
                rows = np.flatnonzero((block["topic"] == topic) & (block["lane_clock"] >= clock_from))
                if len(rows):
                    last = rows[np.argmax(block["offset"][rows])]
                    id_hash = int(block["id_hash"][last]) if table == "events" else None
                    found.append(
                        (stamp.batch_no, int(block["offset"][last]), int(block["log_time"][last]), id_hash)
                    )
        return LastRecord(*max(found, key=lambda row: row[:2])) if found else None
