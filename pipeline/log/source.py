"""What a lane asks of a log. `files:` and Kafka implement it; one contract suite holds both.

A *lane* is partition number p of all event topics. A worker joins a group and is given lanes; what it was given
is an `Assignment`, which carries the generation and member id of that moment, and every commit is made in that
name, so that a member whose lanes were taken away can't commit for them any more.

The log hands out *encoded record batches* (Kafka's v2 format, decompressed, CRC checked), never objects per
record; `adledger.pipeline.kernels.walk` turns them into `RecordRefs`.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from adledger.pipeline.records.encoded import Fetched


@dataclass(frozen=True, slots=True)
class Topology:
    """The event topics of a log: names in topic-index order (impressions first), and their ids and width.

    `kinds[i]` is 1 where topic i carries impressions, 2 for clicks, 0 for both (one combined topic).
    `topic_ids[i]` changes when a topic is deleted and made again; it is part of the epoch.
    """

    topics: tuple[str, ...]
    kinds: tuple[int, ...]
    topic_ids: tuple[str, ...]
    partitions: int

    @property
    def epoch(self) -> str:
        """Identity of the log as the ledger knows it: topic ids and partition count."""
        return ",".join(self.topic_ids) + f"/{self.partitions}"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One lane, given to one member in one generation."""

    lane: int
    generation: int
    member_id: str


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed position and the text committed with it ("" for none)."""

    offset: int
    metadata: str


@dataclass(frozen=True, slots=True)
class OffsetBounds:
    """First offset that the log still holds, and the one after its last (the end)."""

    first: int
    end: int


class GroupListener(Protocol):
    """What a worker is told of its lanes. Neither method raises."""

    async def lanes_assigned(self, assignments: Collection[Assignment]) -> None:
        """Lanes are now ours. Called after every rebalance with those that are new or have a new generation.

        With none where the group has more members than lanes.
        """

    async def lanes_revoked(self, lanes: Collection[int]) -> None:
        """Stop these lanes: finish or abandon their batches in time; no commit is accepted after this returns."""


class Group(Protocol):
    """Membership: who owns which lane."""

    async def join(self, listener: GroupListener) -> Topology:
        """Join; assignments arrive at the listener after this has returned.

        Raises LogError (no broker, topics unfit, second owner).
        """

    async def leave(self) -> None:
        """Leave: lanes are revoked (the listener is called) and free for others."""

    async def rejoin(self) -> None:
        """Leave and join with a new member id: after a commit whose outcome is unknown."""


class Offsets(Protocol):
    """Committed positions of a lane, one a topic, each with metadata."""

    async def committed(self, lane: int) -> Mapping[int, Committed]:
        """Topic index -> what is committed; topics without a commit are left out. Raises LogError."""

    async def commit(self, assignment: Assignment, positions: Mapping[int, Committed]) -> None:
        """Commit in the assignment's name. Returns only when every topic's partition was accepted.

        Raises CommitFenced when generation or member id are not current, CommitRefused when surely nothing was
        committed for another reason, CommitUnknown when there was no answer or some partitions were accepted and some
        not. Never sends a commit a second time.
        """


class Reader(Protocol):
    """Reading a lane's records."""

    async def bounds(self, lane: int) -> Mapping[int, OffsetBounds]:
        """Topic index -> first and end offset. Raises LogError."""

    async def fetch(
        self, lane: int, positions: Mapping[int, int], bytes_max: int, wait_ms_max: int
    ) -> Sequence[Fetched]:
        """Fetch from each topic at its position; one `Fetched` for each topic in `positions`.

        Waits at most `wait_ms_max` when nothing is there. At most `bytes_max` of each topic come, but at least one
        record batch where there is one, however large. Raises OffsetOutOfRange, LogError. Not called for a paused lane, so that not to fetch is
        the backpressure. Raises LogRewritten where the log knows that it holds others than the records that were read
        before a position, of this lane since `resume`.
        """

    def resume(self, lane: int, positions: Mapping[int, int], leader_epochs: Mapping[int, int]) -> None:
        """Forget what was read of a lane, but the leader epoch before each position (by topic, where it is known)."""

    def leader_epochs(self, lane: int, positions: Mapping[int, int]) -> Mapping[int, int]:
        """Return topic -> the leader epoch of the record batch before a position, as it was read; no others."""


class Source(Group, Offsets, Reader, Protocol):
    """A log as a worker uses it."""
