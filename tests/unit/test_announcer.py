"""The announcer: a message that was not taken leaves nothing behind, even without the garbage collector."""

import asyncio
import gc
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from aiokafka.errors import NotLeaderForPartitionError

from adledger.pipeline.control import announcer as announcer_module
from adledger.pipeline.control.announcer import Announcer
from adledger.pipeline.errors import SinkUnavailable
from adledger.pipeline.lanes.ports import RolledUp
from adledger.schemas.tables import PROTOCOL_COLUMNS, STAMP_COLUMNS


class LeaderMoved:
    """A producer whose messages the broker does not take."""

    def __init__(self, **_: Any) -> None:
        """Take any options."""

    async def start(self) -> None:
        """Connect."""

    async def stop(self) -> None:
        """Disconnect."""

    async def send(self, topic: str, value: bytes, key: bytes) -> "asyncio.Future[None]":
        """Return the message's outcome, which comes later."""
        outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_soon(
            lambda: outcome.done() or outcome.set_exception(NotLeaderForPartitionError())
        )
        return outcome


class Rollup(dict[str, Any]):
    """A batch's rollup rows, which a weak reference may name."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
async def test_a_message_that_fails_releases_its_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise each attempt's rollup would stay in memory while a leader moves: workers seldom collect."""
    monkeypatch.setattr(announcer_module, "AIOKafkaProducer", LeaderMoved)
    announcer = Announcer("ad.rollups", {"bootstrap_servers": ["127.0.0.1:9"]})

    async def fail() -> weakref.ref[Rollup]:
        own = PROTOCOL_COLUMNS["rollup_minute"].items()
        rollup = Rollup({name: np.zeros(1, dtype) for name, dtype in own if name not in STAMP_COLUMNS})
        with pytest.raises(SinkUnavailable, match="lane 3, batch 5"):
            await announcer.announce(RolledUp("e", 3, 5, 1_000, rollup))
        return weakref.ref(rollup)

    rollup = await fail()
    await announcer.stop()
    await asyncio.get_running_loop().shutdown_default_executor()  # its threads no longer refer to it
    assert rollup() is None
