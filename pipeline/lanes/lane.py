"""A lane, read top to bottom: recover, then fetch, cut, compute and deliver for as long as this worker owns it."""

import asyncio
import time
from collections.abc import Mapping, Sequence

from adledger.pipeline.errors import UnreadableBatch
from adledger.pipeline.lanes.buffer import Batch, LaneBuffer
from adledger.pipeline.lanes.compute import Computed, compute
from adledger.pipeline.lanes.delivery import DOUBT, NO_INTENT, Delivery, SentIntent
from adledger.pipeline.lanes.doubt import Settlement
from adledger.pipeline.lanes.evaluator_choice import EvaluatorChoice
from adledger.pipeline.lanes.events import (
    BatchDone,
    BatchInDoubt,
    ParentAwaited,
    Phase,
    ReasonsCounted,
    RecordsFetched,
    RulesNotEvaluated,
    StageTimed,
)
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.phase_tracker import PhaseTracker
from adledger.pipeline.lanes.ports import Ports
from adledger.pipeline.lanes.read_again import FETCH_WAIT_MS_MAX, read_again
from adledger.pipeline.lanes.recovery import find_start
from adledger.pipeline.lanes.snapshot import Start
from adledger.pipeline.lanes.state import CachedState, StateKeeper
from adledger.pipeline.log.leader_epochs import NO_EPOCH
from adledger.pipeline.log.source import Assignment
from adledger.pipeline.stages.decode import DecodeContext
from adledger.pipeline.stages.merge import OrderedRecords
from adledger.sinks.sink import LedgerEntry, OffsetRange

PARENT_POLL_SECONDS = 1.0
"""How often a new lane checks whether its parent has reached the repartition barrier."""

NOT_DONE = "This worker was interrupted before it was in the ledger, and no insert of it is on its way"
INTENDED_BEFORE = "An earlier owner intended it, and it is not in the ledger"


class Lane:
    """One lane in one assignment. `run` ends after `stop`, or when the lane has reached `until` (topic -> offset).

    `cached` and `sent` are from an earlier run in this process: its state, used if no other worker wrote a batch since, and
    the intent that it sent last.
    """

    def __init__(
        self,
        ports: Ports,
        assignment: Assignment,
        slots: asyncio.Semaphore,
        until: Mapping[int, int] | None,
        cached: CachedState | None = None,
        sent: SentIntent = NO_INTENT,
    ) -> None:
        self.lane = assignment.lane
        self.records = 0
        self.progressed = False  # it has completed a batch
        self.batch: tuple[OffsetRange, ...] = ()  # that it works on
        self._ports = ports
        self._slots = slots
        self._until = until
        self.starting = True
        """Whether it still reads where it begins, and its state: it has sent nothing, so it may be cancelled."""
        self._stopping = asyncio.Event()
        topology, limits = ports.topology, ports.limits
        self._epoch = topology.epoch
        self._context = DecodeContext(self.lane, topology.partitions, topology.kinds, limits.default_currency)
        self._phase = PhaseTracker(self.lane, ports.emit)
        self._delivery = Delivery(ports, assignment, self._phase, self._stopping, sent)
        self._settlement = Settlement(ports, self._delivery, self._context, self._phase)
        self._keeper = StateKeeper(ports, self.lane, self._phase)
        self.cached = cached
        """State for a later run; None while a batch is partly in it, and while it is built."""
        self._choice = EvaluatorChoice(
            self.lane, ports.rules_in_force, self._keeper.state, self._delivery.retry
        )

    def stop(self) -> None:
        """Let the lane finish its current batch and end."""
        self._stopping.set()

    @property
    def sent(self) -> SentIntent:
        """The intent that was sent last, for a later run."""
        return self._delivery.sent

    async def run(self) -> None:
        """Work. Raises CommitFenced, CommitUnknown, LaneHalted, LaneStopped, UnreadableBatch, LogError, SinkError."""
        found = await self._delivery.retry(lambda: find_start(self._ports, self.lane))
        start = await self._after_parent(found)
        if start is None:
            return
        self._ports.source.resume(self.lane, start.positions, start.leader_epochs)
        self._epoch = start.epoch or self._epoch
        restored, self.cached = self._keeper.restore(self.cached, start, self._epoch), None
        if not restored:
            await self._keeper.rebuild(start)
        self._keep_state(start.batch_no, start.clock)
        self.starting = False
        batch_no, clock, positions = start.batch_no, start.clock, start.positions
        if start.pending is not None:
            settled = await self._settle(start.pending)
            if settled is not None:
                batch_no, clock = settled.batch_no + 1, settled.clock_after
                positions = {r.topic: r.end for r in settled.ranges}
        self._keep_state(batch_no, clock)
        await self._choice.begin(batch_no)
        buffer = LaneBuffer(positions, self._ports.limits.batch)
        idle_since = asyncio.get_running_loop().time()
        while not self._stopping.is_set() and not self._reached(buffer):
            await self._gather_some(buffer)
            buffer.check()
            if not buffer.rows and buffer.drained and self._until is None:
                self._phase.enter(Phase.IDLE)
                batch = await self._idle_batch(buffer, clock, idle_since)
                if batch is None:
                    continue
                entry = await self._deliver(batch, batch_no)
            else:
                self._phase.enter(Phase.RUNNING)
                async with self._slots:
                    batch = await self._gather_batch(buffer, clock)
                    if batch is None:
                        continue
                    entry = await self._deliver(batch, batch_no)
            batch_no, clock = entry.batch_no + 1, entry.clock_after
            self._keep_state(batch_no, clock)
            self.progressed, self.batch = True, ()
            self.records += entry.records_received
            idle_since = asyncio.get_running_loop().time()
            self._ports.emit(BatchDone(entry, self._keeper.state.dedupe.taken))

    async def _after_parent(self, start: Start) -> Start | None:
        """Return the start once the parent lane has reached the barrier, or None after `stop`."""
        override = start.awaits
        if override is None:
            return start
        waits = ParentAwaited(self.lane, override.parent, override.parent_ends)
        self._ports.emit(waits)
        while not self._stopping.is_set():
            self._phase.enter(Phase.REBUILDING, waits.what)
            entry = await self._delivery.retry(
                lambda: self._ports.overrides.entry_reaching(override.parent, override.parent_ends)
            )
            if entry is not None:
                return start.after(entry)
            await asyncio.sleep(PARENT_POLL_SECONDS)
        return None

    def _keep_state(self, batch_no: int, clock: int) -> None:
        self.cached = CachedState(self._keeper.state, self._epoch, batch_no, clock)

    async def _settle(self, intent: Intent) -> LedgerEntry | None:
        """Settle the batch that an earlier owner, or this worker before, intended. None: it is to be cut again."""
        quiet = self._delivery.sent == SentIntent(intent.text())
        self._ports.emit(BatchInDoubt(self.lane, NOT_DONE if quiet else INTENDED_BEFORE, intent.batch_no))
        self.batch = intent.ranges
        records = await read_again(self._ports, self._delivery, intent)
        leader_epochs = () if intent.is_override else self._leader_epochs(intent.ranges)
        computed_now: list[Computed] = []

        async def again() -> Computed:
            assert records is not None, "a batch is not computed of records that can't be read"
            if not computed_now:
                computed_now.append(
                    await self._compute(records, intent.batch_no, intent.clock_before, intent.clock_after)
                )
            return computed_now[0]

        settled = await self._settlement.settle(intent, records, leader_epochs, again, quiet=quiet)
        if settled.stored is not None and not computed_now:
            self.cached = None
            self._keeper.absorb(settled.stored)
        if computed_now:
            await self._delivery.retry(lambda: self._ports.write_texts(computed_now[0].texts))
        self.progressed, self.batch = settled.entry is not None, ()
        return settled.entry

    def _leader_epochs(self, ranges: Sequence[OffsetRange]) -> tuple[int, ...]:
        """Return the leader epoch before each range's end, as read; () if none is known."""
        known = self._ports.source.leader_epochs(self.lane, {r.topic: r.end for r in ranges})
        return tuple(known.get(r.topic, NO_EPOCH) for r in ranges) if known else ()

    async def _gather_some(self, buffer: LaneBuffer) -> None:
        wanted = buffer.wanted()
        if wanted:
            limits = self._ports.limits
            try:
                fetched = await self._ports.source.fetch(
                    self.lane, wanted, limits.fetch_bytes_max, FETCH_WAIT_MS_MAX
                )
            except UnreadableBatch as error:
                buffer.end_at(error)
                return
            buffer.add(fetched)
            for f in fetched:
                size = sum(batch.size for batch in f.batches)
                name = self._ports.topology.topics[f.topic]
                self._ports.emit(RecordsFetched(self.lane, name, size, max(0, f.end_offset - f.next_offset)))

    async def _idle_batch(self, buffer: LaneBuffer, clock: int, idle_since: float) -> Batch | None:
        """Return the empty batch that advances an idle lane's watermark, or None if it is not due."""
        idle_watermark = self._ports.limits.idle_watermark
        if idle_watermark is None:
            return None
        if asyncio.get_running_loop().time() < idle_since + idle_watermark.every_seconds:
            return None
        now = await self._delivery.retry(self._ports.sink.server_time)
        clock_after = (now - idle_watermark.skew_seconds) * 1000
        return buffer.idle(clock, clock_after) if clock_after > clock else None

    async def _gather_batch(self, buffer: LaneBuffer, clock: int) -> Batch | None:
        """Fetch until a batch is full, old enough, or at the log's end; None if there are no records."""
        loop = asyncio.get_running_loop()
        closes = loop.time() + self._ports.limits.batch.age_ms_max / 1000
        while not self._stopping.is_set():
            ready = buffer.full or buffer.ends_soon
            ready |= buffer.drained and (self._until is not None or loop.time() >= closes)
            if ready and (batch := buffer.cut(clock)) is not None:
                return batch
            buffer.check()
            if ready and not buffer.rows:
                return None
            await self._gather_some(buffer)
        return None

    async def _compute(
        self, records: OrderedRecords, batch_no: int, clock_before: int, clock_after: int
    ) -> Computed:
        self.cached = None
        await self._choice.before(clock_after, lambda: self._keeper.rebuild_windows(clock_before, batch_no))
        limits = self._ports.limits

        def timed() -> Computed:
            began = time.perf_counter()
            computed = compute(
                records.refs, records.clock, self._keeper.state, self._context,
                limits.allowed_lateness_ms, limits.close_delays,
            )  # fmt: skip
            self._ports.emit(StageTimed("compute", time.perf_counter() - began))
            self._ports.emit(RulesNotEvaluated(computed.not_evaluated))
            self._ports.emit(ReasonsCounted(computed.dead_by_reason, computed.events_by_reason))
            return computed

        return await self._ports.run_cpu(timed)

    async def _deliver(self, batch: Batch, batch_no: int) -> LedgerEntry:
        """Bring the batch into the tables and the ledger, by the normal path or through doubt."""
        self.batch = batch.ranges
        computed = await self._compute(batch.records, batch_no, batch.clock_before, batch.clock_after)
        intent = Intent(
            epoch=self._epoch, lane=self.lane, batch_no=batch_no, ranges=batch.ranges,
            cut_time=batch.position.time, cut_topic=batch.position.topic, cut_offset=batch.position.offset,
            clock_before=batch.clock_before, clock_after=batch.clock_after,
            event_rows=computed.event_rows, dead_rows=computed.dead_rows, malformed=computed.malformed,
            judge_version=computed.judge_version, send_by=0, leader_epochs=self._leader_epochs(batch.ranges),
        )  # fmt: skip
        intent = await self._delivery.prepare(intent, computed)
        try:
            entry = await self._delivery.write(intent, computed)
        except DOUBT as error:
            self._ports.emit(BatchInDoubt(self.lane, error.message, batch_no))

            async def as_before() -> Computed:
                return computed

            settled = await self._settlement.settle(intent, batch.records, intent.leader_epochs, as_before)
            assert settled.entry is not None, "these are the records that it was intended of"
            entry = settled.entry
        await self._choice.after(entry, computed)
        return entry

    def _reached(self, buffer: LaneBuffer) -> bool:
        """Whether the ledger has reached `until`."""
        return self._until is not None and all(buffer.positions()[t] >= end for t, end in self._until.items())
