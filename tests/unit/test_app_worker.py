"""A worker: how one lane's trouble affects the others, and when a group has caught up."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.errors import CommitUnknown, InsertRefused, LaneHalted, SinkError
from adledger.pipeline.halts import HaltReason
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes import lane as lane_module
from adledger.pipeline.lanes import lane_runner
from adledger.pipeline.lanes.buffer import BatchLimits
from adledger.pipeline.lanes.catch_up import covers
from adledger.pipeline.lanes.emit import Event
from adledger.pipeline.lanes.events import Phase, PhaseChanged
from adledger.pipeline.lanes.faults import FAULT_TRIES_MAX
from adledger.pipeline.lanes.ports import LaneLimits
from adledger.pipeline.lanes.worker import Worker
from adledger.pipeline.log.files import FilesSource
from adledger.pipeline.log.source import Assignment, Committed, GroupListener, OffsetBounds, Topology
from adledger.pipeline.retry import RetryPolicy
from adledger.schemas.wire import currency_code
from adledger.sinks.memory import MemorySink, SinkFaults
from adledger.sinks.overrides import LaneOverride, NoOverrides
from adledger.sinks.sink import Columns, LedgerEntry, OffsetRange, Stamp

MODEL = TrafficModel(seed=5, events=400, partitions=2)
MODEL_TOPICS = ("ad.impressions", "ad.clicks")
LIMITS = LaneLimits(
    batch=BatchLimits(100, 1 << 24, 10), fetch_bytes_max=1 << 20, window_ms=3_600_000, allowed_lateness_ms=3_600_000,
    write_deadline_seconds=1, retry=RetryPolicy(3, backoff_ms_max=1), default_currency=currency_code("USD"),
)  # fmt: skip


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("worker") / "log"
    with open_log(folder, MODEL.partitions) as writer:
        write_traffic(MODEL, writer, lambda _: None)
    return folder


class Watcher:
    """Records phases, and log lines above level info; calls `on_idle` when a lane has nothing left to do."""

    def __init__(self) -> None:
        self.phases: list[tuple[int, Phase]] = []
        self.on_phase = lambda lane, phase: None
        self.lines: list[str] = []

    def emit(self, event: Event) -> None:
        if event.level > logging.INFO and event.line:
            self.lines.append(event.line)
        if isinstance(event, PhaseChanged):
            self.phases.append((event.lane, event.phase))
            self.on_phase(event.lane, event.phase)


def make(
    source: FilesSource,
    sink: MemorySink,
    watcher: Watcher,
    lines: list[str],
    *,
    until: bool,
    revoke_ms_max: int = 5_000,
) -> Worker:
    watcher.lines = lines
    return Worker(
        source, sink, LIMITS if until else replace(LIMITS, retry=RetryPolicy(None, backoff_ms_max=1)), cpu_threads=1, inserts_per_second_max=1_000_000,
        revoke_ms_max=revoke_ms_max, until_caught_up=until, emit=watcher.emit,
    )  # fmt: skip


async def received(sink: MemorySink) -> dict[int, bool]:
    """Return lane -> whether its ledger has an end."""
    return {lane: await sink.ledger_end(lane) is not None for lane in range(MODEL.partitions)}


class Stopping(MemorySink):
    """A ClickHouse in which lane 1 finds what an operator must decide."""

    stopped = True

    async def ledger_end(self, lane: int) -> LedgerEntry | None:
        if lane == 1 and self.stopped:
            raise LaneHalted(
                "lane 1: something is wrong", reason=HaltReason.COMMITS_DISAGREE, remedy="fix it"
            )
        return await super().ledger_end(lane)


async def test_a_halted_lane_ends_a_worker_that_catches_up(log: Path):
    """The other lanes reach their end; then the worker ends with the error that halted the lane."""
    sink, lines = Stopping(), list[str]()
    worker = make(FilesSource(log, "stop-1"), sink, Watcher(), lines, until=True)
    with pytest.raises(LaneHalted, match="something is wrong"):
        async with asyncio.timeout(60):
            await worker.run()
    sink.stopped = False
    assert await received(sink) == {0: True, 1: False}


async def test_a_halted_lane_does_not_end_the_worker(log: Path, monkeypatch: pytest.MonkeyPatch):
    """The lane repeats its error with the remedy, and is shown as stopped; the others go on."""
    monkeypatch.setattr(lane_runner, "OVERRIDE_POLL_SECONDS", 0.001)
    sink, lines, watcher = Stopping(), list[str](), Watcher()
    worker = make(FilesSource(log, "stop-2"), sink, watcher, lines, until=False)
    idle = asyncio.Event()
    watcher.on_phase = lambda lane, phase: idle.set() if (lane, phase) == (0, Phase.IDLE) else None
    run = asyncio.create_task(worker.run())
    async with asyncio.timeout(60):
        await idle.wait()
        while len(lines) < 3:  # noqa: ASYNC110 - lines are appended by a plain call
            await asyncio.sleep(0.01)
        assert worker.joined
        assert not run.done()
        worker.stop()
        with pytest.raises(LaneHalted):
            await run
    assert set(lines) == {"lane 1 halted: something is wrong\n  remedy: fix it"}
    assert (1, Phase.HALTED) in watcher.phases


class Broken(NoOverrides):
    """Overrides that can't be read, for a reason that nobody foresaw."""

    async def of_lane(self, lane: int) -> Sequence[LaneOverride]:
        raise KeyError(lane)


@pytest.mark.parametrize("until", [False, True])
async def test_a_bug_outside_of_a_lane_ends_the_worker(log: Path, until: bool):
    """What all lanes share may be wrong for each of them; the error is raised, and nothing is in the tables."""
    sink = MemorySink()
    worker = Worker(
        FilesSource(log, f"broken-{until}"), sink, LIMITS, cpu_threads=1, inserts_per_second_max=1_000_000,
        revoke_ms_max=5_000, until_caught_up=until, overrides=Broken(),
    )  # fmt: skip
    with pytest.raises(KeyError):
        async with asyncio.timeout(60):
            await worker.run()
    assert await received(sink) == {0: False, 1: False}


@pytest.mark.parametrize(
    ("error", "reason", "failures"),
    [(MemoryError, HaltReason.OUT_OF_MEMORY, FAULT_TRIES_MAX), (ZeroDivisionError, HaltReason.BUG, 1)],
)
async def test_a_lane_whose_code_fails_ends_alone(
    error: type[Exception], reason: HaltReason, failures: int, log: Path, monkeypatch: pytest.MonkeyPatch
):
    """The other lane goes on. A bug halts the lane at once; a lack of memory may pass, so it is tried some times."""
    real = lane_module.compute

    def compute(refs: Any, clock: Any, state: Any, context: Any, *limits: Any) -> Any:
        if context.lane == 1:
            raise error
        return real(refs, clock, state, context, *limits)

    monkeypatch.setattr(lane_module, "compute", compute)
    sink, watcher, lines = MemorySink(), Watcher(), list[str]()
    worker = make(FilesSource(log, f"fails-{reason}"), sink, watcher, lines, until=True)
    with pytest.raises(LaneHalted) as halted:
        async with asyncio.timeout(60):
            await worker.run()
    assert halted.value.reason is reason
    assert await received(sink) == {0: True, 1: False}
    assert sum("begins again from the ledger" in line for line in lines) == failures
    assert f"--to {MODEL_TOPICS[0]}=" in halted.value.remedy


class Widened(FilesSource):
    """A log whose group assigns one lane more than at the join: partitions were added since."""

    async def join(self, listener: GroupListener) -> Topology:
        await super().join(listener)
        return replace(self.topology, partitions=MODEL.partitions - 1)


@pytest.mark.parametrize("until", [False, True])
async def test_a_lane_added_after_the_join_is_refused(log: Path, until: bool):
    """When partitions are added under a running worker, it shows the new lane and reads nothing of it; the old ones go
    on.
    """
    source, sink, lines, watcher = Widened(log, f"widened-{until}"), MemorySink(), list[str](), Watcher()
    worker = make(source, sink, watcher, lines, until=until)
    done = set[tuple[int, Phase]]()

    def on_phase(lane: int, phase: Phase) -> None:
        done.add((lane, phase))
        if {(0, Phase.IDLE), (1, Phase.HALTED)} <= done:
            worker.stop()

    watcher.on_phase = on_phase
    with pytest.raises(
        LaneHalted, match="lane 1: partitions were added: there were 1 when this worker began"
    ):
        async with asyncio.timeout(60):
            await worker.run()
    assert (1, Phase.HALTED) in watcher.phases
    assert (1, Phase.RUNNING) not in watcher.phases
    assert await received(sink) == {0: True, 1: False}


class Hanging(SinkFaults):
    """A server that does not answer one insert of lane 0 before `answer` is called."""

    def __init__(self, table: str) -> None:
        self._table = table
        self.under_way, self.answer = asyncio.Event(), asyncio.Event()

    async def reply(self, table: str, stamp: Stamp) -> None:
        if (table, stamp.lane) == (self._table, 0) and not self.under_way.is_set():
            self.under_way.set()
            await self.answer.wait()


@pytest.mark.parametrize("table", ["events", "rollup_minute", "ledger"])
@pytest.mark.parametrize("in_time", [True, False])
async def test_a_revoked_lane_finishes_its_batch_or_abandons_it(log: Path, table: str, in_time: bool):
    """It does so within `revoke_ms_max`, whatever the server does; the next owner completes what was abandoned, without a
    row twice or lost.
    """
    sink = MemorySink(faults=(hanging := Hanging(table)))
    group, lines = f"revoked-{table}-{in_time}", list[str]()
    first = make(
        FilesSource(log, group), sink, Watcher(), lines, until=False, revoke_ms_max=5_000 if in_time else 50
    )
    run = asyncio.create_task(first.run())
    async with asyncio.timeout(60):
        await hanging.under_way.wait()
        revoking = asyncio.create_task(first.lanes_revoked([0]))
        if in_time:
            hanging.answer.set()
        await revoking
        ended = await sink.ledger_end(0)
        assert (ended is not None) == (in_time or table == "ledger"), "finished where it could"
        first.stop()
        await run
        hanging.answer.set()
        await make(FilesSource(log, group), sink, Watcher(), lines, until=True).run()
    rows = [
        offset
        for _, b in sink.tables["events"]
        for offset in zip(b["lane"], b["topic"], b["offset"], strict=True)
    ]
    assert len(rows) == len(set(rows))
    entries = [stamp for stamp, _ in sink.tables["ledger"]]
    assert sorted((s.lane, s.batch_no) for s in entries) == sorted({(s.lane, s.batch_no) for s in entries})
    assert len(rows) == sum(
        sum(b["records_received"]) - sum(b["malformed"]) for _, b in sink.tables["ledger"]
    )


class Refusing(MemorySink):
    """A ClickHouse that refuses a lane's first query."""

    refused = 0

    async def ledger_end(self, lane: int) -> LedgerEntry | None:
        if lane == 1 and not self.refused:
            self.refused += 1
            raise SinkError("refused: the table is gone")
        return await super().ledger_end(lane)


async def test_a_lane_that_a_server_refuses_starts_again(log: Path, monkeypatch: pytest.MonkeyPatch):
    """The cause may be fixed meanwhile, so a worker that keeps running retries the lane, and logs it."""
    monkeypatch.setattr(lane_runner, "LANE_RETRY_SECONDS", 0)
    sink, lines, watcher = Refusing(), list[str](), Watcher()
    worker = make(FilesSource(log, "again"), sink, watcher, lines, until=False)
    idle = set[int]()

    def on_phase(lane: int, phase: Phase) -> None:
        if phase is Phase.IDLE:
            idle.add(lane)
        if len(idle) == MODEL.partitions:
            worker.stop()

    watcher.on_phase = on_phase
    async with asyncio.timeout(60):
        await worker.run()
    assert lines == ["lane 1: refused: the table is gone; it starts again in 0 s"]
    assert await received(sink) == {0: True, 1: True}


class FullDisk(MemorySink):
    """A ClickHouse whose disk is full: it refuses the first dimension strings of each lane."""

    refused = 0

    async def insert_texts(self, table: str, hashes: Columns) -> None:
        if self.refused < MODEL.partitions:
            self.refused += 1
            raise InsertRefused("not enough space", code=243)
        await super().insert_texts(table, hashes)


async def test_refused_dimension_strings_are_written_again(log: Path):
    """Nothing of the batch has begun, so the lane waits and does not restart, whatever the server's reason."""
    sink, lines = FullDisk(), list[str]()
    worker = make(FilesSource(log, "no-room"), sink, Watcher(), lines, until=True)
    async with asyncio.timeout(60):
        assert await worker.run()
    assert sink.refused == MODEL.partitions
    assert lines, "the log reports it"
    assert all("not enough space; try " in line for line in lines)
    assert await received(sink) == {0: True, 1: True}


class Silent(FilesSource):
    """A log that does not answer one commit of lane 0."""

    members: set[str]
    silent = False

    async def commit(self, assignment: Assignment, positions: Mapping[int, Committed]) -> None:
        self.members = {*getattr(self, "members", ()), assignment.member_id}
        if assignment.lane == 0 and not self.silent:
            self.silent = True
            raise CommitUnknown("no answer to a commit")
        await super().commit(assignment, positions)


async def test_a_commit_without_an_answer_makes_a_new_member(log: Path):
    """The worker leaves the group, joins with a new member id, and every lane reaches its end."""
    source, sink, lines = Silent(log, "silent"), MemorySink(), list[str]()
    worker = make(source, sink, Watcher(), lines, until=True)
    async with asyncio.timeout(60):
        assert await worker.run()
    assert lines == ["lane 0: no answer to a commit; leaving the group to join as a new member"]
    assert len(source.members) == 2
    assert not worker.joined
    assert await received(sink) == {0: True, 1: True}


BOUNDS = st.dictionaries(st.integers(0, 1), st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1)


def entry(epoch: str, ends: Mapping[int, int]) -> LedgerEntry:
    return LedgerEntry(
        lane=0, batch_no=0, epoch=epoch, ranges=tuple(OffsetRange(t, 0, end) for t, end in ends.items()), cut_time=0,
        cut_topic=0, cut_offset=0, clock_before=0, clock_after=0, records_received=0, counts={}, money=(),
        judge_version=1, rollup_rows=0, events_digest=0, dead_letters_digest=0,
    )  # fmt: skip


@given(BOUNDS, st.integers(0, 20))
def test_a_lane_has_caught_up_where_its_ledger_covers_every_end(bounds: dict[int, tuple[int, int]], end: int):
    """Ledgers of other workers' lanes count too; a ledger of another log covers nothing, and no ledger only an empty log."""
    offsets = {t: OffsetBounds(min(pair), max(pair)) for t, pair in bounds.items()}
    reached = all(end >= b.end for b in offsets.values())
    assert covers(entry("log", dict.fromkeys(offsets, end)), "log", offsets) == reached
    assert covers(entry("log~2", dict.fromkeys(offsets, end)), "log", offsets) == reached, "truncated twice"
    assert not covers(entry("another", dict.fromkeys(offsets, 100)), "log", offsets)
    assert covers(None, "log", offsets) == all(b.first == b.end for b in offsets.values())
