"""adledger's data path alone: the same worker, lanes and protocol, with a sink that keeps the rollups and nothing else.

`python -m adledger.loadtest.benchmarks.data_path SERVERS TOPIC EVENTS UNIQUE FOLDER`, like the contestants' scripts. It leaves out
encoding for ClickHouse and waiting for it; it counts the same.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import uvloop

from adledger.loadtest.benchmarks.traffic import settings_of
from adledger.pipeline.lanes.start import lines_to, make_worker, ready_process
from adledger.pipeline.log.kafka.source import KafkaSource
from adledger.schemas.classes import Class
from adledger.schemas.wire import EventType
from adledger.sinks.memory import MemorySink
from adledger.sinks.sink import Columns, Stamp

KEPT = ("rollup_minute", "ledger")


@dataclass(slots=True)
class RollupsOnly(MemorySink):
    """Keeps rollups and ledger; drops events, dead letters and dimension strings."""

    async def insert(self, table: str, columns: Columns, stamp: Stamp) -> None:
        """Keep the block, or drop it."""
        if table in KEPT:
            await MemorySink.insert(self, table, columns, stamp)

    async def insert_texts(self, table: str, hashes: Columns) -> None:
        """Drop them."""

    def write_minutes(self, path: Path) -> None:
        """Write publisher, minute, impressions, clicks and nanos of what is billable."""
        found: dict[tuple[int, int], list[int]] = {}
        names = ("publisher_id", "minute", "event_type_code", "records", "money_nanos")
        for _, block in self.tables["rollup_minute"]:
            fine = np.asarray(block["class_code"]) == Class.BILLABLE
            for publisher, minute, kind, records, nanos in zip(*(np.asarray(block[n])[fine].tolist() for n in names), strict=True):  # fmt: skip
                sums = found.setdefault((publisher, minute), [0, 0, 0])
                sums[kind == EventType.CLICK] += records
                sums[2] += nanos
        with path.open("w") as file:
            file.writelines(f"{p}\t{m}\t{i}\t{c}\t{n}\n" for (p, m), (i, c, n) in found.items())


def main(servers: str, topic: str, events: int, folder: Path) -> None:
    """Read the topic to its end, and write what was found and what it took."""
    settings = settings_of(servers, topic, group=f"contestant-data-path-{folder.name}")
    sink = RollupsOnly()

    async def run() -> None:
        source = KafkaSource.of(settings, _say)
        worker = make_worker(settings, source, sink, until_caught_up=True, emit=lines_to(_say))
        assert await worker.run(), "stopped before the topic's end"
        assert worker.records == events, "not what the topic holds"

    with ready_process(settings):
        begin = time.process_time(), time.monotonic()
        uvloop.run(run())
    cpu, wall = time.process_time() - begin[0], time.monotonic() - begin[1]
    sink.write_minutes(folder / "found.tsv")
    report = {"events": events, "mark_events": 0, "steady_cpu_seconds": cpu, "steady_seconds": wall}
    (folder / "report.json").write_text(json.dumps(report))


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[5]))
