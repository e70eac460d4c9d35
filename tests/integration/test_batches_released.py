"""Batches leave nothing behind, without the garbage collector: workers seldom collect, and a slow server means many failures."""

import asyncio
import gc
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from adledger.loadtest.traffic.model import TrafficModel
from adledger.loadtest.traffic.write import write_traffic
from adledger.pipeline.errors import SinkUnavailable
from adledger.pipeline.importing.run import open_log
from adledger.pipeline.lanes.buffer import BatchLimits
from adledger.pipeline.lanes.compute import Computed
from adledger.pipeline.lanes.ports import LaneLimits, RolledUp
from adledger.pipeline.lanes.warm import compile_kernels
from adledger.pipeline.lanes.worker import Worker
from adledger.pipeline.log.files import FilesSource
from adledger.pipeline.retry import RetryPolicy
from adledger.pipeline.stages.merge import OrderedRecords
from adledger.schemas.wire import currency_code
from adledger.sinks.memory import MemorySink
from adledger.sinks.sink import Columns, Stamp

pytestmark = pytest.mark.usefixtures("without_pauses", "no_collector")

LANES = 12
ROWS_MAX = 4
EVENTS = LANES * 200
HOUR_MS = 3_600_000


@dataclass(slots=True)
class Troubled(MemorySink):
    """A ClickHouse that some calls don't reach, and a broker that some messages don't."""

    share: float = 0.3
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    now: float = 1_000.0
    troubles: int = 0

    async def server_time(self) -> int:
        self.now += 0.1
        self.trouble()
        return int(self.now)

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        self.trouble()
        await MemorySink.insert(self, table, columns, stamp)

    async def announce(self, batch: RolledUp) -> None:
        self.trouble()

    def trouble(self) -> None:
        """Fail sometimes."""
        if self.chance.random() < self.share:
            self.troubles += 1
            raise SinkUnavailable("no connection")


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    compile_kernels()  # the compiler keeps errors, and with them the frames of its first caller


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("released") / "log"
    with open_log(folder, LANES) as writer:
        write_traffic(
            TrafficModel(seed=5, events=EVENTS, partitions=LANES, duration_hours=2), writer, lambda _: None
        )
    return folder


async def to_the_end(log: Path, group: str, sink: Troubled) -> None:
    """Run a worker to the log's end."""
    sink.clock = lambda: sink.now
    limits = LaneLimits(
        batch=BatchLimits(ROWS_MAX, 1 << 24, 10), fetch_bytes_max=1 << 20, window_ms=24 * HOUR_MS,
        allowed_lateness_ms=24 * HOUR_MS, write_deadline_seconds=3, retry=RetryPolicy(50, 1),
        default_currency=currency_code("USD"),
    )  # fmt: skip
    worker = Worker(
        FilesSource(log, group), sink, limits,
        cpu_threads=1, inserts_per_second_max=1_000_000, revoke_ms_max=5_000, until_caught_up=True, announce=sink.announce,
    )  # fmt: skip
    assert await worker.run()


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_batches_leave_nothing_behind(log: Path, share: float) -> None:
    """No error holds on to the batch that it failed, and none that was done is in a cycle."""

    async def left() -> Counter[type]:
        before = batches_in_memory()
        sink = Troubled(share=share)
        await to_the_end(log, f"released-{share}", sink)
        assert len(sink.tables["ledger"]) > EVENTS // ROWS_MAX // 2
        assert (sink.troubles > 100) == (share > 0)
        return batches_in_memory() - before

    assert asyncio.run(left()) == {}


def batches_in_memory() -> Counter[type]:
    """Return how many objects there are that hold a batch's rows or records."""
    return Counter(type(o) for o in gc.get_objects() if isinstance(o, Computed | OrderedRecords | RolledUp))
