"""What a lane remembers: the ids of its dedupe window, and the windows of the rules.

State is a function of the lane's earlier events, so a new owner rebuilds it from ClickHouse: the firsts that matter yet,
without those of a batch that is still pending, which would else find its own events as duplicates. A batch that was found
written is absorbed from its rows. A lane that comes back to this worker goes on with what was cached, where nobody
wrote a batch meanwhile. A batch that was computed and then interrupted is in the state already: its rows are cached with it,
so that an unanswered commit costs no rebuild.
"""

from dataclasses import dataclass, replace

import numpy as np

from adledger.pipeline.lanes.compute import Computed, LaneState
from adledger.pipeline.lanes.delivery import SentIntent
from adledger.pipeline.lanes.events import Phase, RebuildProgressed
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.overrides import Ancestor, lineage
from adledger.pipeline.lanes.phase_tracker import PhaseTracker
from adledger.pipeline.lanes.ports import Ports
from adledger.pipeline.lanes.snapshot import Start
from adledger.pipeline.log.leader_epochs import NO_EPOCH
from adledger.pipeline.rules.compiled import LaneEvaluator
from adledger.pipeline.stages.dedupe import DedupeState, SeenHashes
from adledger.pipeline.stages.identity import identity
from adledger.schemas.classes import Class
from adledger.sinks.sink import StoredEvents

USER_AGENTS_SEEN_MAX = 1 << 16
PAGES_SEEN_MAX = 1 << 18
IDS_BETWEEN_LINES = 10_000_000
"""A rebuild reports its progress after this many ids: every few seconds."""


@dataclass(frozen=True, slots=True)
class ComputedBatch:
    """A batch that was computed, and did not get into the ledger while its lane ran: its intent and its rows."""

    intent: Intent
    rows: Computed

    @property
    def pinned(self) -> bool:
        """Whether the log can tell that it still has these records: by the leader epoch of each range's last one."""
        epochs = self.intent.leader_epochs or (NO_EPOCH,) * len(self.intent.ranges)
        return all(
            epoch != NO_EPOCH or r.start == r.end for r, epoch in zip(self.intent.ranges, epochs, strict=True)
        )


@dataclass(frozen=True, slots=True)
class CachedState:
    """A lane's state before the batch `batch_no`, with its watermark; or with that batch, if it is `computed`."""

    state: LaneState
    epoch: str
    batch_no: int
    clock: int
    computed: ComputedBatch | None = None

    def begin(self, start: Start, epoch: str, sent: SentIntent) -> Start | None:
        """Return where a lane begins with this state, or None: it does not belong to this start.

        If another worker wrote a batch since, it does not: using it would bill that batch's ids a second time. A computed batch
        comes next then, which no other worker may have intended: the commit is the one that this process sent last, or
        there is none.
        """
        if (self.epoch, self.batch_no, self.clock) != (epoch, start.batch_no, start.clock):
            return None
        if self.computed is None:
            return start
        intent = self.computed.intent
        if not self.computed.pinned or {r.topic: r.start for r in intent.ranges} != start.positions:
            return None
        if start.pending is None:
            return replace(start, pending=intent, committed=False)
        ours = sent.text == intent.with_send_by(start.pending.send_by, start.pending.sender).text()
        return start if ours and start.pending.text() == sent.text else None


class StateKeeper:
    """Makes one lane's state, empty at first. Not safe for concurrent tasks."""

    def __init__(self, ports: Ports, lane: int, phase: PhaseTracker) -> None:
        self._ports, self._lane, self._phase = ports, lane, phase
        self.state = self._empty()
        self.computed: ComputedBatch | None = None
        """The next batch, if the state was restored with it."""

    def restore(self, cached: CachedState | None, start: Start, epoch: str, sent: SentIntent) -> Start | None:
        """Take the cached state if it belongs to this start; returns where the lane begins then, as `CachedState.begin`."""
        begins = cached.begin(start, epoch, sent) if cached is not None else None
        if cached is not None and begins is not None:
            self._take(cached.state)
            self.computed = cached.computed
        return begins

    def _empty(self) -> LaneState:
        secret = self._ports.limits.slot_secret
        return LaneState(
            DedupeState(self._ports.limits.window_ms, secret),
            LaneEvaluator(self._ports.rules_in_force.current, secret=secret),
            SeenHashes.of(USER_AGENTS_SEEN_MAX, secret),
            SeenHashes.of(PAGES_SEEN_MAX, secret),
        )

    def _take(self, state: LaneState) -> None:
        self.state.dedupe, self.state.evaluator = state.dedupe, state.evaluator
        self.state.user_agents, self.state.pages = state.user_agents, state.pages

    async def rebuild(self, start: Start) -> None:
        """Read dedupe state and rule windows from ClickHouse: the firsts still in a window, without a pending batch's.

        A lane of added partitions takes over its parent's state at the repartition barrier. A state that was restored with a
        batch is dropped.
        """
        if self.computed is not None:
            self._take(self._empty())
            self.computed = None
        past = (*await lineage(self._ports.overrides, self._lane), Ancestor(self._lane, start.batch_no))
        clock_from = max(0, start.clock - self._ports.limits.window_ms)
        dedupe, said = self.state.dedupe, 0
        for of in past:
            async for block in self._ports.sink.identities(of.lane, clock_from, of.before_batch_no):
                dedupe.reserve(block.expected)
                await self._ports.run_cpu(lambda b=block: dedupe.load(*b.columns))  # type: ignore[misc]
                of_all = f" of about {block.expected:,}" if block.expected else ""
                self._phase.enter(Phase.REBUILDING, f"{dedupe.taken:,}{of_all} ids")
                if dedupe.taken - said >= IDS_BETWEEN_LINES:
                    said = dedupe.taken
                    self._ports.emit(RebuildProgressed(self._lane, said, block.expected))
        await self.rebuild_windows(start.clock, start.batch_no)

    async def rebuild_windows(self, clock: int, batch_no: int) -> None:
        """Read the rule windows from the events before a batch that begins at a watermark (ms)."""
        evaluator = self.state.evaluator
        if not evaluator.windows.horizon_ms:
            return
        clock_from = evaluator.windows.clock_from(clock)
        for of in (*await lineage(self._ports.overrides, self._lane), Ancestor(self._lane, batch_no)):
            async for events in self._ports.sink.rule_events(of.lane, clock_from, of.before_batch_no):
                await self._ports.run_cpu(lambda e=events: evaluator.remember(e.columns, e.lane_clock))  # type: ignore[misc]

    def absorb(self, stored: StoredEvents) -> None:
        """Add the firsts of a batch whose event rows another worker wrote."""
        first = stored.class_code != Class.DUPLICATE
        order = np.argsort(stored.lane_clock[first], kind="stable")
        columns = stored.columns.take(first).take(order)
        clock = stored.lane_clock[first][order]
        self.state.dedupe.load(*identity(columns), clock)
        self.state.evaluator.remember(columns, clock)
