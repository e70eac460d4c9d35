"""Polls a run's ledger while it fills: which records became queryable, and when. In a thread, since a query may hang."""

import threading
import time
from dataclasses import dataclass
from queue import SimpleQueue

from adledger.loadtest.lab.tables_view import ANSWER_SECONDS_MAX, TablesView
from adledger.loadtest.runner.outlet import now_ms

POLL_SECONDS = 0.1
"""Between two polls: freshness is overstated by at most this and the query's time, never understated."""
PARTS_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class DoneBatch:
    """A batch whose ledger row was seen: its records by topic, in offset order, and when it was seen (ms)."""

    lane: int
    batch_no: int
    records: int
    by_topic: tuple[tuple[int, int], ...]
    seen_ms: int


class LedgerPoller:
    """Puts each batch into `batches` once, lane by lane in order, between `start` and `stop`."""

    def __init__(self, tables: TablesView, lanes: int) -> None:
        """Read from `tables`, which only this thread may use from now on."""
        self.batches: SimpleQueue[DoneBatch] = SimpleQueue()
        self.parts: int | None = None
        self._tables = tables
        self._next = [0] * lanes
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ledger-poller", daemon=True)

    def start(self) -> None:
        """Start polling."""
        self._thread.start()

    def stop(self) -> None:
        """Stop polling."""
        self._stopped.set()
        self._thread.join(ANSWER_SECONDS_MAX + 1)

    def _work(self) -> None:
        parts_at = 0.0
        while not self._stopped.wait(POLL_SECONDS):
            self._poll()
            if time.monotonic() >= parts_at and (parts := self._tables.parts()) is not None:
                parts_at = time.monotonic() + PARTS_SECONDS
                self.parts = parts
        self._tables.close()

    def _poll(self) -> None:
        rows = self._tables.ledger_from(min(self._next))
        at = now_ms()
        for lane, batch_no, records, topics, starts, ends in rows:
            if batch_no < self._next[lane]:
                continue
            self._next[lane] = batch_no + 1
            by_topic = tuple((t, e - s) for t, s, e in zip(topics, starts, ends, strict=True))
            self.batches.put(DoneBatch(lane, batch_no, records, by_topic, at))
