"""A simulated ClickHouse: its own clock, a deadline checked when the block lands, inserts that outlive their client.

`Server` is what survives every node; `SimSink` is a worker's client, a `Sink`. On one server an insert has no token; with
replicas each has a constant one, and a part may be visible only after its quorum is complete.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from adledger.pipeline.errors import InsertRefused, InsertUnknown, SinkUnavailable
from adledger.schemas.tables import PARTITION_CLOCKS, PROTOCOL_TABLES
from adledger.sinks import blocks
from adledger.sinks.blocks import Block, row_count
from adledger.sinks.memory import MemorySink
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
from tests.simulation.world import World, who

CLOCK_BEGINS = 1_767_225_600 - 12
"""The server's clock at the start, apart from its skew: 12 s before a day begins."""
TOKENS_MAX = 6
"""The window of the token log: tiny, so that seeds run over it."""
QUIESCE_PATIENCE_SECONDS = 1.0
QUIESCE_POLL_SECONDS = 0.3
ANSWER_GRACE_SECONDS = 2.0


@dataclass(slots=True)
class Part:
    """Rows that were stored together. Consistent reads see them once `visible`, others after `lags_until`."""

    table: str
    stamp: Stamp
    block: Block
    token: str
    visible: bool = True
    lags_until: float = 0.0


@dataclass(eq=False, slots=True)
class Running:
    """An insert that the server works on."""

    table: str
    stamp: Stamp
    block: Block
    token: str
    reply: Any
    checked: bool = False
    over: bool = False


@dataclass(slots=True)
class Server:
    """The server. `enforces_deadline` is the tables' constraint."""

    world: World
    replicated: bool = False
    enforces_deadline: bool = True
    skew: float = 0.0
    drift: float = 0.0
    up: bool = True
    parts: list[Part] = field(default_factory=list)
    texts: dict[str, dict[int, bytes]] = field(default_factory=lambda: {"user_agents": {}, "pages": {}})
    tokens: dict[str, None] = field(default_factory=dict)
    running: list[Running] = field(default_factory=list)

    def clock(self) -> int:
        """The server's second."""
        return int(CLOCK_BEGINS + self.skew + self.world.now * (1.0 + self.drift))

    def jump(self, seconds: float) -> None:
        """Set the clock forward."""
        self.world.fault("clock jump", "clickhouse", f"{seconds:.1f} s")
        self.skew += seconds

    def view(self, *, consistent: bool = True) -> MemorySink:
        """Return what a read sees now."""
        tables: dict[str, list[tuple[Stamp, Block]]] = {table: [] for table in PROTOCOL_TABLES}
        now = self.world.now
        for part in self.parts:
            if part.visible and (consistent or part.lags_until <= now):
                tables[part.table].append((part.stamp, part.block))
        return MemorySink(tables=tables, texts=self.texts)

    # an insert's life

    def arrive(self, table: str, stamp: Stamp, block: Block, token: str, reply: Any) -> None:
        """A request has arrived over the wire."""
        if not self.up:
            self._answer(reply, InsertUnknown("the connection was reset"))
            return
        insert = Running(table, stamp, block, token, reply)
        self.running.append(insert)
        self.world.loop.on_network(self._while(), self._check, insert)

    def _while(self) -> float:
        if self.world.chance(self.world.chances.long_insert):
            return self.world.rng.uniform(0.5, 9.0)
        return self.world.rng.random() * 0.01

    def _check(self, insert: Running) -> None:
        """The block is here: `nowInBlock() <= send_by`."""
        if insert.over:
            return
        if self.enforces_deadline and self.clock() > insert.stamp.send_by:
            self.world.fault("insert refused late", "clickhouse", _name(insert))
            self._end(insert, InsertRefused("the deadline has passed", late=True, code=469))
            return
        insert.checked = True
        if self.world.chance(self.world.chances.kill_in_insert):
            self.world.fault("killed inside an insert", "clickhouse", _name(insert))
            self.kill()
            return
        self.world.loop.on_network(self._while(), self._store, insert)

    def _store(self, insert: Running) -> None:
        if insert.over:
            return
        if insert.reply.done():
            self.world.fault("insert outlives its client", "clickhouse", _name(insert))
        known = insert.token in self.tokens
        if insert.token and known:
            self.world.say("clickhouse", f"{_name(insert)}: its token is known, nothing is written")
            for part in self.parts:  # an insert that repeats another waits for that one's quorum
                part.visible = part.visible or part.token == insert.token
        else:
            if len(_by_partition(insert.table, insert.block)) > 1 and self.world.chance(
                10 * self.world.chances.kill_in_insert
            ):
                self.kill()  # between one partition's part and the next: never happens while the protocol cuts at the day
                return
            self._write(insert)
        if self.replicated and not known and self.world.chance(self.world.chances.lost_reply):
            self.world.fault("part shown later", "clickhouse", _name(insert))
            self.parts[-1].visible = False
            self.world.loop.on_network(self.world.rng.uniform(0.1, 12.0), self._show, self.parts[-1])
            self._end(insert, InsertUnknown("code 319: unknown status of insert"))
            return
        if self.world.chance(self.world.chances.lost_reply):
            kind = self.world.rng.choice(("lost reply", "unknown outcome"))
            self.world.fault(kind, "clickhouse", _name(insert))
            error = None if kind == "lost reply" else InsertUnknown("code 209: socket timeout")
            self._end(insert, error, silent=error is None)
            return
        self._end(insert, None)

    def _write(self, insert: Running, parts_max: int = 1 << 30) -> None:
        """Store the rows: atomically by partition, one part after the other."""
        for block in _by_partition(insert.table, insert.block)[:parts_max]:
            part = Part(insert.table, insert.stamp, block, insert.token)
            if self.replicated and self.world.rng.random() < 0.3:
                part.lags_until = self.world.now + self.world.rng.uniform(0.5, 10.0)
                self.world.fault("lagging replica", "clickhouse", _name(insert))
            self.parts.append(part)
        self._remember(insert.token)
        self.world.say("clickhouse", f"stored {_name(insert)}: {row_count(insert.block)} rows")

    def _remember(self, token: str) -> None:
        if token:
            self.tokens[token] = None
            while len(self.tokens) > TOKENS_MAX and not self.replicated:
                del self.tokens[next(iter(self.tokens))]

    def _show(self, part: Part) -> None:
        part.visible = True

    def _end(self, insert: Running, error: Exception | None, *, silent: bool = False) -> None:
        insert.over = True
        self.running.remove(insert)
        if not silent:
            self._answer(insert.reply, error)

    def _answer(self, reply: Any, error: Exception | None) -> None:
        def land() -> None:
            if reply.done():
                return
            if error is None:
                reply.set_result(None)
            else:
                reply.set_exception(error)

        back = self.world.latency(self.world.chances.slow_reply, "slow reply")
        self.world.loop.on_network(back, land)

    # ends of inserts

    def kill(self) -> None:
        """kill -9: what ran is stored or not; a token may be in its log without its part, on one server."""
        self.up = False
        self.world.fault("server killed", "clickhouse", f"{len(self.running)} inserts running")
        for insert in list(self.running):
            if insert.checked and (insert.token == "" or insert.token not in self.tokens):
                stage = self.world.rng.random()
                if stage < 0.4:
                    self._write(insert, 1 if stage < 0.2 else 1 << 30)
                elif stage < 0.8 and not self.replicated:
                    self._remember(insert.token)
            self._end(insert, InsertUnknown("the connection was reset"))
        self.world.loop.on_network(self.world.rng.uniform(0.3, 4.0), self._start)

    def _start(self) -> None:
        self.up = True
        self.world.say("clickhouse", "is up again")

    def kill_inserts(self, lane: int) -> None:
        """KILL QUERY ... SYNC: they have ended when it returns, with or without their rows."""
        for insert in [i for i in self.running if i.stamp.lane == lane]:
            if insert.checked and self.world.rng.random() < 0.5:
                self._store(insert)
            else:
                self._end(insert, InsertUnknown("code 394: query was cancelled"))


@dataclass(slots=True)
class SimSink:
    """A worker's client. `uses_tokens`, `consistent`, `one_partition` are what mutations remove or add."""

    world: World
    server: Server
    deadline_seconds: int = 4
    uses_tokens: bool | None = None
    consistent: bool = True
    one_partition: bool = True

    async def server_time(self) -> int:
        """Return the server's clock."""
        return await self._read("server_time", self.server.clock)

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        """Insert one block, as `Sink.insert`."""
        if self.one_partition:
            block = blocks.protocol_block(table, columns, stamp)
        else:
            block = _unchecked_block(table, columns, stamp)
        if row_count(block) == 0:
            return
        world = self.world
        name = f"insert {table} of batch {stamp.batch_no}, lane {stamp.lane}, send_by {stamp.send_by % 1000}"
        await world.point(f"before {name}")
        if world.chance(world.chances.unavailable):
            raise SinkUnavailable("connection refused")
        world.say(who(), name)
        tokens = self.server.replicated if self.uses_tokens is None else self.uses_tokens
        token = f"{stamp.lane}/{stamp.batch_no}/{table}" if tokens else ""
        reply = world.loop.create_future()
        reply.add_done_callback(lambda done: done.cancelled() or done.exception())
        if world.chance(world.chances.lost_request):
            world.fault("lost request", who(), name)
        else:
            delay = world.latency(world.chances.slow_request, "slow request")
            world.loop.on_network(delay, self.server.arrive, table, stamp, block, token, reply)
        self._give_up(reply, table)
        await world.point(f"after sending {name}")
        await reply
        await world.point(f"after the answer to {name}")

    def _give_up(self, reply: Any, table: str) -> None:
        """The client waits no longer than its deadline and a grace; sometimes its connection breaks before."""
        patience = self.deadline_seconds + ANSWER_GRACE_SECONDS
        if self.world.chance(self.world.chances.broken_connection):
            patience = self.world.rng.random() * 2.0
        error = InsertUnknown(f"no answer to an insert into {table}")
        self.world.loop.on_network(patience, lambda: reply.done() or reply.set_exception(error))

    async def insert_texts(self, table: str, hashes: Columns) -> None:
        """Insert distinct strings."""
        block = blocks.text_block(table, hashes)

        def write() -> None:
            key, text = block.values()
            self.server.texts[table].update(zip(key.tolist(), text, strict=True))

        await self._read(f"insert {table}", write)

    async def quiesce(self, lane: int) -> None:
        """Return when no insert of the lane runs on the server."""
        began = self.world.now

        def running() -> int:
            return sum(i.stamp.lane == lane for i in self.server.running)

        while await self._read("quiesce", running):
            if self.world.now - began > QUIESCE_PATIENCE_SECONDS:
                await self._read("kill", lambda: self.server.kill_inserts(lane))
            await self.world.rest(QUIESCE_POLL_SECONDS)

    async def ledger_end(self, lane: int) -> LedgerEntry | None:
        """Return the lane's last ledger entry."""
        return await self._read("ledger_end", lambda: at_once(self._view().ledger_end(lane)))

    async def batch_rows(self, lane: int, batch_no: int) -> Mapping[str, int]:
        """Return table -> rows of that batch."""
        found = await self._read("batch_rows", lambda: at_once(self._view().batch_rows(lane, batch_no)))
        self.world.say(who(), f"found of lane {lane}, batch {batch_no}: {found}")
        return found

    async def last_batches(self, lane: int, from_batch_no: int) -> Mapping[str, Sequence[int]]:
        """Return table -> batch numbers."""
        return await self._read(
            "last_batches", lambda: at_once(self._view().last_batches(lane, from_batch_no))
        )

    async def stored_events(self, lane: int, batch_no: int) -> StoredEvents:
        """Return the event rows of one batch."""
        return await self._read("stored_events", lambda: at_once(self._view().stored_events(lane, batch_no)))

    async def stored_reasons(self, lane: int, batch_no: int) -> StoredReasons:
        """Return the reasons of one batch's dead letters."""
        return await self._read(
            "stored_reasons", lambda: at_once(self._view().stored_reasons(lane, batch_no))
        )

    async def identities(self, lane: int, clock_from: int, before_batch_no: int) -> AsyncIterator[Identities]:
        """Yield the originals."""

        def found() -> list[Identities]:
            return at_once(_all(self._view().identities(lane, clock_from, before_batch_no)))

        for block in await self._read("identities", found):
            yield block

    async def rule_events(
        self, lane: int, clock_from: int, before_batch_no: int
    ) -> AsyncIterator[RuleEvents]:
        """Yield the rows that rule windows are rebuilt from."""

        def found() -> list[RuleEvents]:
            return at_once(_all(self._view().rule_events(lane, clock_from, before_batch_no)))

        for block in await self._read("rule_events", found):
            yield block

    async def last_record(
        self, lane: int, topic: int, before_batch_no: int, clock_from: int
    ) -> LastRecord | None:
        """Return the last record of a topic."""
        return await self._read(
            "last_record", lambda: at_once(self._view().last_record(lane, topic, before_batch_no, clock_from))
        )

    def _view(self) -> MemorySink:
        return self.server.view(consistent=self.consistent)

    async def _read(self, what: str, answer: Any) -> Any:
        await self.world.point(f"before {what}")
        if self.world.chance(self.world.chances.unavailable):
            raise SinkUnavailable(f"{what}: connection refused")

        def at_server() -> Any:
            if not self.server.up:
                raise SinkUnavailable(f"{what}: connection refused")
            return answer()

        found = await self.world.ask(at_server)
        await self.world.point(f"after {what}")
        return found


def at_once(coroutine: Any) -> Any:
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as ended:
        return ended.value
    raise AssertionError("it waits")


async def _all(found: AsyncIterator[Any]) -> list[Any]:
    return [block async for block in found]


def _name(insert: Running) -> str:
    return f"{insert.table} of batch {insert.stamp.batch_no}, lane {insert.stamp.lane}"


def _unchecked_block(table: str, columns: Columns, stamp: Stamp) -> Block:
    check = blocks._check_one_partition
    blocks._check_one_partition = lambda *_: None
    try:
        return blocks.protocol_block(table, columns, stamp)
    finally:
        blocks._check_one_partition = check


def _by_partition(table: str, block: Block) -> list[Block]:
    column, units = PARTITION_CLOCKS[table]
    days = block[column] // units
    if len(days) == 1 or days[0] == days[-1] == days.max() == days.min():
        return [block]
    return [
        {
            name: values[days == day] if isinstance(values, np.ndarray) else values
            for name, values in block.items()
        }
        for day in np.unique(days)
    ]
