"""A lane's state after a restart equals, entry by entry and on a real engine, that of a lane that never stopped."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adledger import __version__
from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes import state as state_module
from adledger.pipeline.lanes.compute import LaneState
from adledger.pipeline.lanes.emit import Emit, Event, ignore
from adledger.pipeline.lanes.events import BatchDone, Phase, PhaseChanged, RebuildProgressed
from adledger.pipeline.lanes.rules_in_force import RulesInForce
from adledger.pipeline.lanes.snapshot import Start
from adledger.pipeline.lanes.state import StateKeeper
from adledger.pipeline.lanes.worker import Worker
from adledger.pipeline.log.files.source import FilesSource
from adledger.pipeline.rules.compiled import RuleEvaluator
from adledger.pipeline.rules.tables import SlidingCounts, SlotTable
from adledger.pipeline.rules.windows import OF_IMPRESSIONS, RuleWindows
from adledger.schemas.classes import Reason
from adledger.schemas.migrate import migrate
from adledger.sinks.clickhouse import ClickHouseSink, SinkOptions
from adledger.sinks.connection import connect
from adledger.sinks.embedded.launch import EmbeddedServer
from adledger.sinks.memory import MemorySink
from adledger.sinks.sink import Columns, Identities, LedgerEntry, Sink, Stamp
from tests.integration.test_doubt import LIMITS
from tests.integration.test_rules_restart import MODEL, RULES

HOUR_MS = 3_600_000
SMALL = replace(LIMITS, window_ms=2 * HOUR_MS, allowed_lateness_ms=2 * HOUR_MS, write_deadline_seconds=2)
"""A window that ids leave again within the log's five hours."""
DIES_IN = 5
"""The batch with event rows but without a ledger row when the worker dies."""
PATIENCE_SECONDS = 60

Entries = dict[str, Any]


def entries(state: LaneState, clock: int) -> Entries:
    """Return what a lane remembers at a watermark (ms), by name; expired entries are left out."""
    return {"ids": state.dedupe.entries(clock), **window_entries(state.evaluator.windows, clock)}


def window_entries(windows: RuleWindows, clock: int) -> Entries:
    """Return what the rule windows hold at a watermark (ms)."""
    horizons = windows._horizons
    velocity = windows._rules[Reason.USER_VELOCITY].params
    return {
        "impressions by publisher": slots(
            windows._impressions, clock, max(horizons[r] for r in OF_IMPRESSIONS)
        ),
        "impressions by person": slots(windows._seen, clock, max(horizons[r] for r in OF_IMPRESSIONS)),
        "last clicks": slots(windows._last_clicks, clock, horizons[Reason.DOUBLE_CLICK]),
        "networks": words(windows._networks, clock, horizons[Reason.USER_MANY_IPS]),
        "arrivals": words(windows._arrivals, clock, horizons[Reason.PERIODIC]),
        "repeats": counts(windows._repeats, clock, horizons[Reason.REPEAT_CLICK]),
        "events": counts(windows._events, clock, velocity["window_seconds"] * 1000),
        "clicks": counts(windows._clicks, clock, velocity["clicks_window_minutes"] * 60_000),
    }


def young(table_words: np.ndarray, clock: int, window_ms: int) -> np.ndarray:
    """Return which words' times, their low halves, are within a window."""
    return (clock - table_words.astype(np.int64)) % 2**32 <= window_ms


def slots(table: SlotTable, clock: int, window_ms: int) -> set[tuple[int, ...]]:
    """Return the slots whose newest event is within the window."""
    rows = table.words.reshape(table.capacity, -1)
    kept = (rows[:, 0] != 0) & young(rows[:, 1], clock, window_ms)
    return {tuple(map(int, row)) for row in rows[kept]}


def words(table: SlotTable, clock: int, window_ms: int) -> dict[int, list[int]]:
    """Return key -> the remembered words within the window, newest first."""
    rows = table.words.reshape(table.capacity, -1)
    kept = (rows[:, 1:] != 0) & young(rows[:, 1:], clock, window_ms)
    found = {int(row[0]): row[1:][keep].tolist() for row, keep in zip(rows, kept, strict=True) if row[0]}
    return {key: remembered for key, remembered in found.items() if remembered}


def counts(of: SlidingCounts, clock: int, window_ms: int) -> list[tuple[int, int, int]]:
    """Return (key, source, time) of the events within the window, in the lane's order."""
    places = np.arange(of._fifo[0], of._fifo[1]) & (len(of._fifo_keys) - 1)
    columns = (of._fifo_keys, of._fifo_sources, of._fifo_clocks)
    found = zip(*(values[places].tolist() for values in columns), strict=True)
    return [(key, source, at) for key, source, at in found if clock - at <= window_ms]


@dataclass
class Snapshots:
    """What a lane remembered after each batch, and what it logged about its rebuild."""

    worker: Worker | None = None
    after: dict[int, Entries] = field(default_factory=dict)
    phases: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def emit(self, event: Event) -> None:
        match event:
            case PhaseChanged(_, Phase.REBUILDING, detail):
                self.phases.append(detail)
            case RebuildProgressed():
                self.lines.append(event.line)
            case BatchDone(entry):
                self.batch_done(entry)

    def batch_done(self, entry: LedgerEntry) -> None:
        assert self.worker is not None
        lane = self.worker._owned[entry.lane].lane
        assert lane is not None
        self.after[entry.batch_no] = entries(lane._keeper.state, entry.clock_after)


class Dies(ClickHouseSink):
    """A sink whose worker dies before the ledger row of one batch."""

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        if (table, stamp.batch_no) == ("ledger", DIES_IN):
            raise RuntimeError("killed")
        await super().insert(table, columns, stamp)


def make_worker(log: Path, sink: Sink, emit: Emit = ignore) -> Worker:
    return Worker(
        FilesSource(log, "rebuild"), sink, SMALL, cpu_threads=1, inserts_per_second_max=1_000_000, revoke_ms_max=5_000,
        until_caught_up=True, emit=emit, rules_in_force=RulesInForce(RuleEvaluator(RULES)),
    )  # fmt: skip


def write_log(folder: Path, model: TrafficModel) -> Path:
    with open_log(folder, model.partitions) as writer:
        write_traffic(model, writer, lambda _: None)
    return folder


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerAddress]:
    with EmbeddedServer.start(tmp_path_factory.mktemp("clickhouse")) as server:
        address = ServerAddress(server.host, server.port, server.http_port)
        with connect(address) as client:
            for database in ("steady", "stopped"):
                migrate(client, database=database, release=__version__)
        yield address


def run(log: Path, sink: ClickHouseSink, seen: Snapshots) -> bool:
    """Run a worker; return whether it came to the end."""

    async def to_the_end() -> bool:
        worker = seen.worker = make_worker(log, sink, seen.emit)
        try:
            return await worker.run()
        except AdledgerError:
            return False
        finally:
            await sink.close()

    return asyncio.run(to_the_end())


def test_a_restarted_lane_has_the_state_of_one_that_never_stopped(
    address: ServerAddress, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Dedupe table and rule windows are equal entry by entry, at the restart (without the batch in doubt) and at the end.

    The rebuild's progress is visible, and logged.
    """
    steady = Snapshots()
    assert run(write_log(tmp_path / "one", MODEL), ClickHouseSink(address, SinkOptions("steady")), steady)
    assert len(steady.after) > DIES_IN + 1
    assert all(steady.after[DIES_IN].values()), "every window has entries"
    assert len(steady.after[max(steady.after)]["ids"]) < MODEL.events * 0.8, "ids have left the window"
    log = write_log(tmp_path / "two", MODEL)
    assert not run(log, Dies(address, SinkOptions("stopped")), Snapshots())

    rebuilt: list[Entries] = []
    real = StateKeeper.rebuild

    async def rebuild(self: StateKeeper, start: Start) -> None:
        await real(self, start)
        assert start.pending is not None
        assert start.pending.batch_no == DIES_IN
        rebuilt.append(entries(self.state, start.clock))

    monkeypatch.setattr(StateKeeper, "rebuild", rebuild)
    monkeypatch.setattr(state_module, "IDS_BETWEEN_LINES", 100)
    again = Snapshots()
    assert run(log, ClickHouseSink(address, SinkOptions("stopped")), again)
    assert rebuilt == [steady.after[DIES_IN - 1]]
    assert again.after == {n: steady.after[n] for n in again.after}
    assert again.after.keys() == {n for n in steady.after if n > DIES_IN}
    ids = len(rebuilt[0]["ids"])
    assert any(f"{ids:,} ids rebuilt, of about" in line for line in again.lines)
    assert f"{ids:,} of about {ids:,} ids" in again.phases


class Waits(MemorySink):
    """A sink that returns lane 0's ids only when another lane has a batch in the ledger."""

    waited = False

    async def identities(self, lane: int, clock_from: int, before_batch_no: int) -> AsyncIterator[Identities]:
        while lane == 0 and not any(stamp.lane for stamp, _ in self.tables["ledger"]):
            self.waited = True
            await asyncio.sleep(0.01)
        async for block in super().identities(lane, clock_from, before_batch_no):
            yield block


async def test_lanes_that_are_ready_start_while_others_rebuild(tmp_path: Path):
    """A lane works while another's rebuild takes its time; in the end all records of both are there."""
    model = replace(MODEL, partitions=2, events=300)
    sink = Waits()
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await make_worker(write_log(tmp_path / "log", model), sink).run()
    assert sink.waited
    assert {stamp.lane for stamp, _ in sink.tables["ledger"]} == {0, 1}
    assert sum(int(block["records_received"][0]) for _, block in sink.tables["ledger"]) > 0
