"""What the log costs a record: encoding, appending, fetching, walking, importing; and a commit.

Target: encode and append at least 2 million records a second, walk at most 0.05 us a record, wire import at least 150,000
lines a second.
"""

import asyncio
import time
from collections.abc import Callable

import pytest

from adledger.pipeline.importing import import_file
from adledger.pipeline.log.files import FilesLogWriter, FilesSource, Manifest
from adledger.pipeline.log.files.offsets import OffsetsJournal
from adledger.pipeline.log.record_block import RecordBlock, encode_batches
from adledger.pipeline.log.source import Assignment, Committed
from adledger.pipeline.stages.walk import walk
from tests.support.files_log import EVERYTHING_BYTES

RECORDS = 200_000
START = 1_767_225_600_000
FETCH_BYTES = 4 << 20

pytestmark = pytest.mark.benchmark

VALUE = (
    b'{"event_type":"impression","event_id":"%08d","event_time":%d,"publisher_id":1,"site_id":1,"campaign_id":1,'
    b'"creative_id":1,"advertiser_id":1,"user_id":"user-%05d","ip":"203.0.113.7","user_agent":"'
    + b"x" * 110
    + b'","page_url":"https://example.com/'
    + b"y" * 60
    + b'","price_micros":1000000,"currency":"EUR"}'
)


def values() -> list[bytes]:
    return [VALUE % (n, START + n, n % 90_000) for n in range(RECORDS)]


@pytest.fixture(scope="module")
def block():
    return RecordBlock.of((START + n, b"user-%05d" % (n % 90_000), value) for n, value in enumerate(values()))


@pytest.fixture
def log(tmp_path, block):
    with FilesLogWriter.create(tmp_path / "log", Manifest.new(1)) as writer:
        writer.append(0, 0, block)
    return tmp_path / "log"


def report(what: str, work: Callable[[], object], count: int = RECORDS, unit: str = "record") -> None:
    """Run the work a few times and print the best run's CPU and wall time a unit."""
    best = min(_timed(work) for _ in range(4))
    cpu, wall = (seconds / count * 1e6 for seconds in best)
    print(f"\n{what}: {cpu:.3f} us CPU, {wall:.3f} us wall a {unit} ({1 / cpu:.2f} million/CPU-s)")


def _timed(work: Callable[[], object]) -> tuple[float, float]:
    cpu, wall = time.process_time(), time.perf_counter()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


def test_encode(block):
    """Records to batches, checksums included."""
    report("encode", lambda: sum(len(batch.data) for batch in encode_batches(block, 0)))


def test_append(tmp_path, block):
    """Records to a file in the page cache."""
    with FilesLogWriter.create(tmp_path / "log", Manifest.new(1)) as writer:
        report("encode and append", lambda: writer.append(0, 0, block))


def test_walk(log):
    """Batches in memory to references."""
    fetched = asyncio.run(FilesSource(log, "bench").fetch(0, {0: 0}, EVERYTHING_BYTES, 0))
    report("walk", lambda: walk(fetched[0]))


def test_walk_small_batches(tmp_path, block):
    """The same in batches of the size that a busy producer sends (about 40 records)."""
    with FilesLogWriter.create(tmp_path / "log", Manifest.new(1)) as writer:
        small = RecordBlock.of((START, b"user", value) for value in values()[:40])
        for _ in range(RECORDS // 40):
            writer.append(0, 0, small)
    fetched = asyncio.run(FilesSource(tmp_path / "log", "bench").fetch(0, {0: 0}, EVERYTHING_BYTES, 0))
    report("walk, small batches", lambda: walk(fetched[0]))


def test_fetch_and_walk(log):
    """A file in the page cache to references, checksums checked."""

    async def everything() -> None:
        source, position = FilesSource(log, "bench"), 0
        while position < RECORDS:
            [fetched] = await source.fetch(0, {0: position}, FETCH_BYTES, 0)
            walk(fetched)
            position = fetched.next_offset

    report("fetch and walk", lambda: asyncio.run(everything()))


def test_commit(tmp_path):
    """A durable commit of two topics with intents."""
    journal = OffsetsJournal(tmp_path / "offsets.log", "m")
    positions = {topic: Committed(1, "x" * 600) for topic in (0, 1)}

    def commits() -> None:
        for _ in range(100):
            journal.commit(Assignment(0, 1, "m"), positions)

    report("commit", commits, 100, "commit")
    journal.close()


def test_import_wire(tmp_path):
    """Lines of JSON to a log of 16 partitions."""
    path = tmp_path / "events.ndjson"
    path.write_bytes(b"\n".join(values()))
    report(
        "import wire", lambda: import_file(path, "wire", tmp_path / "log", started_at_ms=START), unit="line"
    )
