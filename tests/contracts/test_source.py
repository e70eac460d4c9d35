"""Every log keeps the laws of `source_suite`; a `files:` log has a few of its own."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.files import FilesLogWriter, FilesSource, Manifest
from adledger.pipeline.log.record_block import Record, RecordBlock
from tests.contracts.source_suite import PARTITIONS, Listener, SourceLaws, joined, some_records


class FilesLog:
    """A log in a folder, written as any writer does."""

    keeps_record_times = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        FilesLogWriter.create(folder, Manifest.new(PARTITIONS)).close()

    async def append(self, topic: int, partition: int, records: Sequence[Record]) -> None:
        with FilesLogWriter(self.folder) as writer:
            writer.append(topic, partition, RecordBlock.of(records))

    def member(self) -> FilesSource:
        return FilesSource(self.folder, "readers")


@pytest.fixture
def log(tmp_path):
    return FilesLog(tmp_path / "log")


class TestFilesSource(SourceLaws):
    """A folder keeps the laws."""

    async def test_one_consumer_at_a_time(self, log):
        """A second member of the group is refused, with the owner's name, while the first is in, and accepted after it."""
        first, second = log.member(), log.member()
        await joined(first)
        with pytest.raises(LogError, match=f"for group readers, is in use by process {os.getpid()}"):
            await second.join(Listener())
        await first.leave()
        await joined(second)
        await second.leave()

    async def test_groups_are_separate(self, log):
        """Two groups read the same log side by side."""
        first, second = log.member(), FilesSource(log.folder, "others")
        await joined(first)
        await joined(second)
        await first.leave()
        await second.leave()

    async def test_reading_needs_no_membership(self, log):
        """Bounds, records and a group's offsets can be read without joining it."""
        await log.append(0, 1, some_records(4))
        reader = log.member()
        assert (await reader.bounds(1))[0].end == 4
        assert len((await reader.fetch(1, {0: 0}, 1_000, 0))[0].batches) == 1
        assert await reader.committed(1) == {}
        assert not (log.folder / "groups").exists(), "and leaves nothing behind"

    async def test_member_ids_may_be_passed_in(self, log):
        """For reproducible runs member ids are passed in."""
        ids = iter(["a", "b"])
        source = FilesSource(log.folder, "readers", member_ids=lambda: next(ids))
        listener = await joined(source)
        assert listener.assigned[0].member_id == "a"
        await source.rejoin()
        await source.leave()
        assert next(ids, None) is None

    async def test_joining_twice_is_refused(self, log):
        """A member joins once."""
        source = log.member()
        await joined(source)
        with pytest.raises(LogError, match="joined already"):
            await source.join(Listener())
        await source.leave()

    async def test_leaving_without_joining_does_nothing(self, log):
        """A stop before the start is no error; a rejoin without a join is."""
        source = log.member()
        await source.leave()
        with pytest.raises(LogError):
            await source.rejoin()
