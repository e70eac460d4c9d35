"""In doubt: however each insert ends, and wherever a worker dies, the tables end as in a run without faults."""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.errors import AdledgerError, CommitRefused, InsertUnknown, LaneHalted, SinkUnavailable
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.buffer import BatchLimits
from adledger.pipeline.lanes.doubt import Settled, Settlement
from adledger.pipeline.lanes.emit import Emit, Event
from adledger.pipeline.lanes.events import LaneLost
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.ports import LaneLimits
from adledger.pipeline.lanes.rules_in_force import RulesInForce
from adledger.pipeline.lanes.start import lines_to
from adledger.pipeline.lanes.worker import Worker
from adledger.pipeline.log.files import FilesSource
from adledger.pipeline.log.source import Assignment, Committed
from adledger.pipeline.retry import RetryPolicy
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.pipeline.stages.merge import OrderedRecords
from adledger.schemas.wire import currency_code
from adledger.sinks.blocks import Block
from adledger.sinks.memory import MemorySink, SinkFaults
from adledger.sinks.sink import Columns, LedgerEntry, Stamp

pytestmark = pytest.mark.usefixtures("without_pauses")

MODEL = TrafficModel(
    seed=11, events=900, partitions=1, duration_hours=30, duplicate_share=0.1, malformed_share=0.05
)
BATCH_ROWS = 300
DEADLINE_SECONDS = 3
HOUR_MS = 3_600_000
TABLES = ("events", "dead_letters", "rollup_minute", "ledger")

OK, UNAVAILABLE, LOST, KILLED, UNANSWERED, LATE, ON_THE_WIRE, RUNNING_ON = (
    "ok", "unavailable", "lost", "killed", "unanswered", "late", "on the wire", "running on",
)  # fmt: skip
"""The fate of an insert: stored and answered; never sent; lost before it ran; killed while it ran; stored, its answer
lost; at the server after its deadline; abandoned by the client while on the wire, to arrive when the lane reads the
tables; abandoned while it runs, until it is killed."""

CRASH_BEFORE, CRASH_AFTER, CRASH_ON_THE_WIRE = "crash before", "crash after", "crash on the wire"
"""The worker dies: before the insert is sent, when it was stored, or while it is under way as above."""

FATES = (
    UNAVAILABLE, LOST, KILLED, UNANSWERED, LATE, ON_THE_WIRE, RUNNING_ON,
    CRASH_BEFORE, CRASH_AFTER, CRASH_ON_THE_WIRE,
)  # fmt: skip


class Crash(Exception):  # noqa: N818 - not an error but a fault
    """The worker dies here."""


class Clock:
    """The server's clock: a second passes at each reading, and more when a test sets it."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class TickingSink(MemorySink):
    """A sink whose clock advances when it is read, so that no test waits, and whose client may abandon an insert."""

    gone: asyncio.Future[None]
    looked: asyncio.Event

    async def server_time(self) -> int:
        self.clock.now += 1
        return int(self.clock())

    async def batch_rows(self, lane: int, batch_no: int) -> Mapping[str, int]:
        rows = await super().batch_rows(lane, batch_no)
        self.looked.set()
        await asyncio.sleep(0)  # what is on the wire arrives now
        return rows

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        self.gone, self.looked = asyncio.get_running_loop().create_future(), asyncio.Event()
        insert = asyncio.create_task(super().insert(table, columns, stamp))
        await asyncio.wait({insert, self.gone}, return_when=asyncio.FIRST_COMPLETED)
        if self.gone.done():
            insert.cancel()
            self.gone.result()
        await insert


class Fates(SinkFaults):
    """Gives each insert the next fate; OK when they are used up."""

    def __init__(self, fates: Sequence[str], sink: TickingSink) -> None:
        self._left, self._sink, self._fate = list(fates), sink, OK
        self.met: list[tuple[str, str]] = []

    async def request(self, table: str, stamp: Stamp) -> None:
        self._fate = fate = self.next_fate(table, stamp)
        self.met.append((table, fate))
        if fate == UNAVAILABLE:
            raise SinkUnavailable("no connection")
        if fate == LOST:
            raise InsertUnknown("lost on its way")
        if fate == CRASH_BEFORE:
            raise Crash
        if fate == LATE:
            self._sink.clock.now = stamp.send_by + 1.0
        if fate in {ON_THE_WIRE, CRASH_ON_THE_WIRE}:
            self._sink.gone.set_exception(Crash() if fate == CRASH_ON_THE_WIRE else InsertUnknown("given up"))
            await self._sink.looked.wait()

    async def running(self, table: str, stamp: Stamp) -> None:
        if self._fate == KILLED:
            raise InsertUnknown("killed")
        if self._fate == RUNNING_ON:
            self._sink.gone.set_exception(InsertUnknown("given up"))
            await asyncio.Event().wait()

    async def reply(self, table: str, stamp: Stamp) -> None:
        if self._fate == UNANSWERED:
            raise InsertUnknown("no answer")
        if self._fate == CRASH_AFTER:
            raise Crash

    def next_fate(self, table: str, stamp: Stamp) -> str:
        return self._left.pop(0) if self._left else OK


class FateOf(Fates):
    """One fate, for one table's first insert of one batch."""

    def __init__(self, table: str, batch_no: int, fate: str, sink: TickingSink) -> None:
        super().__init__([fate], sink)
        self._where = (table, batch_no)

    def next_fate(self, table: str, stamp: Stamp) -> str:
        return super().next_fate(table, stamp) if (table, stamp.batch_no) == self._where else OK


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("doubt") / "log"
    with open_log(folder, MODEL.partitions) as writer:
        write_traffic(MODEL, writer, lambda _: None)
    return folder


LIMITS = LaneLimits(
    batch=BatchLimits(BATCH_ROWS, 1 << 24, 10),
    fetch_bytes_max=1 << 20,
    window_ms=24 * HOUR_MS,
    allowed_lateness_ms=24 * HOUR_MS,
    write_deadline_seconds=DEADLINE_SECONDS,
    retry=RetryPolicy(attempts_max=20, backoff_ms_max=1),
    default_currency=currency_code("USD"),
)


def rows_of(block: Block) -> Iterator[tuple[str, ...]]:
    columns = [map(str, block[name]) for name in sorted(block) if name != "send_by"]
    return zip(*columns, strict=True)


class Runs:
    """Workers one after the other, on one log, one group and one sink, until one has caught up."""

    count = 0
    evaluator: RuleEvaluator | None = None
    limits = LIMITS

    def __init__(self, log: Path, source: type[FilesSource] = FilesSource) -> None:
        Runs.count += 1
        self._log, self._group, self._source = log, f"run-{Runs.count}", source
        self.sink = TickingSink(clock=Clock())
        self.lines: list[str] = []
        self.crashes = 0

    def rules_in_force(self) -> RulesInForce:
        """Return what a worker finds its rule evaluator by."""
        return RulesInForce(self.evaluator or RuleEvaluator.none())

    async def to_the_end(self) -> None:
        while not await self.of_one_worker():
            pass

    async def of_one_worker(self) -> bool:
        """Return whether it has caught up, or has died."""
        try:
            assert await self.worker(lines_to(self.lines.append)).run()
        except AdledgerError as error:
            if "Crash()" not in error.message:
                raise
            self.crashes += 1
            return False
        return True

    async def until_a_lane_is_lost(self) -> str:
        """Run a worker until another one turns out to have its lane; returns how that was noticed."""
        lost: list[LaneLost] = []

        def emit(event: Event) -> None:
            if isinstance(event, LaneLost):
                lost.append(event)
                worker.stop()

        worker = self.worker(emit)
        assert not await worker.run()
        return lost[0].why

    def worker(self, emit: Emit) -> Worker:
        return Worker(
            self._source(self._log, self._group), self.sink, self.limits,
            cpu_threads=1, inserts_per_second_max=1_000_000, revoke_ms_max=5_000, until_caught_up=True, emit=emit,
            rules_in_force=self.rules_in_force(),
        )  # fmt: skip

    def rows(self) -> dict[str, list[tuple[str, ...]]]:
        """Return table -> its rows in a fixed order, without the deadlines, which always differ."""
        return {
            table: sorted(row for _, block in self.sink.tables[table] for row in rows_of(block))
            for table in TABLES
        }

    def batches(self) -> list[int]:
        return [stamp.batch_no for stamp, _ in self.sink.tables["ledger"]]


@pytest.fixture(scope="module")
def undisturbed(log: Path) -> Runs:
    runs = Runs(log)
    asyncio.run(runs.to_the_end())
    assert not any("doubt" in line for line in runs.lines)
    assert len(runs.batches()) >= 3
    return runs


def assert_as_undisturbed(runs: Runs, undisturbed: Runs) -> None:
    assert runs.batches() == undisturbed.batches() == list(range(1, len(runs.batches()) + 1))
    assert runs.rows() == undisturbed.rows()
    assert runs.sink.texts == undisturbed.sink.texts


@pytest.mark.parametrize("fate", FATES)
@pytest.mark.parametrize("table", TABLES)
def test_one_insert_goes_wrong(table: str, fate: str, log: Path, undisturbed: Runs) -> None:
    """However any table's insert fails, the tables are those of a run without faults, with the batches dense."""
    runs = Runs(log)
    runs.sink.faults = faults = FateOf(table, 2, fate, runs.sink)
    asyncio.run(runs.to_the_end())
    assert (table, fate) in faults.met
    assert runs.crashes == fate.startswith("crash")
    done = (table, fate) == ("ledger", CRASH_AFTER)  # dead, but the batch was at its end
    assert any("in doubt" in line for line in runs.lines) != done
    assert_as_undisturbed(runs, undisturbed)


class RefusingSource(FilesSource):
    """A log that refuses the next commits as `refusals` says, surely not done."""

    refusals: list[bool]

    async def commit(self, assignment: Assignment, positions: Mapping[int, Committed]) -> None:
        if self.refusals and self.refusals.pop(0):
            raise CommitRefused("the log is not ready")
        await super().commit(assignment, positions)


@given(st.lists(st.booleans(), max_size=10), st.lists(st.sampled_from((OK, UNANSWERED, LOST)), max_size=6))
@settings(max_examples=15)
def test_commits_are_refused(log: Path, undisturbed: Runs, refusals: list[bool], fates: list[str]) -> None:
    """A commit that was certainly not done is intended again, also in doubt: the tables end the same, and no lane halts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RefusingSource, "refusals", refusals, raising=False)
        runs = Runs(log, RefusingSource)
        runs.sink.faults = Fates(fates, runs.sink)
        asyncio.run(runs.to_the_end())
    assert_as_undisturbed(runs, undisturbed)


@given(st.lists(st.sampled_from((OK, *FATES)), max_size=14))
@settings(max_examples=25)
def test_anything_goes_wrong(log: Path, undisturbed: Runs, fates: list[str]) -> None:
    """Whatever happens to the first inserts, including those that settle a doubt, the tables end the same."""
    runs = Runs(log)
    runs.sink.faults = Fates(fates, runs.sink)
    asyncio.run(runs.to_the_end())
    assert runs.crashes == sum(fate.startswith("crash") for fate in fates)
    assert_as_undisturbed(runs, undisturbed)


class OvertakenSink(TickingSink):
    """Once a batch's ledger row was counted, another worker's later batch is the ledger's last."""

    later: LedgerEntry | None = None
    overtaken = False

    async def batch_rows(self, lane: int, batch_no: int) -> Mapping[str, int]:
        rows = await super().batch_rows(lane, batch_no)
        self.overtaken = self.overtaken or bool(rows["ledger"])
        return rows

    async def ledger_end(self, lane: int) -> LedgerEntry | None:
        return self.later if self.later and self.overtaken else await super().ledger_end(lane)


def test_a_worker_that_finds_a_later_batch_in_the_ledger_has_lost_the_lane(
    log: Path, undisturbed: Runs
) -> None:
    """A worker that was paused in doubt never goes on after another worker's batch: its state lacks that batch's ids, and
    a later assignment would use it.
    """
    runs = Runs(log)
    runs.sink = sink = OvertakenSink(clock=Clock())
    sink.faults = FateOf("ledger", 2, UNANSWERED, sink)
    lane = undisturbed.sink.tables["ledger"][0][0].lane
    sink.later = asyncio.run(undisturbed.sink.ledger_end(lane))
    assert sink.later is not None
    assert sink.later.batch_no > 2
    assert (
        asyncio.run(runs.until_a_lane_is_lost())
        == f"the ledger has batch {sink.later.batch_no}, written by another worker"
    )
    assert runs.batches() == [1, 2]
    sink.later = None
    asyncio.run(runs.to_the_end())
    assert_as_undisturbed(runs, undisturbed)


def test_control_a_blind_second_insert_doubles(
    log: Path, undisturbed: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: if doubt were settled by inserting again, a lost answer would double rows, and the tests above would show
    it.
    """

    async def insert_again(
        self: Settlement, intent: Intent, records: OrderedRecords, epochs: Any, compute: Any
    ) -> Settled:
        delivery = self._delivery
        return Settled(await delivery.write(await delivery.intend(intent), await compute()), None)

    monkeypatch.setattr(Settlement, "settle", insert_again)
    runs = Runs(log)
    runs.sink.faults = FateOf("events", 2, UNANSWERED, runs.sink)
    asyncio.run(runs.to_the_end())
    of_batch = [row for row in undisturbed.sink.tables["events"] if row[0].batch_no == 2]
    doubled = len(runs.rows()["events"]) - len(undisturbed.rows()["events"])
    assert doubled == len(of_batch[0][1]["offset"]) > 0


def test_control_looking_too_early_doubles(
    log: Path, undisturbed: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: without waiting for the deadline, an insert still on the wire would arrive after the look, and double
    rows.
    """

    async def at_once(self: Settlement, second: int) -> None:
        return

    monkeypatch.setattr(Settlement, "_wait_past", at_once)
    runs = Runs(log)
    runs.sink.faults = FateOf("events", 2, ON_THE_WIRE, runs.sink)
    with pytest.raises(LaneHalted, match="were intended"):
        asyncio.run(runs.to_the_end())
