"""The delivery's waits: an announcement is sent until it is accepted, and nothing waits on once the lane is stopped."""

import asyncio
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from adledger.pipeline.errors import CommitUnknown, InsertUnknown, LaneStopped, SinkUnavailable
from adledger.pipeline.lanes import delivery as delivery_module
from adledger.pipeline.lanes.delivery import NO_INTENT, Delivery, SentIntent
from adledger.pipeline.lanes.events import Event, RetryScheduled
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.phase_tracker import PhaseTracker
from adledger.pipeline.lanes.ports import Ports, RolledUp
from adledger.pipeline.log.source import Assignment, Committed
from adledger.pipeline.retry import RetryPolicy
from adledger.sinks.sink import Columns, LedgerEntry, OffsetRange, Stamp

ENTRY = cast("LedgerEntry", SimpleNamespace(epoch="e", lane=3, batch_no=8, clock_after=5))
ROWS = {"offset": np.arange(3)}
INTENT = Intent("e", 3, 8, (OffsetRange(0, 10, 20),), 0, 0, 0, 0, 5, 1, 0, 0, 0)
MINE = Assignment(3, 1, "m")
SENT = INTENT.with_send_by(110, MINE.name).text()


@dataclass
class Outside:
    """Brokers that refuse the first `refusals` announcements, or never answer; commits, accepted or never answered; inserts."""

    refusals: int = 0
    silent: bool = False
    accepts: bool = False
    insert_fails: BaseException | None = None
    quiet_within: list[bool] = field(default_factory=list)
    """While each insert ran: whether its intent was quiet."""
    announced: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    made: Delivery = field(init=False)

    async def announce(self, batch: RolledUp) -> None:
        self.announced.append(batch.batch_no)
        if self.silent:
            await asyncio.Event().wait()
        if len(self.announced) <= self.refusals:
            raise SinkUnavailable("the leader moves")

    async def commit(self, assignment: Assignment, positions: dict[int, Committed]) -> None:
        if not self.accepts:
            raise CommitUnknown("no answer")

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        self.quiet_within.append(self.made.sent.quiet)
        if self.insert_fails is not None:
            raise self.insert_fails

    async def server_time(self) -> int:
        return 100

    def delivery(self, stopping: asyncio.Event, assignment: Assignment = MINE) -> Delivery:
        limits = SimpleNamespace(retry=RetryPolicy(None, 1), write_deadline_seconds=10)
        ports: Any = SimpleNamespace(
            announce=self.announce, emit=self.events.append, limits=limits, source=self, sink=self
        )
        phase = PhaseTracker(3, self.events.append)
        self.made = Delivery(cast("Ports", ports), assignment, phase, stopping, NO_INTENT)
        return self.made


async def test_an_announcement_is_sent_until_it_is_accepted() -> None:
    """A topic that refuses it puts no batch in doubt: it is sent again, and each failure is reported."""
    outside = Outside(refusals=3)
    await outside.delivery(asyncio.Event()).announce(ENTRY, {})
    assert outside.announced == [8] * 4
    reported = [event for event in outside.events if isinstance(event, RetryScheduled)]
    assert [event.why for event in reported] == ["the leader moves"] * 3


async def test_a_stopped_lane_does_not_announce_for_ever() -> None:
    """Once it is stopped, a refused announcement is not sent again."""
    outside, stopping = Outside(refusals=1_000_000), asyncio.Event()
    announcing = asyncio.create_task(outside.delivery(stopping).announce(ENTRY, {}))
    while not outside.announced:  # noqa: ASYNC110 - it refuses without end
        await asyncio.sleep(0)
    stopping.set()
    with pytest.raises(LaneStopped):
        await announcing


async def test_a_stopped_lane_gives_up_an_announcement_without_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is under way gets a moment, and is then given up."""
    monkeypatch.setattr(delivery_module, "STOP_GRACE_SECONDS", 0.0)
    outside, stopping = Outside(silent=True), asyncio.Event()
    stopping.set()
    with pytest.raises(LaneStopped, match="batch 8"):
        await outside.delivery(stopping).announce(ENTRY, {})


async def test_an_announcement_under_way_is_completed_after_a_stop() -> None:
    """A stop cuts no announcement that the brokers take: its batch would be in doubt for nothing."""
    outside, stopping = Outside(), asyncio.Event()
    stopping.set()
    await outside.delivery(stopping).announce(ENTRY, {})
    assert outside.announced == [8]


async def test_an_intent_is_quiet_while_no_insert_awaits_its_answer() -> None:
    """It is before the first insert, whether or not its commit was answered, and after each that was answered OK."""
    outside = Outside()
    delivery = outside.delivery(asyncio.Event())
    with pytest.raises(CommitUnknown):
        await delivery.intend(INTENT)
    intended = SentIntent(SENT)
    assert delivery.sent == intended
    outside.accepts = True
    await delivery.intend(INTENT)
    assert delivery.sent == intended
    await delivery.insert("events", ROWS, INTENT.stamp)
    assert (delivery.sent, outside.quiet_within) == (intended, [False])


@pytest.mark.parametrize(
    "error", [InsertUnknown("no answer"), SinkUnavailable("away"), asyncio.CancelledError()]
)
async def test_an_intent_is_not_quiet_after_an_insert_without_ok(error: BaseException) -> None:
    """Its rows may be on their way, until another intent is sent; so may those of an insert that was cancelled."""
    outside = Outside(accepts=True, insert_fails=error)
    delivery = outside.delivery(asyncio.Event())
    await delivery.intend(INTENT)
    with pytest.raises(type(error)):
        await delivery.insert("events", ROWS, INTENT.stamp)
    assert delivery.sent == SentIntent(SENT, quiet=False)
    await delivery.intend(INTENT)
    assert delivery.sent.quiet


@pytest.mark.parametrize(
    "other", [Assignment(3, 2, "m"), Assignment(3, 1, "n")], ids=["generation", "member"]
)
async def test_two_assignments_never_send_the_same_intent(other: Assignment) -> None:
    """Of the same batch in the same second: a worker would else take the other's for its own, whose inserts are answered."""
    mine, theirs = Outside(accepts=True), Outside(accepts=True)
    await mine.delivery(asyncio.Event()).intend(INTENT)
    await theirs.delivery(asyncio.Event(), other).intend(INTENT)
    assert mine.made.sent.text == SENT != theirs.made.sent.text
    assert Intent.parse(SENT, "here").text() == SENT
