"""The writer of dimension strings: a caller returns when its strings are durable, lanes share inserts, a failure loses
nothing.
"""

import asyncio
from collections.abc import Mapping

import numpy as np
import pytest

from adledger.pipeline.errors import SinkUnavailable
from adledger.pipeline.lanes.dimension_strings import DimensionStringWriter
from adledger.sinks.memory import MemorySink
from adledger.sinks.sink import Columns


def agents(*hashes: int) -> Mapping[str, Columns]:
    texts = np.fromiter((b"agent %d" % h for h in hashes), object, len(hashes))
    return {"user_agents": {"ua_hash": np.array(hashes, np.uint64), "text": texts}}


class SlowSink(MemorySink):
    """Holds each insert of strings until it is released, and counts; `down` refuses it."""

    def __init__(self) -> None:
        super().__init__()
        self.inserts = 0
        self.down = False
        self.arrived = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()

    async def insert_texts(self, table: str, hashes: Columns) -> None:
        self.inserts += 1
        self.arrived.set()
        await self.open.wait()
        if self.down:
            raise SinkUnavailable("away")
        await super().insert_texts(table, hashes)


async def test_lanes_that_wait_share_one_insert():
    """While one insert is under way the others collect, and are written together as the next."""
    sink = SlowSink()
    writer = DimensionStringWriter(sink)
    sink.open.clear()
    first = asyncio.create_task(writer.write(agents(0)))
    await sink.arrived.wait()
    others = [asyncio.create_task(writer.write(agents(h, h + 1))) for h in range(1, 9)]
    await asyncio.sleep(0)  # they have queued
    sink.open.set()
    await asyncio.gather(first, *others)
    assert sink.inserts == 2
    assert sink.texts["user_agents"] == {h: b"agent %d" % h for h in range(10)}


async def test_no_texts_are_no_insert():
    """A batch that brought nothing new asks nothing of the server."""
    sink = SlowSink()
    await DimensionStringWriter(sink).write({})
    assert sink.inserts == 0


async def test_a_failure_is_told_to_who_waits_and_loses_nothing():
    """A refused write raises; written again, all that was asked for until then is there."""
    sink = SlowSink()
    writer = DimensionStringWriter(sink)
    sink.down = True
    for outcome in await asyncio.gather(
        writer.write(agents(1)), writer.write(agents(2)), return_exceptions=True
    ):
        assert isinstance(outcome, SinkUnavailable)
    with pytest.raises(SinkUnavailable):
        await writer.write(agents(3))
    sink.down = False
    await writer.write(agents(2))
    assert set(sink.texts["user_agents"]) == {1, 2, 3}
