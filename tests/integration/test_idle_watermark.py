"""An idle lane's watermark advances by empty batches that are in the ledger, and on which every later owner agrees."""

import asyncio
from dataclasses import replace
from pathlib import Path

from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.buffer import BatchLimits
from adledger.pipeline.lanes.emit import Event
from adledger.pipeline.lanes.events import BatchDone, Phase, PhaseChanged
from adledger.pipeline.lanes.ports import IdleWatermark, LaneLimits
from adledger.pipeline.lanes.worker import Worker
from adledger.pipeline.log.files import FilesSource
from adledger.pipeline.retry import RetryPolicy
from adledger.schemas.wire import currency_code
from adledger.sinks.memory import MemorySink
from adledger.sinks.sink import LedgerEntry

MODEL = TrafficModel(seed=5, events=200, partitions=2)
NEW_YEAR_2100 = 4_102_444_800
SKEW_SECONDS = 60
LIMITS = LaneLimits(
    batch=BatchLimits(1_000, 1 << 24, 10), fetch_bytes_max=1 << 20, window_ms=3_600_000, allowed_lateness_ms=3_600_000,
    write_deadline_seconds=10, retry=RetryPolicy(3, backoff_ms_max=1), default_currency=currency_code("USD"),
)  # fmt: skip


class Watcher:
    """Stops the worker when each lane has done this many empty batches."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.worker: Worker | None = None
        self.idle: dict[int, list[LedgerEntry]] = {0: [], 1: []}
        self.phases: list[Phase] = []

    def emit(self, event: Event) -> None:
        match event:
            case PhaseChanged(_, phase):
                self.phases.append(phase)
            case BatchDone(entry):
                self.batch_done(entry)

    def batch_done(self, entry: LedgerEntry) -> None:
        if entry.records_received == 0:
            self.idle[entry.lane].append(entry)
        if all(len(entries) >= self.wanted for entries in self.idle.values()):
            assert self.worker is not None
            self.worker.stop()


async def idle_run(log: Path, sink: MemorySink, watcher: Watcher, limits: LaneLimits) -> None:
    worker = Worker(
        FilesSource(log, "idle"), sink, limits, cpu_threads=1, inserts_per_second_max=1_000_000,
        revoke_ms_max=5_000, until_caught_up=False, emit=watcher.emit,
    )  # fmt: skip
    watcher.worker = worker
    async with asyncio.timeout(60):
        await worker.run()


async def test_an_idle_lane_advances_its_watermark_by_empty_batches(tmp_path: Path):
    """Each advances the watermark to the server's time less the skew, takes no offsets, and never moves it back."""
    log = tmp_path / "log"
    with open_log(log, MODEL.partitions) as writer:
        write_traffic(MODEL, writer, lambda _: None)
    clock = iter(range(NEW_YEAR_2100, NEW_YEAR_2100 + 10_000))
    sink = MemorySink(clock=lambda: next(clock))
    watcher = Watcher(2)
    await idle_run(log, sink, watcher, replace(LIMITS, idle_watermark=IdleWatermark(0, SKEW_SECONDS)))
    assert Phase.IDLE in watcher.phases
    for lane, (first, second, *_) in watcher.idle.items():
        assert first.clock_after < second.clock_after
        assert (NEW_YEAR_2100 - SKEW_SECONDS) * 1000 <= first.clock_after < (NEW_YEAR_2100 + 10_000) * 1000
        assert all(r.start == r.end for r in first.ranges)
        assert second.clock_before == first.clock_after
        end = await sink.ledger_end(lane)
        assert end is not None
        assert end.clock_after >= second.clock_after

    after = Watcher(1)  # the next owner goes on from there, and agrees
    await idle_run(log, sink, after, replace(LIMITS, idle_watermark=IdleWatermark(0, SKEW_SECONDS)))
    assert after.idle[0][0].batch_no > watcher.idle[0][1].batch_no
    assert Phase.IN_DOUBT not in after.phases
