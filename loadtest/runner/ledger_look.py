"""Looking at a run's ledger while it fills: which records became queryable, when. A thread of its own, which may hang."""

# ruff: noqa: S608 - names of tables are the run's own, numbers are formatted as integers

import threading
import time
from dataclasses import dataclass
from queue import SimpleQueue

from clickhouse_driver.errors import Error as DriverError

from adledger.loadtest.runner.outlet import now_ms
from adledger.pipeline.addresses import ServerAddress
from adledger.pipeline.errors import SinkError
from adledger.sinks.connection import NETWORK_ERRORS, Client, connect

LOOK_SECONDS = 0.1
"""Between two looks: freshness is too old by up to so much and the query's time, never too young."""
PARTS_SECONDS = 1.0
ANSWER_SECONDS_MAX = 10.0


@dataclass(frozen=True, slots=True)
class DoneBatch:
    """A batch whose ledger row was seen: its records by topic, in offset order, and when it was seen (ms)."""

    lane: int
    batch_no: int
    records: int
    by_topic: tuple[tuple[int, int], ...]
    seen_ms: int


class LedgerLook:
    """Fills `batches` with each batch once, lane by lane in order, from `start` to `stop`."""

    def __init__(self, address: ServerAddress, database: str, lanes: int) -> None:
        self.batches: SimpleQueue[DoneBatch] = SimpleQueue()
        self.parts: int | None = None
        self._address, self._database = address, database
        self._next = [0] * lanes
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="ledger-look", daemon=True)

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no more."""
        self._stopped.set()
        self._thread.join(ANSWER_SECONDS_MAX + 1)

    def _work(self) -> None:
        client = connect(self._address)
        client.timeout_seconds = ANSWER_SECONDS_MAX
        parts_at = 0.0
        while not self._stopped.wait(LOOK_SECONDS):
            try:
                self._look(client)
                if time.monotonic() >= parts_at:
                    parts_at = time.monotonic() + PARTS_SECONDS
                    self.parts = self._parts(client)
            except (
                SinkError,
                DriverError,
                *NETWORK_ERRORS,
            ):  # no tables yet, or harm on purpose: the next look tells
                client.disconnect()
        client.disconnect()

    def _look(self, client: Client) -> None:
        least = min(self._next)
        rows = client.execute(
            "SELECT lane, batch_no, records_received, range_topic, range_start, range_end "
            f"FROM {self._database}.ledger WHERE batch_no >= {least:d} ORDER BY lane, batch_no"
        )
        at = now_ms()
        for lane, batch_no, records, topics, starts, ends in rows:
            if batch_no < self._next[lane]:
                continue
            self._next[lane] = batch_no + 1
            by_topic = tuple((t, e - s) for t, s, e in zip(topics, starts, ends, strict=True))
            self.batches.put(DoneBatch(lane, batch_no, records, by_topic, at))

    def _parts(self, client: Client) -> int:
        return int(client.execute(
            f"SELECT count() FROM system.parts WHERE active AND database = '{self._database}'"
        )[0][0])  # fmt: skip
