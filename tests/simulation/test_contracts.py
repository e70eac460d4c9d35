"""The simulated Kafka and ClickHouse keep the laws of the real ones: the same contract suites."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from adledger.pipeline.log.record_block import Record
from adledger.sinks.sink import Stamp
from tests.contracts.sink_suite import SinkContract, events
from tests.contracts.source_suite import PARTITIONS, SourceLaws
from tests.simulation.clickhouse import CLOCK_BEGINS, Server, SimSink
from tests.simulation.kafka import Broker, SimSource
from tests.simulation.loop import SimLoop
from tests.simulation.world import QUIET, Chances, World


def quiet_world() -> World:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimLoop)
    world = World(1, given_loop=loop)
    world.cease()
    return world


class SimLog:
    """A broker to fill, and members of its group."""

    keeps_record_times = False

    def __init__(self) -> None:
        self.broker = Broker(quiet_world(), PARTITIONS)

    async def append(self, topic: int, partition: int, records: Sequence[Record]) -> None:
        self.broker.append(topic, partition, [(key, value) for _, key, value in records])

    def member(self) -> SimSource:
        return SimSource(self.broker.world, self.broker)


class TestSimSource(SourceLaws):
    """The simulated Kafka."""

    @pytest.fixture
    async def log(self) -> SimLog:
        return SimLog()


class SimHarness:
    def __init__(self) -> None:
        self.world = quiet_world()
        self.server = Server(self.world)
        self.sink = SimSink(self.world, self.server)

    async def rows(self, table: str, lane: int) -> list[tuple[Any, ...]]:
        blocks = [p.block for p in self.server.parts if p.table == table and p.stamp.lane == lane]
        return [
            row
            for block in blocks
            for row in zip(*(np.asarray(v).tolist() for v in block.values()), strict=True)
        ]

    async def texts(self, table: str) -> dict[int, bytes]:
        return self.server.texts[table]

    async def held_insert(self, stamp: Stamp) -> asyncio.Task[None]:
        """Start an insert that the server works on for seconds; its block is incomplete."""
        self.world.chances = Chances(**{**_as_dict(QUIET), "long_insert": 1.0})
        outcome = asyncio.create_task(self.sink.insert("events", events(3), stamp))
        while not any(i.stamp == stamp for i in self.server.running):  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.001)
        self.world.chances = QUIET
        for insert in self.server.running:
            insert.checked = False
        return outcome


def _as_dict(chances: Chances) -> dict[str, float]:
    return {name: getattr(chances, name) for name in Chances.__dataclass_fields__}


class TestSimSink(SinkContract):
    """The simulated ClickHouse."""

    @pytest.fixture
    async def harness(self) -> SimHarness:
        return SimHarness()

    async def test_its_clock_is_its_own(self, harness: SimHarness):
        """The server's seconds go on in virtual time, from its own beginning, and can be set forward."""
        began = await harness.sink.server_time()
        assert began == CLOCK_BEGINS
        await asyncio.sleep(100)
        harness.server.jump(50)
        assert began + 149 <= await harness.sink.server_time() <= began + 151
