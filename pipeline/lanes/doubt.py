"""A batch in doubt: it is unknown whether its rows are in the tables. It is settled in this order, which must not change.

1. Wait until the server's clock is past the last deadline by which any row of the batch may arrive: that of the intent,
   since rows are sent only under an intent that was committed, and later ones are refused. A count before then could miss
   rows that arrive later. Where the intent is still the one that this process sent, and each of its inserts was answered
   OK, none can.
2. Wait until none of the lane's inserts runs on the server: one that began in time may still end. This comes after 1,
   since an insert could otherwise begin while the deadline is waited for.
3. Commit the same intent with a new deadline, which fences off a worker that lost the lane meanwhile.
4. Count the batch's rows, and check that the log still has the records that were intended. If the log has others, or
   they can't be read, the batch is cut again, or the lane halts if there are rows. Otherwise: all rows, continue; none,
   insert; some, the lane halts. If there are no rows, this release evaluates the batch, and commits *its* result before it
   inserts. All other tables are derived from the event rows read back, so that two releases can't make two tables
   disagree; so are the reasons of dead letters that are there already. Dead letters without events are a batch that had
   none.
5. If that fails, repeat from 1, with the deadline of the last intent that was committed.

Leaving out any step loses or doubles a batch: docs/exactly-once.md shows the shortest way to each harm.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from adledger.pipeline.errors import CommitFenced, CommitRefused, LaneHalted, SinkError, SinkUnavailable
from adledger.pipeline.halts import HaltReason, override_command
from adledger.pipeline.lanes.compute import Computed, dead_letters, definition_of, stored_columns
from adledger.pipeline.lanes.delivery import Delivery
from adledger.pipeline.lanes.events import BatchCutAgain, BatchSettled, LeftoversRemoved, Phase
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.log_identity import (
    as_intended,
    of_other_records,
    refuse_other_records,
    same_times,
)
from adledger.pipeline.lanes.phase_tracker import PhaseTracker
from adledger.pipeline.lanes.ports import Ports
from adledger.pipeline.records.columns import U8, RecordRefs
from adledger.pipeline.stages.decode import DecodeContext, decode
from adledger.pipeline.stages.merge import OrderedRecords
from adledger.schemas.wire import Malformed
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.sink import Columns, LedgerEntry, StoredEvents

CLOCK_POLL_SECONDS_MAX = 1.0


@dataclass(frozen=True, slots=True)
class Settled:
    """A batch after doubt: done, or (`entry` None) to be cut again. `stored`: event rows that were there already."""

    entry: LedgerEntry | None
    stored: StoredEvents | None


class Settlement:
    """Settles one lane's batches in doubt, with its delivery's inserts and commits. Not safe for concurrent tasks."""

    def __init__(self, ports: Ports, delivery: Delivery, context: DecodeContext, phase: PhaseTracker) -> None:
        self._ports, self._delivery = ports, delivery
        self._context, self._phase = context, phase
        self._lane = context.lane

    async def settle(
        self,
        intent: Intent,
        records: OrderedRecords | None,
        leader_epochs: tuple[int, ...],
        compute: Callable[[], Awaitable[Computed]],
        *,
        quiet: bool = False,
    ) -> Settled:
        """Settle a batch. `compute` is called only if there are no rows.

        `quiet`: this process sent the intent, and no row under it is on its way; rows under earlier ones were waited for
        before it was sent. There is no deadline to wait for then.
        `records`, and `leader_epochs` as in the intent, are the batch's as the log has them now; None: they can't be read.
        Raises CommitFenced, CommitUnknown, LaneHalted, LaneStopped; SinkError after the last try, if the policy has a last.
        """
        found, retry = intent, replace(self._ports.limits.retry, sleep=self._delivery.pause)
        last = 0 if quiet else await self._last_send_by(intent)
        away = ""  # and not the error itself: its traceback refers to this frame, and to the batch
        for attempt in retry.attempts():
            self._phase.enter(Phase.IN_DOUBT, f"batch {intent.batch_no}")
            try:
                await self._delivery.retry(lambda last=last: self._wait_past(last))  # type: ignore[misc]
                await self._ports.sink.quiesce(self._lane)
                intent = await self._delivery.intend(intent)
                last = intent.send_by
                there = await self._find_rows(intent)
                computed = None
                if records is None or not as_intended(intent, records.refs, records.clock, leader_epochs):
                    return self._cut_again(intent, there)
                if not any(there.values()):
                    computed = await compute()
                    intent = await self._as_computed(intent, leader_epochs, computed)
                    last = intent.send_by  # the later of the two: inserts from now on may arrive until then
                settled = await self._finish(intent, records, there, computed)
            except (SinkError, CommitRefused) as error:
                away = str(error)
                if not attempt.is_last:
                    self._delivery.note_retry(error, attempt, intent.batch_no)
                    await retry.pause(attempt)
            except LaneHalted:
                # A worker that lost the lane sees rows of the new owner, which is no reason to alarm an operator.
                committed = await self._ports.source.committed(self._lane)
                if not {c.metadata for c in committed.values()} <= {found.text(), intent.text()}:
                    raise CommitFenced(f"batch {intent.batch_no} is settled by another worker") from None
                raise
            else:
                self._ports.emit(BatchSettled(self._lane, intent.batch_no))
                self._phase.enter(Phase.RUNNING)
                return settled
        raise SinkError(
            f"lane {self._lane}: batch {intent.batch_no} could not be settled in {retry.attempts_max} tries: {away}",
            remedy="fix what the message names, then start the worker again",
        )

    async def _last_send_by(self, intent: Intent) -> int:
        """Return the second until which rows of a batch may arrive.

        An override has no deadline. A worker that read the clock before the override was committed may send until then, plus the
        deadline: its own, which is that of the committed intents, or this worker's.
        """
        if intent.send_by:
            return intent.send_by
        now = await self._delivery.retry(self._ports.sink.server_time)
        return max(now + self._ports.limits.write_deadline_seconds, await self._committed_send_by())

    async def _committed_send_by(self) -> int:
        """Return the latest deadline of the committed intents, 0 if none can be read: an override may replace such a one."""
        committed = await self._ports.source.committed(self._lane)
        deadlines = [0]
        for c in committed.values():
            with suppress(LaneHalted):
                deadlines.append(Intent.parse(c.metadata, "").send_by)
        return max(deadlines)

    def _cut_again(self, intent: Intent, there: Mapping[str, int]) -> Settled:
        """Give up an intent whose records the log no longer has: it has no rows, and none can arrive."""
        refuse_other_records(intent, there)
        self._ports.emit(BatchCutAgain(self._lane, intent.batch_no))
        return Settled(None, None)

    async def _finish(
        self, intent: Intent, records: OrderedRecords, there: Mapping[str, int], computed: Computed | None
    ) -> Settled:
        """Insert the tables that have no rows (`there`: table -> rows). All but events derive from the event rows read back.

        `computed` is None if there are rows.
        """
        sink = self._ports.sink
        if there["ledger"]:
            entry = await self._own_entry(intent)
            return Settled(entry, await sink.stored_events(self._lane, intent.batch_no))
        if computed is not None:
            await self._delivery.insert("events", computed.events, intent.stamp)
        stored = await sink.stored_events(self._lane, intent.batch_no)
        self._check_whole("events", len(stored.offset), intent.event_rows)
        events = stored_columns(stored)
        if len(stored.judge_version):
            # On replicas a part may appear late: then its rows count, and so does the rule set that evaluated them.
            intent = replace(intent, judge_version=int(stored.judge_version[0]))
        dead = await self._dead_letters(intent, records, stored, there["dead_letters"])
        definition = definition_of(stored, self._ports.limits.close_delays)
        rollup, entry = await self._delivery.derive(intent, events, dead, definition)
        for table, columns, rows in (
            ("dead_letters", dead, intent.dead_rows),
            ("rollup_minute", rollup, entry.rollup_rows),
        ):
            if there[table]:
                self._check_whole(table, there[table], rows)
            else:
                await self._delivery.insert(table, columns, intent.stamp)
        await self._delivery.announce(entry, rollup)
        await self._delivery.insert("ledger", ledger_columns(entry), intent.stamp)
        return Settled(entry, stored if computed is None else None)

    async def _own_entry(self, intent: Intent) -> LedgerEntry:
        """Return the batch's ledger entry, which is the lane's last as long as this worker owns the lane.

        A worker that was paused may find a later one: it would go on after that batch without its ids, and bill them twice.
        """
        entry = await self._ports.sink.ledger_end(self._lane)
        if entry is None or entry.batch_no < intent.batch_no:
            raise SinkUnavailable(
                f"the ledger row of batch {intent.batch_no} was counted, and can't be read yet"
            )
        if entry.batch_no > intent.batch_no:
            raise CommitFenced(f"the ledger has batch {entry.batch_no}, written by another worker")
        return entry

    async def _find_rows(self, intent: Intent) -> Mapping[str, int]:
        """Return table -> rows of the batch, after clearing what an operator's override names."""
        there = await self._ports.sink.batch_rows(self._lane, intent.batch_no)
        if there["ledger"] or not any(there.values()):
            return there
        overrides = [o for o in await self._ports.overrides.of_lane(self._lane) if o.clears(intent.batch_no)]
        if not overrides:
            return there
        found = await self._ports.overrides.leftovers(self._lane, intent.batch_no)
        for override in overrides:
            if set(found) <= set(override.leftovers):
                self._ports.emit(LeftoversRemoved(self._lane, intent.batch_no))
                await self._ports.overrides.clear(self._lane, intent.batch_no, max(r.send_by for r in found))
                return await self._ports.sink.batch_rows(self._lane, intent.batch_no)
        return there

    async def _as_computed(
        self, intent: Intent, leader_epochs: tuple[int, ...], computed: Computed
    ) -> Intent:
        """Return the intent of what this release computed, committed again if it differs."""
        now = replace(
            intent,
            event_rows=computed.event_rows,
            dead_rows=computed.dead_rows,
            malformed=computed.malformed,
            judge_version=computed.judge_version,
            leader_epochs=leader_epochs,
        )
        return intent if now == intent else await self._delivery.intend(now)

    async def _dead_letters(
        self, intent: Intent, records: OrderedRecords, stored: StoredEvents, there: int
    ) -> Columns:
        """Return the dead letters: the batch's records without an event row.

        Their reasons are those of the rows that are `there`; if there are none, those that this release finds.
        """
        is_event = np.zeros(len(records.refs), bool)
        for topic in range(len(self._ports.topology.topics)):
            of_topic = records.refs.topic == topic
            is_event[of_topic] = np.isin(
                records.refs.offset[of_topic], stored.offset[stored.topic == topic], assume_unique=True
            )
        if not same_times(records.refs.take(is_event), stored):
            raise of_other_records(intent, "events")
        dead = np.flatnonzero(~is_event)
        self._check_whole("dead_letters (by the log)", len(dead), intent.dead_rows)
        refs = records.refs.take(dead)
        if there:
            self._check_whole("dead_letters", there, len(dead))
            reason = await self._stored_reasons(intent, refs)
        else:
            reason = decode(refs, self._context).status.copy()
            reason[reason == Malformed.OK] = Malformed.REJECTED_EARLIER
        rows = dead_letters(refs, records.clock[dead], reason)
        if intent.malformed is not None:
            malformed = int(rows["records"].sum(dtype=np.uint64))
            self._check_whole("dead_letters (records, by the log)", malformed, intent.malformed)
        return rows

    async def _stored_reasons(self, intent: Intent, refs: RecordRefs) -> U8:
        """Return why records are malformed, by the rows in `dead_letters`: another release may have written them."""
        stored = await self._ports.sink.stored_reasons(self._lane, intent.batch_no)
        order = np.lexsort((refs.offset, refs.topic))
        if not (
            np.array_equal(refs.topic[order], stored.topic)
            and np.array_equal(refs.offset[order], stored.offset)
        ):
            raise of_other_records(intent, "dead_letters")
        reason = np.empty(len(refs), np.uint8)
        reason[order] = stored.reason_code
        return reason

    def _check_whole(self, table: str, found: int, intended: int) -> None:
        if found != intended:
            raise LaneHalted(
                f"lane {self._lane}: {table} has {found} rows of the current batch, {intended} were intended",
                reason=HaltReason.ROWS_INCOMPLETE,
                remedy="an insert was not atomic or rows were altered: inspect them, then have the batch written "
                f"again: {override_command(HaltReason.ROWS_INCOMPLETE, self._lane)}",
            )

    async def _wait_past(self, second: int) -> None:
        """Return when the server's clock is past a second."""
        while (now := await self._ports.sink.server_time()) <= second:
            await self._delivery.pause(min(CLOCK_POLL_SECONDS_MAX, second - now + 0.1))
