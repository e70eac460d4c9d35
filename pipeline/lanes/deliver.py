"""Exactly once: intend, write, done; and the procedure in doubt.

The order is law. `intend` commits, on every topic's partition, what the batch will be and until when it may arrive;
only then anything is inserted: events first, everything derived from them after, the ledger row last. If any answer
is missing, the batch is *in doubt*: wait until the server itself would refuse what is still on its way, wait until
nothing of this lane runs there, intend the same batch again with a new deadline, and look at what is there.
Leaving out any one of these steps loses or doubles a batch (docs/exactly-once.md).
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from adledger.pipeline.errors import (
    AdledgerError,
    CommitFenced,
    CommitRefused,
    InsertRefused,
    InsertUnknown,
    LaneStopped,
    SinkError,
    SinkUnavailable,
)
from adledger.pipeline.lanes.compute import Computed, dead_letters, ledger_row, rollup_rows, stored_columns
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.ports import Phase, Ports, RolledUp
from adledger.pipeline.lanes.same_log import as_intended, of_other_records, refuse_other_records, same_times
from adledger.pipeline.log.source import Assignment, Committed
from adledger.pipeline.records.columns import I64, RecordRefs
from adledger.pipeline.retry import Attempt
from adledger.pipeline.stages.decode import DecodeContext, decode
from adledger.schemas.wire import Malformed
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.sink import Columns, LedgerEntry, Stamp, StoredEvents

T = TypeVar("T")

RETRIED = (SinkUnavailable, InsertRefused, InsertUnknown, CommitRefused)
"""What a call that may be repeated is repeated after."""

CLOCK_POLL_SECONDS_MAX = 1.0
TRIES_SHOWN = 5
TRIES_BETWEEN_LINES = 12
"""The first tries are shown one by one, then every twelfth: once a minute at the longest pause."""


@dataclass(frozen=True, slots=True)
class Records:
    """A batch's records in the lane's order, with the watermark (ms) at each; leader epochs as in the intent."""

    refs: RecordRefs
    clock: I64
    leader_epochs: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Settled:
    """A batch after doubt: done, or (`entry` None) to be cut again, of other records; `stored`: its rows were there already."""

    entry: LedgerEntry | None
    stored: StoredEvents | None


class Delivery:
    """Delivers one lane's batches in the name of one assignment. Raises CommitFenced, CommitUnknown, LaneStopped."""

    def __init__(self, ports: Ports, assignment: Assignment, context: DecodeContext) -> None:
        self._ports = ports
        self._assignment = assignment
        self._context = context
        self._lane = assignment.lane

    async def deliver(self, intent: Intent, records: Records, computed: Computed) -> LedgerEntry:
        """Write a batch; returns when its ledger row is in, by the straight way or through doubt."""
        async with self._stage("texts"):
            await self.patiently(lambda: self._ports.write_texts(computed.texts))
        async with self._stage("pace"):
            await self._ports.pace()
        async with self._stage("intend"):
            intent = await self.patiently(lambda: self._intend(intent))
        try:
            return await self._write(intent, computed)
        except (SinkUnavailable, InsertRefused, InsertUnknown) as error:
            self._ports.say(f"lane {self._lane}, batch {intent.batch_no}: in doubt. {error.message}")

        async def as_before() -> Computed:
            return computed

        settled = await self.settle(intent, records, as_before)
        assert settled.entry is not None, "these are the records that it was intended of"
        return settled.entry

    async def settle(
        self, intent: Intent, records: Records, compute: Callable[[], Awaitable[Computed]]
    ) -> Settled:
        """Bring a batch in doubt to its end. `compute` is asked only where no event row is there."""
        deadline, found, retry = self._ports.limits.write_deadline_seconds, intent, self._ports.limits.retry
        # A former owner read the clock before we joined: what it sent may arrive until then, plus the deadline.
        last = max(intent.send_by, await self.patiently(self._ports.sink.server_time) + deadline)
        for attempt in retry.attempts():
            self._ports.observer.phase(self._lane, Phase.IN_DOUBT, f"batch {intent.batch_no}")
            try:
                await self.patiently(lambda last=last: self._wait_past(last))  # type: ignore[misc]
                await self._ports.sink.quiesce(self._lane)
                intent = await self._intend(intent)
                last = intent.send_by
                there = await self._there(intent)
                computed = None
                if not as_intended(intent, records.refs, records.clock, records.leader_epochs):
                    return self._cut_again(intent, there)
                if not (there["ledger"] or there["events"]):
                    computed = await compute()
                    intent = await self._as_computed(intent, records, computed)
                    last = intent.send_by  # the later of the two: what is sent now may arrive until then
                settled = await self._finish(intent, records, there, computed)
            except (SinkError, CommitRefused) as error:
                self._say_try(attempt, f"batch {intent.batch_no} is still in doubt. {error.message}")
                if not attempt.is_last:
                    await retry.pause(attempt)
            except LaneStopped:
                # Who lost the lane meanwhile sees what its new owner writes: no reason to alarm anybody.
                committed = await self._ports.source.committed(self._lane)
                if not {c.metadata for c in committed.values()} <= {found.text(), intent.text()}:
                    raise CommitFenced(f"batch {intent.batch_no} is settled there") from None
                raise
            else:
                self._ports.say(f"lane {self._lane}, batch {intent.batch_no}: settled")
                self._ports.observer.phase(self._lane, Phase.RUNNING)
                return settled
        raise LaneStopped(
            f"lane {self._lane}: batch {intent.batch_no} could not be settled in {retry.attempts_max} tries",
            remedy="mend what the messages above name, then start the worker again",
        )

    def _cut_again(self, intent: Intent, there: Mapping[str, int]) -> Settled:
        """Give up an intent of records that the log no longer has: no row of it is there, nor can one arrive."""
        refuse_other_records(intent, there)
        self._ports.say(f"lane {self._lane}, batch {intent.batch_no}: cut again, the log was rewritten")
        return Settled(None, None)

    async def patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return what `call` does, which may be repeated: it is retried while ClickHouse does not answer or has no room.

        Or while the log refuses a commit: surely not done, so the same batch may be intended again.
        """
        waited = False

        def failed(error: AdledgerError, attempt: Attempt) -> None:
            nonlocal waited
            waited = True
            self._say_try(attempt, error.message)
            self._ports.observer.phase(self._lane, Phase.WAITING, error.message)

        found = await self._ports.limits.retry.call(call, RETRIED, failed)
        if waited:
            self._ports.observer.phase(self._lane, Phase.RUNNING)
        return found

    def _say_try(self, attempt: Attempt, what: str) -> None:
        if attempt.number <= TRIES_SHOWN or attempt.number % TRIES_BETWEEN_LINES == 0:
            self._ports.say(f"lane {self._lane}: {what}; {attempt}")

    @asynccontextmanager
    async def _stage(self, name: str) -> AsyncIterator[None]:
        began = time.perf_counter()
        yield
        self._ports.observer.stage(name, time.perf_counter() - began)

    async def _insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        """Insert, where there are rows, and tell the observer what came of it."""
        if not len(next(iter(columns.values()))):
            return
        try:
            async with self._stage(table):
                await self._ports.sink.insert(table, columns, stamp)
        except SinkError as error:
            self._ports.observer.inserted(table, type(error).__name__)
            raise
        self._ports.observer.inserted(table, "ok")

    async def _intend(self, intent: Intent) -> Intent:
        """Commit the intent with a new deadline, on every topic's partition, and return it as committed."""
        now = await self._ports.sink.server_time()
        intent = intent.with_send_by(now + self._ports.limits.write_deadline_seconds)
        text = intent.text()
        await self._ports.source.commit(
            self._assignment, {r.topic: Committed(r.start, text) for r in intent.ranges}
        )
        return intent

    async def _write(self, intent: Intent, computed: Computed) -> LedgerEntry:
        """Insert a batch's rows, in this order and no other."""
        stamp = intent.stamp
        await self._insert("events", computed.events, stamp)
        if computed.dead_rows:
            await self._insert("dead_letters", computed.dead_letters, stamp)
        rollup, entry = await self._derive(intent, computed.events, computed.dead_letters)
        await self._insert("rollup_minute", rollup, stamp)
        await self._announce(entry, rollup)
        await self._insert("ledger", ledger_columns(entry), stamp)
        return entry

    async def _announce(self, entry: LedgerEntry, rollup: Columns) -> None:
        """Tell the control path, before the ledger row: a message may come twice, and never not at all."""
        async with self._stage("announce"):
            await self._ports.announce(
                RolledUp(entry.epoch, entry.lane, entry.batch_no, entry.clock_after, rollup)
            )

    async def _derive(self, intent: Intent, events: Columns, dead: Columns) -> tuple[Columns, LedgerEntry]:
        def derive() -> tuple[Columns, LedgerEntry]:
            rollup = rollup_rows(events, intent.clock_after)
            return rollup, ledger_row(intent, events, dead, rollup)

        return await self._ports.run_cpu(derive)

    async def _finish(
        self, intent: Intent, records: Records, there: Mapping[str, int], computed: Computed | None
    ) -> Settled:
        """Insert what is not `there` (table -> rows). Everything but events is made from the event rows read back.

        `computed` is given where no event row is there.
        """
        sink = self._ports.sink
        if there["ledger"]:
            entry = await sink.ledger_end(self._lane)
            assert entry is not None, "its row was counted"
            return Settled(entry, await sink.stored_events(self._lane, intent.batch_no))
        if computed is not None:
            await self._insert("events", computed.events, intent.stamp)
        stored = await sink.stored_events(self._lane, intent.batch_no)
        self._whole("events", len(stored.offset), intent.event_rows)
        events = stored_columns(stored)
        if len(stored.judge_version):
            # On replicas a part that was not shown yet may be there after all: then its rows, and who judged them, stand.
            intent = replace(intent, judge_version=int(stored.judge_version[0]))
        dead = self._dead_letters(intent, records, stored)
        rollup, entry = await self._derive(intent, events, dead)
        for table, columns, rows in (
            ("dead_letters", dead, intent.dead_rows),
            ("rollup_minute", rollup, entry.rollup_rows),
        ):
            if there[table]:
                self._whole(table, there[table], rows)
            else:
                await self._insert(table, columns, intent.stamp)
        await self._announce(entry, rollup)
        await self._insert("ledger", ledger_columns(entry), intent.stamp)
        return Settled(entry, stored if computed is None else None)

    async def _there(self, intent: Intent) -> Mapping[str, int]:
        """Return what the tables hold of the batch, without rows that a person ordered away."""
        there = await self._ports.sink.batch_rows(self._lane, intent.batch_no)
        if there["ledger"] or not any(there.values()):
            return there
        given = [o for o in await self._ports.orders.orders(self._lane) if o.clears(intent.batch_no)]
        if not given:
            return there
        found = await self._ports.orders.leftovers(self._lane, intent.batch_no)
        for order in given:
            if set(found) <= set(order.leftovers):
                self._ports.say(
                    f"lane {self._lane}, batch {intent.batch_no}: its rows are removed, as ordered"
                )
                await self._ports.orders.clear(self._lane, intent.batch_no, max(r.send_by for r in found))
                return await self._ports.sink.batch_rows(self._lane, intent.batch_no)
        return there

    async def _as_computed(self, intent: Intent, records: Records, computed: Computed) -> Intent:
        """Return the intent of what this release makes of the batch as the log has it, committed again where it differs."""
        now = replace(
            intent,
            event_rows=computed.event_rows,
            dead_rows=computed.dead_rows,
            malformed=computed.malformed,
            judge_version=computed.judge_version,
            leader_epochs=records.leader_epochs,
        )
        return intent if now == intent else await self._intend(now)

    def _dead_letters(self, intent: Intent, records: Records, stored: StoredEvents) -> Columns:
        """Return the dead letters: the batch's records that are no event rows, with the reason found now."""
        is_event = np.zeros(len(records.refs), bool)
        for topic in range(len(self._ports.topology.topics)):
            of_topic = records.refs.topic == topic
            is_event[of_topic] = np.isin(
                records.refs.offset[of_topic], stored.offset[stored.topic == topic], assume_unique=True
            )
        if not same_times(records.refs.take(is_event), stored):
            raise of_other_records(intent, "events")
        dead = np.flatnonzero(~is_event)
        self._whole("dead_letters (by the log)", len(dead), intent.dead_rows)
        refs = records.refs.take(dead)
        reason = decode(refs, self._context).status.copy()
        reason[reason == Malformed.OK] = Malformed.REJECTED_EARLIER
        rows = dead_letters(refs, records.clock[dead], reason)
        if intent.malformed is not None:
            malformed = int(rows["records"].sum(dtype=np.uint64))
            self._whole("dead_letters (records, by the log)", malformed, intent.malformed)
        return rows

    def _whole(self, table: str, found: int, intended: int) -> None:
        if found != intended:
            raise LaneStopped(
                f"lane {self._lane}: {table} has {found} rows of the batch under way, {intended} were intended",
                remedy="an insert was not atomic or rows were altered: look at them, then let the batch be written again: "
                f"adledger lane resolve {self._lane} --reason TEXT --dry-run",
            )

    async def _wait_past(self, second: int) -> None:
        """Return when the server's clock is past a second."""
        while (now := await self._ports.sink.server_time()) <= second:  # noqa: ASYNC110 - another machine's clock
            await asyncio.sleep(min(CLOCK_POLL_SECONDS_MAX, second - now + 0.1))
