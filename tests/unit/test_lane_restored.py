"""A lane that begins with a computed batch whose commit was not accepted, on a log that no longer has its records."""

import asyncio
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from adledger.pipeline.errors import LaneHalted, UnreadableBatch
from adledger.pipeline.halts import HaltReason
from adledger.pipeline.lanes import lane as lane_module
from adledger.pipeline.lanes import read_again
from adledger.pipeline.lanes.delivery import SentIntent
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.lane import Lane
from adledger.pipeline.lanes.ports import Ports
from adledger.pipeline.lanes.snapshot import Start
from adledger.pipeline.log.source import Assignment
from adledger.pipeline.retry import RetryPolicy
from adledger.sinks.sink import OffsetRange

INTENT = Intent("e", 3, 8, (OffsetRange(0, 10, 20),), 80, 0, 19, 70, 80, 10, 0, 1, 0, leader_epochs=(4,))
FOUND = Start({0: 10}, 8, 70, None)
GONE = [
    LaneHalted("the log ends at 15", reason=HaltReason.BATCH_TRUNCATED),
    UnreadableBatch("wrong checksum", topic=0, start=12, end=13),
]


class RestoredState:
    """A state keeper whose cached state has the batch."""

    def __init__(self, *_: object) -> None:
        self.state = SimpleNamespace(dedupe=SimpleNamespace(taken=0))
        self.computed: object | None = SimpleNamespace(intent=INTENT, rows=object())
        self.rebuilt: list[Start] = []
        self.begins = replace(FOUND, pending=INTENT, committed=False)

    def restore(self, *_: object) -> Start:
        return self.begins

    async def rebuild(self, start: Start) -> None:
        self.rebuilt.append(start)
        self.computed = None


class NoChoice:
    """Rules that never change."""

    def __init__(self, *_: object) -> None: ...

    async def begin(self, batch_no: int) -> None: ...


@pytest.fixture
def lane(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Lane:
    """A lane that finds no intent, and whose records can't be read again."""

    async def found(*_: object) -> Start:
        return FOUND

    async def gone(*_: object) -> None:
        raise request.param

    monkeypatch.setattr(lane_module, "StateKeeper", RestoredState)
    monkeypatch.setattr(lane_module, "EvaluatorChoice", NoChoice)
    monkeypatch.setattr(lane_module, "find_start", found)
    monkeypatch.setattr(read_again, "fetch_again", gone)
    limits = SimpleNamespace(default_currency=0, retry=RetryPolicy(1, 1), batch=None)
    topology = SimpleNamespace(partitions=4, kinds=(1,), topics=("t",), epoch="e")
    ports: Any = SimpleNamespace(
        topology=topology, limits=limits, emit=lambda _: None, rules_in_force=None,
        source=SimpleNamespace(resume=lambda *_: None),
    )  # fmt: skip
    assignment = Assignment(3, 2, "m")
    return Lane(cast("Ports", ports), assignment, asyncio.Semaphore(), {0: 10}, sent=SentIntent("x"))


@pytest.mark.parametrize("lane", GONE, indirect=True, ids=["truncated", "damaged"])
async def test_it_cuts_again(lane: Lane) -> None:
    """Nothing names the batch but this process, so no operator could give it up: the state is rebuilt without it."""
    await lane.run()
    keeper = cast("RestoredState", lane._keeper)
    assert (len(keeper.rebuilt), keeper.computed) == (1, None)
    assert lane.cached is not None
    assert (lane.cached.batch_no, lane.cached.clock, lane.cached.computed) == (8, 70, None)


@pytest.mark.parametrize("lane", GONE[:1], indirect=True, ids=["truncated"])
async def test_a_committed_batch_halts(lane: Lane) -> None:
    """Its rows may be there: an operator decides."""
    cast("RestoredState", lane._keeper).begins = replace(FOUND, pending=INTENT)
    with pytest.raises(LaneHalted):
        await lane.run()
