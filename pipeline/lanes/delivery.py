"""The normal path of a batch: intend, write, done. The order must not change.

1. *Intend*: commit the offsets where the batch begins, on every topic's partition, with a description of the batch and the
   deadline of its rows. Rows written before the intent could not be distinguished from another worker's.
2. *Write*: events, then the tables that derive from them. In another order, a batch that another release evaluates again
   would leave tables that disagree.
3. *Done*: the ledger row, last. A ledger row before its rows would vouch for rows that may never come.

Only then is the next batch intended. If any answer is missing, the batch is in doubt (adledger.pipeline.lanes.doubt).
docs/exactly-once.md tells what each step protects, and the shortest way to harm without it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TypeVar

from adledger.pipeline.errors import (
    AdledgerError,
    CommitRefused,
    InsertRefused,
    InsertUnknown,
    LaneStopped,
    SinkError,
    SinkUnavailable,
)
from adledger.pipeline.lanes.compute import Computed, ledger_row, rollup_rows
from adledger.pipeline.lanes.events import InsertDone, InsertFailed, Phase, RetryScheduled, StageTimed
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.phase_tracker import PhaseTracker
from adledger.pipeline.lanes.ports import Ports, RolledUp
from adledger.pipeline.log.source import Assignment, Committed
from adledger.pipeline.retry import Attempt, RetryPolicy
from adledger.schemas.digests import CURRENT
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.sink import Columns, LedgerEntry, Stamp

T = TypeVar("T")

DOUBT = (SinkUnavailable, InsertRefused, InsertUnknown)
"""Errors of a write that leave its batch in doubt."""

RETRIED = (*DOUBT, CommitRefused)
"""Errors after which an idempotent call is repeated."""

ANNOUNCE_PAUSE_MS_MAX = 500
"""The longest pause between two announcements: a partition of `rollups_topic` that moves has a new leader soon."""

STOP_GRACE_SECONDS = 1.0
"""How long a lane that is stopped waits for an announcement under way, which takes milliseconds while brokers answer."""


@dataclass(frozen=True, slots=True)
class SentIntent:
    """The newest intent that this process sent for a lane, as committed ("": none).

    `quiet`: each insert that this process sent under it was answered OK, so no row of it is on its way. While an insert is
    not answered, and after one that failed, it is not.
    """

    text: str = ""
    quiet: bool = True


NO_INTENT = SentIntent()


class Delivery:
    """Delivers one lane's batches under one assignment. Not safe for concurrent tasks.

    Waits end with LaneStopped once `stopping` is set. `sent` is what this process last intended, perhaps in an earlier run.
    """

    def __init__(
        self,
        ports: Ports,
        assignment: Assignment,
        phase: PhaseTracker,
        stopping: asyncio.Event,
        sent: SentIntent,
    ) -> None:
        self._ports, self._assignment, self._phase = ports, assignment, phase
        self._lane = assignment.lane
        self._stopping = stopping
        self.sent = sent

    async def prepare(self, intent: Intent, computed: Computed) -> Intent:
        """Do what precedes the rows: dimension strings, the rate limit, the intent. Returns the intent as committed.

        Raises CommitFenced, CommitUnknown, and what `retry` does.
        """
        async with self._stage("texts"):
            await self.retry(lambda: self._ports.write_texts(computed.texts))
        async with self._stage("pace"):
            await self._ports.pace()
        async with self._stage("intend"):
            return await self.retry(lambda: self.intend(intent))

    async def intend(self, intent: Intent) -> Intent:
        """Commit the intent with a new deadline, on every topic's partition, and return it as committed.

        Rows are inserted only when every partition has it: otherwise the next owner finds rows that nothing explains.
        """
        now = await self._ports.sink.server_time()
        intent = intent.with_send_by(now + self._ports.limits.write_deadline_seconds, self._assignment.name)
        text = intent.text()
        self.sent = SentIntent(text)
        await self._ports.source.commit(
            self._assignment, {r.topic: Committed(r.start, text) for r in intent.ranges}
        )
        return intent

    async def write(self, intent: Intent, computed: Computed) -> LedgerEntry:
        """Insert a batch's rows, in this order and no other. Raises what DOUBT names: the batch is in doubt then.

        Events come first, since after doubt the others derive from them; the ledger row is last, since it vouches for
        the others.
        """
        stamp = intent.stamp
        await self.insert("events", computed.events, stamp)
        if computed.dead_rows:
            await self.insert("dead_letters", computed.dead_letters, stamp)
        rollup, entry = await self.derive(intent, computed.events, computed.dead_letters)
        await self.insert("rollup_minute", rollup, stamp)
        await self.announce(entry, rollup)
        await self.insert("ledger", ledger_columns(entry), stamp)
        return entry

    async def retry(self, call: Callable[[], Awaitable[T]], policy: RetryPolicy | None = None) -> T:
        """Return the result of an idempotent call, retried while ClickHouse does not answer or has no room.

        Also while the log refuses a commit: it was not done, so the same batch may be intended again. Raises LaneStopped
        instead of another try once the lane is stopped.
        """
        before, policy = self._phase.current, policy or self._ports.limits.retry

        def failed(error: AdledgerError, attempt: Attempt) -> None:
            self.note_retry(error, attempt)
            self._phase.enter(Phase.WAITING, error.message)

        found = await replace(policy, sleep=self.pause).call(call, RETRIED, failed)
        self._phase.resume(before)
        return found

    async def pause(self, seconds: float) -> None:
        """Wait. Raises LaneStopped when the lane is stopped: what it waits for, its next owner waits for too."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise LaneStopped(
            f"stopped while it waited: {self._phase.current.detail}",
            remedy="Nothing to do: its next owner continues.",
        )

    def note_retry(self, error: AdledgerError, attempt: Attempt, batch_no: int | None = None) -> None:
        """Report that a try failed and another follows; `batch_no`: while settling that batch."""
        code = error.code if isinstance(error, InsertRefused) else 0
        self._ports.emit(
            RetryScheduled(self._lane, error.message, attempt.number, attempt.attempts_max, code, batch_no)
        )

    @asynccontextmanager
    async def _stage(self, name: str) -> AsyncIterator[None]:
        began = time.perf_counter()
        yield
        self._ports.emit(StageTimed(name, time.perf_counter() - began))

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        """Insert the rows, if any, and report the outcome."""
        if not len(next(iter(columns.values()))):
            return
        quiet, self.sent = self.sent, replace(self.sent, quiet=False)
        try:
            async with self._stage(table):
                await self._ports.sink.insert(table, columns, stamp)
        except SinkError as error:
            code = error.code if isinstance(error, InsertRefused) else 0
            self._ports.emit(InsertFailed(stamp.lane, stamp.batch_no, table, type(error).__name__, code))
            raise
        self.sent = quiet
        self._ports.emit(InsertDone(table))

    async def announce(self, entry: LedgerEntry, rollup: Columns) -> None:
        """Notify the control path before the ledger row: a message may come twice, and is never missing.

        A message that is not accepted is sent again, and puts no batch in doubt: no row depends on it. Raises LaneStopped.
        """
        batch = RolledUp(entry.epoch, entry.lane, entry.batch_no, entry.clock_after, rollup)
        often = self._ports.limits.retry.oftener(ANNOUNCE_PAUSE_MS_MAX)
        async with self._stage("announce"):
            await self.retry(lambda: self._announce(batch), often)

    async def _announce(self, batch: RolledUp) -> None:
        """Send one announcement; one under way is given up some time after the lane is stopped."""
        sending = asyncio.ensure_future(self._ports.announce(batch))
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait((sending, stopped), return_when=asyncio.FIRST_COMPLETED)
            if not sending.done():
                await asyncio.wait((sending,), timeout=STOP_GRACE_SECONDS)
            if not sending.done():
                raise LaneStopped(
                    f"stopped while batch {batch.batch_no} was announced",
                    remedy="Nothing to do: its next owner continues.",
                )
            sending.result()
        finally:
            sending.cancel()
            stopped.cancel()
            del sending  # it has the error, whose traceback refers to this frame: a cycle, with the rollup

    async def derive(
        self, intent: Intent, events: Columns, dead: Columns, definition: int = CURRENT
    ) -> tuple[Columns, LedgerEntry]:
        """Return the rollup and the ledger entry that follow from a batch's rows."""

        def derive() -> tuple[Columns, LedgerEntry]:
            rollup = rollup_rows(events, intent.clock_after, self._ports.limits.slot_secret)
            return rollup, ledger_row(intent, events, dead, rollup, definition)

        return await self._ports.run_cpu(derive)
