"""Closing periods as time goes on: the owner of lane 0 looks every minute, and closes what may be closed.

One worker does it to save the others the work. An operator, or a worker that does not know yet that it lost lane 0, may close at the
same time: the result is the same.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from adledger import __version__
from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.billing.closing import LedgerView, NextPeriod, close_all, next_period
from adledger.pipeline.billing.fence import Sleep, consistent
from adledger.pipeline.billing.overrides import iso
from adledger.pipeline.billing.status import PeriodsStatus, periods_status
from adledger.pipeline.errors import AdledgerError
from adledger.pipeline.lanes.emit import Emit, Event
from adledger.pipeline.lanes.server import connected
from adledger.pipeline.lanes.worker_events import ClosingFailed, PeriodClosed, PeriodHeld, PeriodsSeen
from adledger.pipeline.ledger.queries import QueryClient, TableNames
from adledger.pipeline.settings import Settings
from adledger.schemas.wire import currency_text

EVERY_SECONDS = 60
PERIODS_MAX = 96
"""Periods that a round closes at most: a day. Then it reports, and the next round goes on."""


@dataclass(slots=True)
class ClosingRounds:
    """Rounds of one worker. A round reports an AdledgerError, and lanes that hold periods open, when that changes."""

    tables: TableNames
    sleep: Sleep | None = time.sleep
    ended: threading.Event = field(default_factory=threading.Event)
    """Set it to end a round after the period under way."""
    _failed: ClosingFailed | None = None
    _held: PeriodHeld | None = None

    def round(self, client: QueryClient) -> list[Event]:
        """Close what may be closed, and return what happened, PeriodsSeen last. Raises what the client does."""
        events: list[Event] = []
        failed, status = None, None
        try:
            self._close(client, events)
        except AdledgerError as error:
            failed = _failure(error)
        try:
            status = periods_status(client, LedgerView.to_look(client, self.tables))
        except AdledgerError as error:
            failed = failed or _failure(error)
        return [*events, *self.changed(failed, _held(status)), _seen(status, failed=failed is not None)]

    def changed(self, failed: ClosingFailed | None, held: PeriodHeld | None) -> list[Event]:
        """Return what was not so in the round before."""
        now, before = (failed, held), (self._failed, self._held)
        self._failed, self._held = now
        return [event for event, known in zip(now, before, strict=True) if event and event != known]

    def _close(self, client: QueryClient, events: list[Event]) -> None:
        due = next_period(client, LedgerView.to_look(client, self.tables))
        if due is None or not due.plan.may_close:
            return
        view = LedgerView.to_close(client, self.tables, __version__, self.sleep)
        for done in close_all(client, view, __version__, None):
            if isinstance(done, NextPeriod):
                return
            events.append(
                PeriodClosed(iso(done.plan.period.start), done.publishers.rows, done.adjustments.rows)
            )
            if self.ended.is_set() or len(events) == PERIODS_MAX:
                return


async def run_closings(
    settings: Settings,
    address: ServerAddress,
    leads: Callable[[], bool],
    emit: Emit,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Close periods every minute, if it is enabled, until cancelled. `leads`: whether this worker owns lane 0."""
    rounds = ClosingRounds(TableNames(settings.database, settings.cluster))

    def one() -> list[Event]:
        try:
            with connected(address) as client:
                client.settings |= consistent(settings.cluster)
                return rounds.round(client)
        except AdledgerError as error:  # no connection, or what the server refused
            return [*rounds.changed(_failure(error), None), PeriodsSeen(failed=True)]
        except Exception as error:  # noqa: BLE001 - nobody waits for this task: a bug must not end it unseen
            bug = ClosingFailed(f"a bug: {error!r}", "report it, with this message")
            return [*rounds.changed(bug, None), PeriodsSeen(failed=True)]

    try:
        while settings.period_closing_enabled:
            await sleep(EVERY_SECONDS)
            for event in await asyncio.to_thread(one) if leads() else (PeriodsSeen(),):
                emit(event)
    finally:
        rounds.ended.set()


def _failure(error: AdledgerError) -> ClosingFailed:
    return ClosingFailed(error.message, error.remedy or "")


def _held(status: PeriodsStatus | None) -> PeriodHeld | None:
    if status is None or status.due is None or not status.periods_waiting or not status.held:
        return None
    return PeriodHeld(iso(status.due.plan.period.start), tuple(waiting.lane for waiting in status.held))


def _seen(status: PeriodsStatus | None, *, failed: bool) -> PeriodsSeen:
    if status is None:
        return PeriodsSeen(failed=failed)
    held = status.held if status.periods_waiting else ()
    return PeriodsSeen(
        (status.closed_end or 0) // 1000,
        status.periods_waiting,
        {waiting.lane: (waiting.written_at or 0) // 1000 for waiting in held},
        {currency_text(currency): nanos for currency, nanos in status.waiting.items()},
        failed,
    )
