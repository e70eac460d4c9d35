"""What a lane remembers: the ids of its dedupe window, and the windows of the rules.

State is a function of the lane's earlier events, so a new owner rebuilds it from ClickHouse: the firsts that matter yet,
without those of a batch that is still pending, which would else find its own events as duplicates. A batch that was found
written is absorbed from its rows. A lane that comes back to this worker goes on with what was cached, where nobody
wrote a batch meanwhile.
"""

from dataclasses import dataclass

import numpy as np

from adledger.pipeline.lanes.compute import LaneState
from adledger.pipeline.lanes.events import Phase, RebuildProgressed
from adledger.pipeline.lanes.overrides import Ancestor, lineage
from adledger.pipeline.lanes.phase_tracker import PhaseTracker
from adledger.pipeline.lanes.ports import Ports
from adledger.pipeline.lanes.snapshot import Start
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
class CachedState:
    """A lane's state as it ended between two batches, before the batch `batch_no`, with its watermark."""

    state: LaneState
    epoch: str
    batch_no: int
    clock: int


class StateKeeper:
    """Makes one lane's state, empty at first. Not safe for concurrent tasks."""

    def __init__(self, ports: Ports, lane: int, phase: PhaseTracker) -> None:
        self._ports, self._lane, self._phase = ports, lane, phase
        secret = ports.limits.slot_secret
        self.state = LaneState(
            DedupeState(ports.limits.window_ms, secret),
            LaneEvaluator(ports.rules_in_force.current, secret=secret),
            SeenHashes.of(USER_AGENTS_SEEN_MAX, secret),
            SeenHashes.of(PAGES_SEEN_MAX, secret),
        )

    def restore(self, cached: CachedState | None, start: Start, epoch: str) -> bool:
        """Take the cached state if it belongs to exactly this position; returns whether it does.

        If another worker wrote a batch since, it does not: using it would bill that batch's ids a second time.
        """
        if cached is None or (cached.epoch, cached.batch_no, cached.clock) != (
            epoch,
            start.batch_no,
            start.clock,
        ):
            return False
        state = cached.state
        self.state.dedupe, self.state.evaluator = state.dedupe, state.evaluator
        self.state.user_agents, self.state.pages = state.user_agents, state.pages
        return True

    async def rebuild(self, start: Start) -> None:
        """Read dedupe state and rule windows from ClickHouse: the firsts still in a window, without a pending batch's.

        A lane of added partitions takes over its parent's state at the repartition barrier.
        """
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
