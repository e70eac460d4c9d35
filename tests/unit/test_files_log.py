"""A `files:` log on disk: durable records stay, torn ones go, and damage is never read as good data."""

import asyncio
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adledger.pipeline.errors import LogError, OffsetOutOfRange, UsageError
from adledger.pipeline.log.files import FilesLogWriter, FilesSource, Manifest, read_manifest
from adledger.pipeline.log.files.ends import ENDS
from adledger.pipeline.log.files.manifest import MANIFEST
from adledger.pipeline.log.files.segments import segment_bases, segment_name
from adledger.pipeline.log.record_block import Record, RecordBlock
from adledger.pipeline.stages.walk import walk
from tests.support.records import RECORDS, Stored, read_back, stored

SEGMENT_BYTES = 4_096

FILES = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
"""For properties that make a log of their own below tmp_path at each example."""


def records_of(count: int, first: int = 0) -> list[Record]:
    return [(1_000 + i, b"k%d" % i, b"value %d " % i * 9) for i in range(first, first + count)]


def make(folder: Path, *blocks: list[Record]) -> Path:
    """Make a new log of one partition and append the blocks to its first topic; return the partition's folder."""
    shutil.rmtree(folder, ignore_errors=True)
    with FilesLogWriter.create(folder, Manifest.new(1), segment_bytes_max=SEGMENT_BYTES) as writer:
        for block in blocks:
            writer.append(0, 0, RecordBlock.of(block))
    return folder / "ad.impressions-0"


def read(folder: Path, position: int = 0, bytes_max: int = 3_000) -> list[Stored]:
    """Return all records from a position on."""
    return asyncio.run(_read(FilesSource(folder, "test"), position, bytes_max))


async def _read(source: FilesSource, position: int, bytes_max: int) -> list[Stored]:
    found: list[Stored] = []
    while True:
        [fetched] = await source.fetch(0, {0: position}, bytes_max, 0)
        found += read_back(walk(fetched))
        position = fetched.next_offset
        if fetched.drained:
            return found


def last_segment(partition: Path) -> Path:
    return partition / segment_name(segment_bases(partition)[-1])


# writing


@FILES
@given(blocks=st.lists(RECORDS, min_size=1, max_size=8), bytes_max=st.integers(1, 5_000), data=st.data())
def test_appended_records_are_read_back(tmp_path, blocks, bytes_max, data):
    """Blocks, over any number of segments, read back from any offset, in fetches of any size."""
    make(tmp_path / "log", *blocks)
    expected = stored([record for block in blocks for record in block])
    position = data.draw(st.integers(0, len(expected)))
    assert read(tmp_path / "log", position, bytes_max) == expected[position:]


def test_segments_are_kafkas(tmp_path):
    """A segment begins when the one before is full, and is named after its first offset, in 20 digits."""
    partition = make(tmp_path / "log", *[records_of(10, n) for n in range(0, 100, 10)])
    bases = segment_bases(partition)
    assert len(bases) > 2
    assert bases == sorted(bases)
    assert bases[0] == 0
    assert (partition / f"{bases[1]:020d}.log").stat().st_size <= SEGMENT_BYTES
    assert read(tmp_path / "log", bases[1] - 1)[0][0] == bases[1] - 1


def test_unflushed_records_are_invisible(tmp_path):
    """Readers see a log as of the last flush, all partitions at once."""
    log = tmp_path / "log"
    with FilesLogWriter.create(log, Manifest.new(2)) as writer:
        writer.append(0, 0, RecordBlock.of(records_of(3)))
        assert read(log) == []
        writer.flush()
        assert len(read(log)) == 3
        writer.append(0, 0, RecordBlock.of(records_of(2, 3)))
        assert len(read(log)) == 3
    assert len(read(log)) == 5


def test_a_reader_follows_a_writer(tmp_path):
    """A reader at the end, over rolled segments, sees each flush once."""
    log = tmp_path / "log"

    async def follow() -> None:
        with FilesLogWriter.create(log, Manifest.new(1), segment_bytes_max=SEGMENT_BYTES) as writer:
            source, found = FilesSource(log, "test"), []
            for n in range(0, 200, 20):
                writer.append(0, 0, RecordBlock.of(records_of(20, n)))
                writer.flush()
                found += await _read(source, len(found), 10_000)
                assert found == stored(records_of(n + 20))

    asyncio.run(follow())


def test_log_times_continue(tmp_path):
    """A writer knows the largest log time of a lane over all its topics, earlier writers' included."""
    log = tmp_path / "log"
    with FilesLogWriter.create(log, Manifest.new(2)) as writer:
        assert writer.log_time_max(0) == -1
        writer.append(0, 0, RecordBlock.of([(50, None, b""), (40, None, b"")]))
        writer.append(1, 0, RecordBlock.of([(45, None, b"")]))
    with FilesLogWriter(log) as writer:
        assert (writer.log_time_max(0), writer.log_time_max(1)) == (50, -1)
        writer.append(1, 0, RecordBlock.of([(60, None, b"")]))
        assert writer.log_time_max(0) == 60


def test_one_writer_at_a_time(tmp_path):
    """A second writer is refused, with the owner's name, while the first is open, and accepted after it."""
    log = tmp_path / "log"
    with (
        FilesLogWriter.create(log, Manifest.new(1)),
        pytest.raises(LogError, match=f"for writing, is in use by process {os.getpid()}"),
    ):
        FilesLogWriter(log)
    FilesLogWriter(log).close()


def test_a_closed_writer_writes_nothing(tmp_path):
    """After close, append and flush are refused."""
    with FilesLogWriter.create(tmp_path / "log", Manifest.new(1)) as writer:
        pass
    with pytest.raises(LogError):
        writer.append(0, 0, RecordBlock.of(records_of(1)))
    with pytest.raises(LogError):
        writer.flush()


# torn ends


@FILES
@given(data=st.data())
def test_a_torn_end_is_truncated(tmp_path, caplog, data):
    """Wherever a write was cut off, flushed records and whole batches stay, and the torn one is removed with a warning."""
    log, durable, torn = (
        tmp_path / "log",
        records_of(30),
        [records_of(5, 30), records_of(5, 35), records_of(5, 40)],
    )
    partition = make(log, durable)
    ends = (log / ENDS).read_bytes()
    sizes = [last_segment(partition).stat().st_size]
    for block in torn:
        with FilesLogWriter(log) as writer:
            writer.append(0, 0, RecordBlock.of(block))
        sizes.append(last_segment(partition).stat().st_size)
    (log / ENDS).write_bytes(ends)  # as if only the first block had been flushed
    cut = data.draw(st.integers(sizes[0], sizes[-1]))
    os.truncate(last_segment(partition), cut)
    assert read(log) == stored(durable), "a reader does not see above the durable end"
    caplog.clear()
    with caplog.at_level(logging.WARNING, "adledger.log"), FilesLogWriter(log) as writer:
        assert writer.append(0, 0, RecordBlock.of(records_of(3, 90))) == 30 + 5 * sum(
            s <= cut for s in sizes[1:]
        )
    assert bool(caplog.records) == (cut not in sizes)
    kept = [record for block, size in zip(torn, sizes[1:], strict=True) if size <= cut for record in block]
    assert read(log) == stored(durable + kept + records_of(3, 90))


@FILES
@given(at=st.floats(0, 1), bit=st.integers(0, 7))
def test_a_bad_checksum_above_the_durable_end_is_torn(tmp_path, at, bit):
    """A batch that never fully reached the disk is removed with everything after it; what precedes it stays."""
    log = tmp_path / "log"
    partition = make(log, records_of(3))
    ends, size = (log / ENDS).read_bytes(), last_segment(partition).stat().st_size
    with FilesLogWriter(log) as writer:
        writer.append(0, 0, RecordBlock.of(records_of(3, 3)))
        writer.append(0, 0, RecordBlock.of(records_of(3, 6)))
    (log / ENDS).write_bytes(ends)
    _flip(last_segment(partition), size + int(at * (last_segment(partition).stat().st_size - size - 1)), bit)
    FilesLogWriter(log).close()
    found = read(log)
    assert found == stored(records_of(9))[: len(found)]
    assert len(found) in {3, 6, 9}, "9 where the bit says nothing (the leader's epoch)"


def test_segments_after_a_torn_batch_are_removed(tmp_path, caplog):
    """Segments after a torn batch no longer join the log, and are removed."""
    log = tmp_path / "log"
    partition = make(log)
    ends = (log / ENDS).read_bytes()
    with FilesLogWriter(log, segment_bytes_max=SEGMENT_BYTES) as writer:
        for n in range(0, 100, 10):
            writer.append(0, 0, RecordBlock.of(records_of(10, n)))
    (log / ENDS).write_bytes(ends)
    bases = segment_bases(partition)
    os.truncate(partition / segment_name(bases[1]), 10)
    with caplog.at_level(logging.WARNING, "adledger.log"), FilesLogWriter(log) as writer:
        assert writer.append(0, 0, RecordBlock.of(records_of(1))) == bases[1]
    assert segment_bases(partition) == bases[:2]
    assert len(caplog.records) == 1 + len(bases) - 2
    assert len(read(log)) == bases[1] + 1


def test_a_killed_writer_leaves_whole_batches(tmp_path):
    """After kill -9 in mid-append the next writer gets the lock, and every whole batch is there."""
    log = tmp_path / "log"
    script = (
        "import os, sys, pathlib; from adledger.pipeline.log.files import *; from adledger.pipeline.log.record_block import RecordBlock\n"
        "writer = FilesLogWriter.create(pathlib.Path(sys.argv[1]), Manifest.new(1))\n"
        "writer.append(0, 0, RecordBlock.of([(5, b'k', b'v')] * 10))\n"
        "os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(log)], check=False)
    assert ended.returncode == -9
    assert read(log) == []
    FilesLogWriter(log).close()
    assert read(log) == stored([(5, b"k", b"v")] * 10)


def test_a_full_disk_loses_nothing_that_was_flushed(tmp_path):
    """A write that the system refuses is an error with a remedy; the log opens again with all that was flushed."""
    log = tmp_path / "log"
    script = (
        "import resource, sys, pathlib; from adledger.pipeline.log.files import *; from adledger.pipeline.log.record_block import *\n"
        "from adledger.pipeline.errors import LogError\n"
        "writer = FilesLogWriter.create(pathlib.Path(sys.argv[1]), Manifest.new(1))\n"
        "writer.append(0, 0, RecordBlock.of([(5, b'k', b'v')] * 10))\n"
        "writer.flush()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "for wanted in ('File too large', 'a write to it failed'):\n"
        "    try: writer.append(0, 0, RecordBlock.of([(5, b'k', b'v' * 1_000)] * 100))\n"
        "    except LogError as error: assert wanted in error.message and error.remedy, error\n"
        "    else: raise AssertionError\n"
        "writer.close()"
    )
    subprocess.run([sys.executable, "-c", script, str(log)], check=True)
    assert read(log) == stored([(5, b"k", b"v")] * 10)
    with FilesLogWriter(log) as writer:
        assert writer.append(0, 0, RecordBlock.of(records_of(1))) == 10
    assert len(read(log)) == 11


def test_a_full_disk_keeps_a_worker_out_with_a_remedy(tmp_path):
    """A worker that can't even write its lock gets an error with a remedy, and holds no lock."""
    log = tmp_path / "log"
    make(log, records_of(1))
    script = (
        "import asyncio, resource, signal, sys, pathlib; from adledger.pipeline.log.files import FilesSource\n"
        "from adledger.pipeline.errors import LogError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "try: asyncio.run(FilesSource(pathlib.Path(sys.argv[1]), 'g').join(None))\n"
        "except LogError as error: assert 'be written' in error.message and error.remedy, error\n"
        "else: raise AssertionError"
    )
    subprocess.run([sys.executable, "-c", script, str(log)], check=True)
    assert FilesSource(log, "g").holder() is None


def test_an_attempt_to_make_a_log_may_be_repeated(tmp_path):
    """What a `create` left behind that was killed before the manifest does not block the next one."""
    log = tmp_path / "log"
    make(log)
    (log / MANIFEST).unlink()
    FilesLogWriter.create(log, Manifest.new(1)).close()
    assert read(log) == []


# damage


@FILES
@given(at=st.floats(0, 1), bit=st.integers(0, 7), bytes_max=st.sampled_from([1, 100_000]))
def test_damage_is_never_read_as_good(tmp_path, at, bit, bytes_max):
    """Whatever bit flips below the durable end, the result is a LogError or exactly the records that were written."""
    log, blocks = tmp_path / "log", [records_of(4, n) for n in range(0, 40, 4)]
    partition = make(log, *blocks)
    bases = segment_bases(partition)
    victim = partition / segment_name(bases[len(bases) // 2])
    _flip(victim, int(at * (victim.stat().st_size - 1)), bit)
    try:
        found = read(log, bytes_max=bytes_max)
    except LogError as error:
        assert partition.name in error.message  # noqa: PT017 - it need not raise
    else:
        assert found == stored(records_of(40))


@pytest.mark.parametrize("which", [0, 1, -1])
def test_a_missing_segment_is_an_error(tmp_path, which):
    """Reader and writer find a segment that is missing below the durable end; a missing first one means lost offsets."""
    log = tmp_path / "log"
    partition = make(log, *[records_of(10, n) for n in range(0, 100, 10)])
    (partition / segment_name(segment_bases(partition)[which])).unlink()
    with pytest.raises((LogError, OffsetOutOfRange), match=partition.name):
        read(log)
    if which == -1:
        with pytest.raises(LogError, match=partition.name):
            FilesLogWriter(log)


@pytest.mark.parametrize("which", [0, -1])
def test_a_shortened_segment_is_an_error(tmp_path, which):
    """The reader finds a segment that lost its end, even by whole batches, and the writer finds the last one."""
    log = tmp_path / "log"
    partition = make(log, *[records_of(2, n) for n in range(0, 100, 2)])
    victim = partition / segment_name(segment_bases(partition)[which])
    os.truncate(victim, 61 if which else victim.stat().st_size // 2)
    with pytest.raises(LogError, match=partition.name):
        read(log)
    if which == -1:
        with pytest.raises(LogError, match="were durable"):
            FilesLogWriter(log)


def test_a_segment_cut_between_batches_is_an_error(tmp_path):
    """Offsets that are missing between two segments are not skipped."""
    log = tmp_path / "log"
    partition = make(log, *[records_of(1, n) for n in range(100)])
    victim = partition / segment_name(0)
    batch = victim.stat().st_size - int.from_bytes(victim.read_bytes()[8:12], "big") - 12
    last_offset = segment_bases(partition)[1] - 1
    data = victim.read_bytes()
    os.truncate(victim, data.rindex(last_offset.to_bytes(8, "big"), batch - 100))
    with pytest.raises(LogError, match="it ends before offset"):
        read(log)


def test_a_log_created_again_is_another_log(tmp_path):
    """A reader whose open folder is replaced by another log raises an error."""
    log = tmp_path / "log"
    make(log, records_of(3))
    source = FilesSource(log, "test")
    make(log, records_of(3))
    with pytest.raises(LogError, match="recreated"):
        asyncio.run(source.bounds(0))


# what is not a log


def test_not_a_log(tmp_path):
    """For a missing folder or one without a manifest the error has its name and a remedy."""
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(LogError, match="is not a log") as caught:
            FilesSource(folder, "test")
        assert "adledger import" in caught.value.remedy
        with pytest.raises(LogError, match="is not a log"):
            FilesLogWriter(folder)


def test_a_log_is_not_made_among_other_files(tmp_path):
    """`create` takes a new or empty folder only, and leaves others unchanged."""
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UsageError, match="neither empty nor a log"):
        FilesLogWriter.create(tmp_path, Manifest.new(1))
    make(tmp_path / "log")
    with pytest.raises(UsageError, match="a log already"):
        FilesLogWriter.create(tmp_path / "log", Manifest.new(1))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"format": 1', b'"format": 2'),
        (b'"partitions"', b'"parts"'),
        (b"{", b"["),
        (b'"partitions": 1', b'"partitions": "many"'),
        (b'"partitions": 1', b'"partitions": 2000000000'),
        (b'"partitions": 1', b'"partitions": 0'),
        (b'"partitions": 1', b'"partitions": -1'),
        (b'"ad.clicks"', b'"../outside"'),
        (b'"ad.clicks"', b'"/etc"'),
        (b'"ad.clicks"', b'".."'),
        (b'"ad.clicks"', b'""'),
        (b'"ad.clicks"', b'"ad.impressions"'),
        (b'"kind": 2', b'"kind": 7'),
        (b'"log_id": "', b'"log_id": "a/b'),
        (b'"topic_id": "', b'"topic_id": " '),
    ],
)
def test_an_invalid_manifest_is_refused(tmp_path, old, new):
    """A later format, or an edited manifest, is refused with the file's name, and leads to no folder outside the log."""
    make(tmp_path / "log")
    path = tmp_path / "log" / MANIFEST
    before = path.read_bytes()
    path.write_bytes(before.replace(old, new))
    assert path.read_bytes() != before
    with pytest.raises(LogError, match=r"manifest.json can't be used"):
        read_manifest(tmp_path / "log")


@pytest.mark.parametrize("text", [b"", b"{}", b'{"log_id": 1}', b"not json"])
def test_invalid_ends_are_refused(tmp_path, text):
    """A damaged ends.json is an error, not an empty log."""
    make(tmp_path / "log", records_of(1))
    (tmp_path / "log" / ENDS).write_bytes(text)
    with pytest.raises(LogError, match=r"ends.json|recreated"):
        read(tmp_path / "log")


def test_manifests_keep_their_limits():
    """Impossible partitions and names are refused before anything is written."""
    for partitions in (0, 1_025):
        with pytest.raises(UsageError, match="partitions"):
            Manifest.new(partitions)
    for name in ("", "a/b", "..", "x" * 250):
        with pytest.raises(UsageError, match="name of a topic"):
            Manifest.new(1, ((name, 0),))
    with pytest.raises(UsageError, match="name of a group"):
        FilesSource(Path(), "../elsewhere")


def test_an_unwritable_folder_is_an_error(tmp_path):
    """A folder where nothing can be created gives an error with a remedy."""
    (tmp_path / "file").touch()
    with pytest.raises(LogError, match="can't be written") as caught:
        FilesLogWriter.create(tmp_path / "file" / "log", Manifest.new(1))
    assert caught.value.remedy


def _flip(path: Path, position: int, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 1 << bit
    path.write_bytes(data)
