"""A lane, read top to bottom: recover, then fetch, cut, compute, deliver, for as long as it is ours."""

import asyncio
import time
from collections.abc import Mapping, Sequence

import numpy as np

from adledger.pipeline.errors import LaneStopped
from adledger.pipeline.lanes.buffer import Batch, LaneBuffer
from adledger.pipeline.lanes.compute import Computed, Kept, LaneState, compute
from adledger.pipeline.lanes.deliver import Delivery, Records
from adledger.pipeline.lanes.evaluator_choice import EvaluatorChoice
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.orders import Ancestor, lineage
from adledger.pipeline.lanes.ports import Phase, Ports
from adledger.pipeline.lanes.recovery import Start, find_start
from adledger.pipeline.log.leader_epochs import NO_EPOCH
from adledger.pipeline.log.source import Assignment
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.rules.compiled import LaneEvaluator
from adledger.pipeline.stages.decode import DecodeContext
from adledger.pipeline.stages.dedupe import DedupeState, SeenHashes
from adledger.pipeline.stages.identity import identity
from adledger.pipeline.stages.merge import merge_all
from adledger.pipeline.stages.walk import walk
from adledger.schemas.classes import Class
from adledger.sinks.sink import LedgerEntry, OffsetRange, StoredEvents

FETCH_WAIT_MS_MAX = 200
USER_AGENTS_SEEN_MAX = 1 << 16
PAGES_SEEN_MAX = 1 << 18
IDS_BETWEEN_LINES = 10_000_000
"""A rebuild says how far it is after so many ids more: every few seconds."""
PARENT_LOOK_SECONDS = 1.0
"""How often a new lane looks whether its parent has reached the barrier."""


class Lane:
    """One lane in one assignment. `run` ends when it is told to stop, or has reached `until` (topic -> offset).

    `kept` is what the lane knew in an earlier assignment of this worker; it is used where nobody wrote a batch since.
    """

    def __init__(
        self,
        ports: Ports,
        assignment: Assignment,
        slots: asyncio.Semaphore,
        until: Mapping[int, int] | None,
        kept: Kept | None = None,
    ) -> None:
        self.lane = assignment.lane
        self.records = 0
        self._ports = ports
        self._slots = slots
        self._until = until
        self._stopping = asyncio.Event()
        topology, limits = ports.topology, ports.limits
        self._epoch = topology.epoch
        self._context = DecodeContext(self.lane, topology.partitions, topology.kinds, limits.default_currency)
        self._delivery = Delivery(ports, assignment, self._context)
        self._state = LaneState(
            DedupeState(limits.window_ms, limits.slot_secret),
            LaneEvaluator(ports.rules_in_force.current, secret=limits.slot_secret),
            SeenHashes.of(USER_AGENTS_SEEN_MAX, limits.slot_secret),
            SeenHashes.of(PAGES_SEEN_MAX, limits.slot_secret),
        )
        self._kept = kept
        self._knows: tuple[int, int] | None = None  # the next batch and the clock that the state is of
        self._choice = EvaluatorChoice(self.lane, ports.rules_in_force, self._state, self._delivery.patiently)

    def stop(self) -> None:
        """Ask the lane to finish the batch under way and to end."""
        self._stopping.set()

    @property
    def kept(self) -> Kept | None:
        """What a later assignment may go on with; None while a batch is half in the state, and before it is made."""
        return None if self._knows is None else Kept(self._state, self._epoch, *self._knows)

    async def run(self) -> None:
        """Work. Raises CommitFenced, CommitUnknown, LaneStopped, LogError, SinkError."""
        self._ports.observer.phase(self.lane, Phase.REBUILDING)
        found = await self._delivery.patiently(lambda: find_start(self._ports, self.lane))
        start = await self._when_parent_is_there(found)
        if start is None:
            return
        self._ports.source.resume(self.lane, start.positions, start.leader_epochs)
        self._epoch = start.epoch or self._epoch
        if not self._remembers(start):
            await self._rebuild(start)
        batch_no, clock, positions = start.batch_no, start.clock, start.positions
        if start.pending is not None:
            settled = await self._settle(start.pending)
            if settled is not None:
                batch_no, clock = settled.batch_no + 1, settled.clock_after
                positions = {r.topic: r.end for r in settled.ranges}
        self._knows = (batch_no, clock)
        await self._choice.begin(batch_no)
        buffer = LaneBuffer(positions, self._ports.limits.batch)
        idle_since = asyncio.get_running_loop().time()
        while not self._stopping.is_set() and not self._reached(buffer):
            await self._gather_some(buffer)
            if not buffer.rows and buffer.drained and not self._reached_end(buffer):
                self._ports.observer.phase(self.lane, Phase.IDLE)
                batch = await self._idle_batch(buffer, clock, idle_since)
                if batch is None:
                    continue
                entry = await self._deliver(batch, batch_no)
            else:
                self._ports.observer.phase(self.lane, Phase.RUNNING)
                async with self._slots:
                    batch = await self._gather_batch(buffer, clock)
                    if batch is None:
                        continue
                    entry = await self._deliver(batch, batch_no)
            batch_no, clock = self._knows = entry.batch_no + 1, entry.clock_after
            self.records += entry.records_received
            idle_since = asyncio.get_running_loop().time()
            self._ports.observer.batch_done(entry, self._state.dedupe.taken)

    async def _when_parent_is_there(self, start: Start) -> Start | None:
        """Return the start when the lane that had our users has reached the barrier; None when we are to stop."""
        order = start.awaits
        if order is None:
            return start
        waits = f"waits for lane {order.parent} to reach offsets {', '.join(map(str, order.parent_ends))}"
        self._ports.say(f"lane {self.lane}: {waits}")
        while not self._stopping.is_set():
            self._ports.observer.phase(self.lane, Phase.REBUILDING, waits)
            entry = await self._delivery.patiently(
                lambda: self._ports.orders.entry_reaching(order.parent, order.parent_ends)
            )
            if entry is not None:
                return start.after(entry)
            await asyncio.sleep(PARENT_LOOK_SECONDS)
        return None

    def _remembers(self, start: Start) -> bool:
        """Go on with what was kept, where it is of this very place; else it is forgotten."""
        kept, self._kept = self._kept, None
        if kept is None or (kept.epoch, kept.batch_no, kept.clock) != (
            self._epoch,
            start.batch_no,
            start.clock,
        ):
            return False
        state = kept.state
        self._state.dedupe, self._state.evaluator = state.dedupe, state.evaluator
        self._state.user_agents, self._state.pages = state.user_agents, state.pages
        return True

    async def _rebuild(self, start: Start) -> None:
        """Make dedupe state and rules' windows from ClickHouse: firsts that matter yet, but for a pending batch's.

        A lane that came with more partitions takes over what its parent knew at the barrier.
        """
        past = (*await lineage(self._ports.orders, self.lane), Ancestor(self.lane, start.batch_no))
        clock_from = max(0, start.clock - self._ports.limits.window_ms)
        dedupe, said = self._state.dedupe, 0
        for of in past:
            async for block in self._ports.sink.identities(of.lane, clock_from, of.before_batch_no):
                dedupe.reserve(block.expected)
                await self._ports.run_cpu(lambda b=block: dedupe.load(*b.columns))  # type: ignore[misc]
                of_all = f" of about {block.expected:,}" if block.expected else ""
                self._ports.observer.phase(self.lane, Phase.REBUILDING, f"{dedupe.taken:,}{of_all} ids")
                if dedupe.taken - said >= IDS_BETWEEN_LINES:
                    said = dedupe.taken
                    self._ports.say(f"lane {self.lane}: {said:,} ids rebuilt, of about {block.expected:,}")
        await self._make_windows(start.clock, start.batch_no)

    async def _make_windows(self, clock: int, batch_no: int) -> None:
        """Make the rules' windows from the events before a batch that begins at a watermark (ms)."""
        evaluator = self._state.evaluator
        if not evaluator.windows.horizon_ms:
            return
        clock_from = evaluator.windows.clock_from(clock)
        for of in (*await lineage(self._ports.orders, self.lane), Ancestor(self.lane, batch_no)):
            async for events in self._ports.sink.rule_events(of.lane, clock_from, of.before_batch_no):
                await self._ports.run_cpu(lambda e=events: evaluator.remember(e.columns, e.lane_clock))  # type: ignore[misc]

    async def _settle(self, intent: Intent) -> LedgerEntry | None:
        """End the batch that a former owner, or this worker before it died, had intended; None: it is to be cut again."""
        self._ports.say(
            f"lane {self.lane}: batch {intent.batch_no} was intended and is not in the ledger: in doubt"
        )
        records = await self._fetch_again(intent)
        computed_now: list[Computed] = []

        async def again() -> Computed:
            if not computed_now:
                computed_now.append(
                    await self._compute(records, intent.batch_no, intent.clock_before, intent.clock_after)
                )
            return computed_now[0]

        settled = await self._delivery.settle(intent, records, again)
        if settled.stored is not None and not computed_now:
            self._absorb(settled.stored)
        if computed_now:
            await self._delivery.patiently(lambda: self._ports.write_texts(computed_now[0].texts))
        return settled.entry

    async def _fetch_again(self, intent: Intent) -> Records:
        """Return the records of an intent's ranges, in the order they had then; what was given up has none."""
        if intent.ordered:
            empty = RecordRefs.empty()
            return Records(empty, empty.offset)
        parts: list[list[RecordRefs]] = [[] for _ in self._ports.topology.topics]
        positions = {r.topic: r.start for r in intent.ranges if r.start < r.end}
        ends = {r.topic: r.end for r in intent.ranges}
        while positions:
            fetched = await self._ports.source.fetch(
                self.lane, positions, self._ports.limits.fetch_bytes_max, FETCH_WAIT_MS_MAX
            )
            for f in fetched:
                refs = walk(f)
                parts[f.topic].append(refs.take(refs.offset < ends[f.topic]))
                if f.drained and f.next_offset < ends[f.topic]:
                    raise LaneStopped(
                        f"lane {self.lane}: batch {intent.batch_no} goes up to offset {ends[f.topic]} of "
                        f"{self._ports.topology.topics[f.topic]}, the log ends at {f.end_offset}",
                        remedy="the log was truncated: restore it",
                    )
                positions[f.topic] = f.next_offset
            positions = {t: p for t, p in positions.items() if p < ends[t]}
        refs, clock = merge_all([RecordRefs.concat(p) for p in parts], intent.clock_before)
        return Records(refs, clock, self._leader_epochs(intent.ranges))

    def _leader_epochs(self, ranges: Sequence[OffsetRange]) -> tuple[int, ...]:
        """Return the leader epoch before each range's end, as it was read; () where none is known."""
        known = self._ports.source.leader_epochs(self.lane, {r.topic: r.end for r in ranges})
        return tuple(known.get(r.topic, NO_EPOCH) for r in ranges) if known else ()

    def _absorb(self, stored: StoredEvents) -> None:
        """Enter the firsts of a batch whose event rows stood there already."""
        first = stored.class_code != Class.DUPLICATE
        order = np.argsort(stored.lane_clock[first], kind="stable")
        columns = stored.columns.take(first).take(order)
        clock = stored.lane_clock[first][order]
        self._state.dedupe.load(*identity(columns), clock)
        self._state.evaluator.remember(columns, clock)

    async def _gather_some(self, buffer: LaneBuffer) -> None:
        wanted = buffer.wanted()
        if wanted:
            limits = self._ports.limits
            fetched = await self._ports.source.fetch(
                self.lane, wanted, limits.fetch_bytes_max, FETCH_WAIT_MS_MAX
            )
            buffer.add(fetched)
            for f in fetched:
                size = sum(batch.size for batch in f.batches)
                name = self._ports.topology.topics[f.topic]
                self._ports.observer.fetched(self.lane, name, size, max(0, f.end_offset - f.next_offset))

    async def _idle_batch(self, buffer: LaneBuffer, clock: int, idle_since: float) -> Batch | None:
        """Return the empty batch that an idle lane owes its clock, or None where it owes none now."""
        idle_clock = self._ports.limits.idle_clock
        if idle_clock is None or self._until is not None:
            return None
        if asyncio.get_running_loop().time() < idle_since + idle_clock.every_seconds:
            return None
        now = await self._delivery.patiently(self._ports.sink.server_time)
        clock_after = (now - idle_clock.skew_seconds) * 1000
        return buffer.idle(clock, clock_after) if clock_after > clock else None

    async def _gather_batch(self, buffer: LaneBuffer, clock: int) -> Batch | None:
        """Fetch until a batch is full, old enough, or all there is; None where there is none after all."""
        loop = asyncio.get_running_loop()
        closes = loop.time() + self._ports.limits.batch.age_ms_max / 1000
        while not self._stopping.is_set():
            ready = buffer.full or (buffer.drained and (self._until is not None or loop.time() >= closes))
            if ready and (batch := buffer.cut(clock)) is not None:
                return batch
            if ready and not buffer.rows:
                return None
            await self._gather_some(buffer)
        return None

    async def _compute(
        self, records: Records, batch_no: int, clock_before: int, clock_after: int
    ) -> Computed:
        self._knows = None
        await self._choice.before(clock_after, lambda: self._make_windows(clock_before, batch_no))
        allowed_lateness_ms = self._ports.limits.allowed_lateness_ms

        def timed() -> Computed:
            began = time.perf_counter()
            computed = compute(records.refs, records.clock, self._state, self._context, allowed_lateness_ms)
            self._ports.observer.stage("compute", time.perf_counter() - began)
            self._ports.observer.not_evaluated(computed.not_evaluated)
            return computed

        return await self._ports.run_cpu(timed)

    async def _deliver(self, batch: Batch, batch_no: int) -> LedgerEntry:
        records = Records(batch.refs, batch.clock, self._leader_epochs(batch.ranges))
        computed = await self._compute(records, batch_no, batch.clock_before, batch.clock_after)
        intent = Intent(
            epoch=self._epoch, lane=self.lane, batch_no=batch_no, ranges=batch.ranges,
            cut_time=batch.place.time, cut_topic=batch.place.topic, cut_offset=batch.place.offset,
            clock_before=batch.clock_before, clock_after=batch.clock_after,
            event_rows=computed.event_rows, dead_rows=computed.dead_rows, malformed=computed.malformed,
            judge_version=computed.judge_version, send_by=0, leader_epochs=records.leader_epochs,
        )  # fmt: skip
        entry = await self._delivery.deliver(intent, records, computed)
        await self._choice.after(entry, computed)
        return entry

    def _reached(self, buffer: LaneBuffer) -> bool:
        """Whether the ledger has reached `until`."""
        return self._until is not None and all(buffer.positions()[t] >= end for t, end in self._until.items())

    def _reached_end(self, buffer: LaneBuffer) -> bool:
        """Whether only offsets without records are left up to `until`, which take a batch of none."""
        return self._until is not None and not self._reached(buffer)
