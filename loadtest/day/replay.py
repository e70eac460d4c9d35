"""A worker over a sample's log, in its own process, with retention in log time; prints what it did as JSON.

`python -m adledger.loadtest.day.replay SETTINGS.json`. The worker is the one of `adledger run`. Retention, which
`adledger run` leaves to the operator of a `files:` log, runs here as on Kafka, every hour; but by the hours that the
lanes' watermarks pass, since a whole day is over in minutes.
"""

import asyncio
import json
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import uvloop

from adledger.pipeline.addresses import FilesAddress, ServerAddress
from adledger.pipeline.lanes.emit import Event, fan_out
from adledger.pipeline.lanes.events import BatchDone, InsertDone
from adledger.pipeline.lanes.server import ready_server
from adledger.pipeline.lanes.start import lines_to, make_sink, make_worker, ready_process
from adledger.pipeline.log.files.source import FilesSource
from adledger.pipeline.retention.job import run_once
from adledger.pipeline.settings import Settings
from adledger.sinks.sink import LedgerEntry

HOUR_MS, QUARTER_MS = 3_600_000, 900_000


@dataclass(slots=True)
class Replayed:
    """What a replay did. `cpu_seconds` leaves out start-up (imports, compiled kernels)."""

    records: int = 0
    cpu_seconds: float = 0.0
    start_cpu_seconds: float = 0.0
    seconds: float = 0.0
    caught_up: bool = False
    inserts: dict[str, int] = field(default_factory=dict)
    dedupe_entries: dict[int, int] = field(default_factory=dict)
    retention_runs: int = 0
    retention_rows: int = 0
    quarters_closed: int = 0


class Watch:
    """Follows the lanes' watermarks; sets `hour_passed` when the lowest one has passed an hour."""

    def __init__(self, lanes: int, hour_passed: asyncio.Event) -> None:
        self._lanes, self._hour_passed = lanes, hour_passed
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._clocks: dict[int, int] = {}
        self._hour = self._quarter = -1
        self.inserts: Counter[str] = Counter()
        self.entries: dict[int, int] = {}
        self.quarters_closed = 0

    def emit(self, event: Event) -> None:
        """Count an insert, or follow a lane's watermark."""
        match event:
            case InsertDone(table):
                with self._lock:
                    self.inserts[table] += 1
            case BatchDone(entry, dedupe_entries):
                self._batch_done(entry, dedupe_entries)

    def _batch_done(self, entry: LedgerEntry, dedupe_entries: int) -> None:
        with self._lock:
            self._clocks[entry.lane] = entry.clock_after
            self.entries[entry.lane] = dedupe_entries
            if len(self._clocks) < self._lanes:
                return
            clock = min(self._clocks.values())
            hour, quarter = clock // HOUR_MS, clock // QUARTER_MS
            if self._quarter >= 0 and quarter > self._quarter:
                self.quarters_closed += quarter - self._quarter
            self._quarter = quarter
            if hour > self._hour:
                self._hour = hour
                self._loop.call_soon_threadsafe(self._hour_passed.set)


async def replay(settings: Settings, source: FilesSource, address: ServerAddress, lanes: int) -> Replayed:
    """Run a worker until it has caught up, and retention whenever an hour of log time has passed. Raises AdledgerError."""
    done, hour_passed = Replayed(), asyncio.Event()
    watch, sink = Watch(lanes, hour_passed), make_sink(settings, address)
    worker = make_worker(
        settings, source, sink, until_caught_up=True, emit=fan_out(watch.emit, lines_to(_say))
    )
    keeping = asyncio.create_task(_retain(settings, address, source, lanes, hour_passed, done))
    cpu, begin = time.process_time(), time.monotonic()
    try:
        running = asyncio.create_task(worker.run())
        await asyncio.wait([running, keeping], return_when=asyncio.FIRST_COMPLETED)
        if not running.done():  # retention failed: raise its error
            worker.stop()
            await keeping
        done.caught_up = await running
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await sink.close()
    done.cpu_seconds, done.seconds = time.process_time() - cpu, time.monotonic() - begin
    done.start_cpu_seconds, done.records = cpu, worker.records
    done.inserts, done.dedupe_entries = dict(watch.inserts), watch.entries
    done.quarters_closed = watch.quarters_closed
    return done


async def _retain(
    settings: Settings,
    address: ServerAddress,
    source: FilesSource,
    lanes: int,
    due: asyncio.Event,
    done: Replayed,
) -> None:
    while True:
        await due.wait()
        due.clear()
        plan = await run_once(settings, address, source, lanes)
        done.retention_runs += 1
        done.retention_rows += sum(partition.rows for partition in plan.drops)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


def main(path: Path) -> None:
    """Replay, and write the JSON to stdout."""
    task = json.loads(path.read_text("utf-8"))
    settings = Settings(**task["settings"])
    assert isinstance(settings.source, FilesAddress), "a sample is a log in a directory"
    source = FilesSource(settings.source.directory, settings.group)
    with ready_server(settings, _say) as server, ready_process(settings):
        done = uvloop.run(replay(settings, source, server.address, task["lanes"]))
    sys.stdout.write(json.dumps(asdict(done)) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
