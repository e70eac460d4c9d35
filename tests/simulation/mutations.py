"""The protocol with one rule removed at a time: the simulation must notice each.

Product code has no switches: a mutation replaces functions while it is in force, or is a simulated server or client that
lacks what the protocol relies on.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from adledger.pipeline.errors import CommitFenced, CommitUnknown, LaneHalted, SinkError
from adledger.pipeline.lanes import compute as compute_module
from adledger.pipeline.lanes import diagnosis, recovery
from adledger.pipeline.lanes import doubt as doubt_module
from adledger.pipeline.lanes import lane as lane_module
from adledger.pipeline.lanes.compute import Computed
from adledger.pipeline.lanes.delivery import Delivery
from adledger.pipeline.lanes.doubt import Settled, Settlement
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.lane import Lane
from adledger.pipeline.lanes.snapshot import Start
from adledger.pipeline.lanes.state import CachedState, StateKeeper
from adledger.pipeline.log.leader_epochs import NO_EPOCH, LeaderEpochs
from adledger.pipeline.log.source import Assignment, Committed
from adledger.pipeline.stages import merge
from adledger.pipeline.stages.merge import OrderedRecords
from adledger.sinks.ledger import ledger_columns
from adledger.sinks.sink import LedgerEntry, Stamp
from tests.simulation.clickhouse import SimSink
from tests.simulation.deployment import Defect
from tests.simulation.kafka import HALF_DONE, SimSource
from tests.simulation.run import REAL, Parts

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A removed rule: what the protocol then lacks, and how it is removed."""

    name: str
    lacks: str
    patches: tuple[Patch, ...] = ()
    parts: Parts = REAL
    forced: bool = False

    @contextmanager
    def in_force(self) -> Iterator[None]:
        """Remove the rule."""
        with ExitStack() as undo:
            for owner, name, changed in self.patches:
                undo.callback(setattr, owner, name, getattr(owner, name))
                setattr(owner, name, changed)
            yield


# delivery


async def _intend_without_commit(self: Delivery, intent: Intent) -> Intent:
    now = await self._ports.sink.server_time()
    return intent.with_send_by(now + self._ports.limits.write_deadline_seconds)


def _settle_with(**changed: Any) -> Callable[..., Any]:
    """Return a `settle` during which methods of the delivery are others."""
    real = Settlement.settle

    async def settle(self: Settlement, *batch: Any, **how: Any) -> Settled:
        for name, method in changed.items():
            setattr(self._delivery, name, method.__get__(self._delivery))
        try:
            return await real(self, *batch, **how)
        finally:
            for name in changed:
                delattr(self._delivery, name)

    return settle


async def _at_once(self: Settlement, second: int) -> None:
    return


async def _no_quiesce(self: SimSink, lane: int) -> None:
    await self.server_time()


async def _ledger_first(self: Delivery, intent: Intent, computed: Computed) -> LedgerEntry:
    stamp = Stamp(intent.lane, intent.batch_no, intent.send_by)
    rollup, entry = await self.derive(intent, computed.events, computed.dead_letters)
    await self.insert("ledger", ledger_columns(entry), stamp)
    await self.insert("events", computed.events, stamp)
    await self.insert("dead_letters", computed.dead_letters, stamp)
    await self.insert("rollup_minute", rollup, stamp)
    return entry


async def _retry_by_token(
    self: Settlement, intent: Intent, records: OrderedRecords, epochs: Any, compute: Any, **_: Any
) -> Settled:
    """Same token, same rows, again, until the server says OK."""
    computed = await compute()
    retry = self._ports.limits.retry
    for attempt in retry.attempts():
        intent = await self._delivery.intend(intent)
        try:
            return Settled(await self._delivery.write(intent, computed), None)
        except SinkError:
            await retry.pause(attempt)
    raise AssertionError("attempts do not end")


async def _settle_from_memory(
    self: Settlement, intent: Intent, records: OrderedRecords, epochs: Any, compute: Any, **how: Any
) -> Settled:
    """After doubt: derived rows come from what this worker computes, not from the stored rows."""
    finish, derive = self._finish, self._delivery.derive

    async def finish_again(
        intent: Intent, records: OrderedRecords, stored: Mapping[str, int], computed: Any
    ) -> Settled:
        async def derive_again(intent: Intent, events: Any, dead: Any, *how: Any) -> Any:
            mine = await compute()
            return await derive(intent, mine.events, dead, *how)

        self._delivery.derive = derive_again  # type: ignore[method-assign]
        return await finish(intent, records, stored, computed)

    self._finish = finish_again  # type: ignore[method-assign]
    try:
        return await _REAL_SETTLE(self, intent, records, epochs, compute, **how)
    finally:
        self._finish, self._delivery.derive = finish, derive  # type: ignore[method-assign]


_REAL_SETTLE = Settlement.settle


# recovery and batches


async def _pending_is_done(ports: Any, lane: int) -> Start:
    start = await _REAL_FIND_START(ports, lane)
    if start.pending is None:
        return start
    ends = {r.topic: r.end for r in start.pending.ranges}
    return replace(
        start, positions=ends, batch_no=start.batch_no + 1, clock=start.pending.clock_after, pending=None
    )


_REAL_FIND_START = recovery.find_start


async def _jump(ports: Any, lane: int) -> Start:
    """auto.offset.reset=earliest: where the log no longer has the next records, continue with those it has."""
    committed = await ports.source.committed(lane)
    try:
        return await _REAL_FIND_START(ports, lane)
    except LaneHalted:
        entry = await ports.sink.ledger_end(lane)
        bounds = await ports.source.bounds(lane)
        if entry is None or any(
            Intent.parse(c.metadata, "").batch_no != entry.batch_no for c in committed.values()
        ):
            raise
        positions = {
            r.topic: min(max(r.end, bounds[r.topic].first), bounds[r.topic].end) for r in entry.ranges
        }
        return Start(positions=positions, batch_no=entry.batch_no + 1, clock=entry.clock_after, pending=None)


async def _no_record_looked_at(*_: Any) -> dict[int, int]:
    return {}


def _after_the_last_fetch(self: LeaderEpochs, position: int) -> int:
    return _REAL_BEFORE(self, position) if position == self._end else NO_EPOCH


_REAL_BEFORE = LeaderEpochs.before


async def _empty_where_it_fails(self: Lane, records: OrderedRecords, *batch: Any) -> Computed:
    try:
        return await _REAL_COMPUTE(self, records, *batch)
    except (MemoryError, Defect):
        return await _REAL_COMPUTE(self, OrderedRecords.none(), *batch)


_REAL_COMPUTE = Lane._compute


async def _rebuild_all(self: StateKeeper, start: Start) -> None:
    await _REAL_REBUILD(self, replace(start, batch_no=start.batch_no + 1))


async def _rebuild_none(self: StateKeeper, start: Start) -> None:
    return


def _forget(self: StateKeeper, stored: Any) -> None:
    return


def _trust_the_cache(self: StateKeeper, cached: CachedState | None, start: Start, epoch: str) -> bool:
    if cached is not None:
        cached = replace(cached, epoch=epoch, batch_no=start.batch_no, clock=start.clock)
    return _REAL_RESTORE(self, cached, start, epoch)


_REAL_RESTORE = StateKeeper.restore


_REAL_REBUILD = StateKeeper.rebuild


def _everything(pending: Any, times: Any) -> list[int] | None:
    return [len(p.refs) for p in pending]


# clients


class _Resends(SimSource):
    """Sends a commit without an answer again, as the same member in the same generation."""

    async def send_commit(self, assignment: Assignment, positions: Mapping[int, Committed]) -> None:
        for _ in range(8):
            try:
                return await super().send_commit(assignment, positions)
            except CommitUnknown:
                await self.world.rest(0.1)
        raise CommitUnknown("no answer, repeatedly")


class _CurrentGeneration(SimSource):
    """Sends a commit again until it is accepted, under the current member id: as aiokafka's own commit does."""

    async def send_commit(self, assignment: Assignment, positions: Mapping[int, Committed]) -> None:
        for _ in range(8):
            now = Assignment(assignment.lane, self._generation, self._member)
            try:
                return await super().send_commit(now, positions)
            except CommitUnknown:
                self.world.loop.create_task(self._in_background(assignment.lane, positions))
                raise
        raise CommitUnknown("no answer, repeatedly")

    async def _in_background(self, lane: int, positions: Mapping[int, Committed]) -> None:
        for _ in range(8):
            await self.world.rest(self.world.rng.uniform(0.1, 3.0))
            try:
                await super().send_commit(Assignment(lane, self._generation, self._member), positions)
            except (CommitFenced, CommitUnknown):
                continue
            return


class _HalfIsEnough(SimSource):
    """Goes on when one of two partitions accepted."""

    async def send_commit(self, assignment: Assignment, positions: Mapping[int, Committed]) -> None:
        try:
            await super().send_commit(assignment, positions)
        except CommitUnknown as error:
            if HALF_DONE not in error.message:
                raise


def _tokens(*args: Any, **kwargs: Any) -> SimSink:
    return SimSink(*args, **kwargs, uses_tokens=True)


def _inconsistent(*args: Any, **kwargs: Any) -> SimSink:
    return SimSink(*args, **kwargs, consistent=False)


def _any_partition(*args: Any, **kwargs: Any) -> SimSink:
    return SimSink(*args, **kwargs, one_partition=False)


MUTATIONS = (
    Mutation(
        "commit before write", "a committed batch counts as done, whatever the ledger has",
        ((lane_module, "find_start", _pending_is_done),),
    ),
    Mutation(
        "intent skipped", "the first intent of a batch: nothing is committed before the insert",
        ((Delivery, "intend", _intend_without_commit),),
    ),
    Mutation("no wait for the deadline", "in doubt, the tables are read at once", ((Settlement, "_wait_past", _at_once),)),
    Mutation(
        "running inserts not looked for", "in doubt, running inserts are ignored", ((SimSink, "quiesce", _no_quiesce),)
    ),
    Mutation(
        "intent not committed again after doubt", "a new deadline without a commit by this member",
        ((Settlement, "settle", _settle_with(intend=_intend_without_commit)),),
    ),
    Mutation(
        "intent sent again after an unknown outcome", "a commit without an answer is sent a second time",
        parts=Parts(source=_Resends),
    ),
    Mutation(
        "intent sent again under a new generation", "a commit carries whatever generation is current",
        parts=Parts(source=_CurrentGeneration),
    ),
    Mutation(
        "insert after one of two commits", "one partition's commit is enough", parts=Parts(source=_HalfIsEnough)
    ),
    Mutation(
        "rollups from memory after doubt", "rows read back do not decide",
        ((Settlement, "settle", _settle_from_memory),),
    ),
    Mutation(
        "retry by token alone", "in doubt, the same insert again with the same token",
        ((Settlement, "settle", _retry_by_token),), Parts(sink=_tokens),
    ),
    Mutation(
        "rebuild includes the pending batch", "a batch that is evaluated again finds its own events in the window",
        ((StateKeeper, "rebuild", _rebuild_all), (Settlement, "settle", _settle_from_memory)),
    ),
    Mutation(
        "settled batch not remembered", "the events of a batch that was already stored do not enter the window",
        ((StateKeeper, "absorb", _forget),),
    ),
    Mutation(
        "a cached state is trusted", "a lane that comes back continues with its old state, though others owned it meanwhile",
        ((StateKeeper, "restore", _trust_the_cache),),
    ),
    Mutation("no rebuild", "a new owner begins with an empty window", ((StateKeeper, "rebuild", _rebuild_none),)),
    Mutation(
        "cut rule ignored", "a batch takes all that was fetched, though a topic lags",
        ((merge, "_cuttable", _everything),),
    ),
    Mutation("ledger row first", "the ledger row comes before the rows", ((Delivery, "write", _ledger_first),)),
    Mutation(
        "silent jump", "offsets that are gone are skipped", ((lane_module, "find_start", _jump),)
    ),
    Mutation(
        "records not compared", "a log that was truncated and grew again is taken for the ledger's",
        ((diagnosis, "changed_since", _no_record_looked_at),),
    ),
    Mutation(
        "leader epochs not compared", "records are read after a position whose earlier records were replaced",
        ((LeaderEpochs, "before", lambda *_: NO_EPOCH),), forced=True,
    ),
    Mutation(
        "one leader epoch remembered", "the one before the position after the last fetch, and no other",
        ((LeaderEpochs, "before", _after_the_last_fetch),), forced=True,
    ),
    Mutation(
        "batch in doubt of other records", "it is evaluated again, with the cut of records that the log no longer has",
        ((doubt_module, "as_intended", lambda *_: True),), forced=True,
    ),
    Mutation(
        "leader epochs not kept", "a lane that starts does not name the epoch that its ledger ends with",
        ((diagnosis, "known_epochs", lambda _: {}),), forced=True,
    ),
    Mutation(
        "late events not marked", "an event that came after its period's close counts in the period",
        ((compute_module, "mark_after_close", lambda *_: None),),
    ),
    Mutation(
        "day ignored", "a batch goes over midnight, so that its insert is two", ((merge, "DAY_MS", 1 << 60),),
        Parts(sink=_any_partition),
    ),
    Mutation(
        "a batch that fails counts as empty", "a bug, or no memory, in one lane's compute does not end the lane",
        ((Lane, "_compute", _empty_where_it_fails),),
    ),
    Mutation(
        "deadline not enforced", "the tables have no constraint", parts=Parts(server={"enforces_deadline": False})
    ),
    Mutation("members not fenced", "the broker accepts any member's commit", parts=Parts(broker={"fences": False})),
    Mutation(
        "reads from a lagging replica", "no sequential consistency", parts=Parts(sink=_inconsistent)
    ),
)  # fmt: skip
