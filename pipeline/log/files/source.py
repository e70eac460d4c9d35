"""A `files:` folder as a worker's log: the group has one member, which owns every lane."""

import asyncio
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from adledger.pipeline.errors import LogError, OffsetOutOfRange, UnreadableBatch
from adledger.pipeline.log.files.durable import not_written
from adledger.pipeline.log.files.ends import Ends, EndsFile
from adledger.pipeline.log.files.lock import FileLock, held_by
from adledger.pipeline.log.files.manifest import check_name, partition_folder, read_manifest
from adledger.pipeline.log.files.offsets import OFFSETS, OffsetsJournal, fenced, read_state
from adledger.pipeline.log.files.partition import PartitionReader
from adledger.pipeline.log.source import Assignment, Committed, GroupListener, OffsetBounds, Topology
from adledger.pipeline.records.encoded import Fetched

POLL_SECONDS = 0.01
"""Interval at which a waiting fetch checks whether the log has grown."""


def new_member_id() -> str:
    """Return a member id that no other member has or had."""
    return f"files-{uuid.uuid4()}"


def lock_file(log: Path, group: str) -> Path:
    """Return the file with the process id of the group's current or last consumer."""
    return log / "groups" / group / "lock"


class FilesSource:
    """An `adledger.pipeline.log.source.Source` over a folder. One consumer per group at a time; several workers need Kafka.

    `bounds`, `committed` and `fetch` also work without joining, to look at a log and its groups.
    """

    def __init__(self, log: Path, group: str, *, member_ids: Callable[[], str] = new_member_id) -> None:
        """Open a log. Raises LogError when the folder is not a log, UsageError for an impossible group name."""
        check_name(group, "group")
        self._log = log
        self._group = group
        self._manifest = read_manifest(log)
        self._topology = self._manifest.topology
        self._member_ids = member_ids
        self._ends = EndsFile(log, self._manifest)
        self._readers: dict[tuple[int, int], PartitionReader] = {}
        self._lock: FileLock | None = None
        self._journal: OffsetsJournal | None = None
        self._listener: GroupListener | None = None
        self._assigning: asyncio.Task[None] | None = None

    @property
    def topology(self) -> Topology:
        """The log's topics and partitions."""
        return self._topology

    def holder(self) -> int | None:
        """Return the process that consumes for the group now, or None."""
        return held_by(lock_file(self._log, self._group))

    async def join(self, listener: GroupListener) -> Topology:
        """Become the group's one member; the listener receives every lane after this has returned.

        Raises LogError: another process (named) consumes for the group, or its offsets can't be read or written.
        """
        if self._listener is not None:
            raise LogError(f"this member of group {self._group} has joined already", remedy="Leave first.")
        lock_at = lock_file(self._log, self._group)
        folder = lock_at.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_written(folder, error) from error
        lock = FileLock.acquire(lock_at, f"the log {self._log}, for group {self._group},")
        member_id = self._member_ids()
        try:
            journal = await asyncio.to_thread(OffsetsJournal, folder / OFFSETS, member_id)
        except BaseException:
            lock.release()
            raise
        self._lock, self._journal, self._listener = lock, journal, listener
        lanes = [Assignment(p, journal.generation, member_id) for p in range(self._topology.partitions)]
        self._assigning = asyncio.create_task(_notify(listener, lanes))
        return self._topology

    async def leave(self) -> None:
        """Revoke every lane, then release the group. Does nothing without a join."""
        if self._listener is None or self._assigning is None:
            return
        listener, self._listener = self._listener, None
        try:
            await self._assigning
            await listener.lanes_revoked(range(self._topology.partitions))
        finally:
            self._give_up()

    async def rejoin(self) -> None:
        """Leave and join again: new generation, new member id, same listener."""
        listener = self._listener
        if listener is None:
            raise LogError(f"this member of group {self._group} has not joined", remedy="Join first.")
        await self.leave()
        await self.join(listener)

    async def committed(self, lane: int) -> Mapping[int, Committed]:
        """Return the group's committed positions of a lane. Raises LogError."""
        self._check_lane(lane)
        if self._journal is not None:
            return self._journal.committed(lane)
        state = await asyncio.to_thread(read_state, self._log / "groups" / self._group / OFFSETS)
        return state.lanes.get(lane, {})

    async def commit(self, assignment: Assignment, positions: Mapping[int, Committed]) -> None:
        """Commit all positions atomically and durably. Raises CommitFenced, CommitUnknown, LogError."""
        self._check_lane(assignment.lane)
        for topic in positions:
            self._check_topic(topic)
        if self._journal is None:
            raise fenced(assignment)
        await asyncio.to_thread(self._journal.commit, assignment, positions)

    async def bounds(self, lane: int) -> Mapping[int, OffsetBounds]:
        """Return the first offset of each of a lane's topics, and its durable end. Raises LogError."""
        self._check_lane(lane)
        ends = self._ends.refresh()
        return {
            topic: OffsetBounds(
                self._reader(topic, lane).first_offset(ends[topic][lane]), ends[topic][lane].offset
            )
            for topic in range(len(self._topology.topics))
        }

    async def fetch(
        self, lane: int, positions: Mapping[int, int], bytes_max: int, wait_ms_max: int
    ) -> Sequence[Fetched]:
        """Fetch as `Reader.fetch` says; `bytes_max` is for each topic. All ends are of the same moment."""
        self._check_lane(lane)
        for topic in positions:
            self._check_topic(topic)
        deadline = time.monotonic() + wait_ms_max / 1000
        while True:
            ends = self._ends.refresh()
            if any(position != ends[topic][lane].offset for topic, position in positions.items()):
                return await asyncio.to_thread(self._read, lane, positions, ends, bytes_max)
            left = deadline - time.monotonic()
            if left <= 0:
                return [Fetched(topic, position, position, position) for topic, position in positions.items()]
            await asyncio.sleep(min(POLL_SECONDS, left))

    def resume(self, lane: int, positions: Mapping[int, int], leader_epochs: Mapping[int, int]) -> None:
        """Do nothing: a log in a directory has no leaders."""

    def leader_epochs(self, lane: int, positions: Mapping[int, int]) -> Mapping[int, int]:  # noqa: ARG002
        """Return nothing, for the same reason."""
        return {}

    def _read(self, lane: int, positions: Mapping[int, int], ends: Ends, bytes_max: int) -> list[Fetched]:
        fetched = []
        for topic, position in positions.items():
            end, reader = ends[topic][lane], self._reader(topic, lane)
            try:
                next_offset, batches = reader.read(position, end, bytes_max)
            except OffsetOutOfRange:
                raise
            except LogError as error:
                after = min(reader.end_of_unreadable(position, end), end.offset)
                raise UnreadableBatch(
                    error.message, topic=topic, start=position, end=after, remedy=error.remedy
                ) from error
            fetched.append(Fetched(topic, position, next_offset, end.offset, batches))
        return fetched

    def _reader(self, topic: int, lane: int) -> PartitionReader:
        reader = self._readers.get((topic, lane))
        if reader is None:
            folder = partition_folder(self._log, self._topology.topics[topic], lane)
            reader = self._readers.setdefault((topic, lane), PartitionReader(folder))
        return reader

    def _check_lane(self, lane: int) -> None:
        if not 0 <= lane < self._topology.partitions:
            raise LogError(
                f"{self._log} has no lane {lane}, only 0 to {self._topology.partitions - 1}",
                remedy="The number of partitions is fixed when a log is created.",
            )

    def _check_topic(self, topic: int) -> None:
        if not 0 <= topic < len(self._topology.topics):
            raise LogError(
                f"{self._log} has no topic number {topic}", remedy="Choose a topic of the manifest."
            )

    def _give_up(self) -> None:
        if self._journal is not None:
            self._journal.close()
        if self._lock is not None:
            self._lock.release()
        for reader in self._readers.values():
            reader.close()
        self._journal = self._lock = self._assigning = None


async def _notify(listener: GroupListener, lanes: Collection[Assignment]) -> None:
    await listener.lanes_assigned(lanes)
