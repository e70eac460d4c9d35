"""The interface of a log. `files:` and Kafka implement it, and both pass one contract suite.

A *lane* is partition number p of all event topics. A worker joins a group, which assigns lanes to it. An `Assignment`
carries the generation and member id of that moment, and every commit states them, so that a member whose lanes were
revoked can no longer commit for them.

The log hands out *encoded record batches* (Kafka's v2 format, decompressed, CRC checked), never objects per
record; `adledger.pipeline.kernels.walk` turns them into `RecordRefs`.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from adledger.pipeline.records.encoded import Fetched
from adledger.schemas.wire import EventType

BOTH_KINDS = 0


def topic_kinds(topics: int) -> tuple[int, ...]:
    """Return which events each of one or two topics carries: 1 impressions, 2 clicks, 0 both."""
    return (BOTH_KINDS,) if topics == 1 else (int(EventType.IMPRESSION), int(EventType.CLICK))


@dataclass(frozen=True, slots=True)
class Topology:
    """The event topics of a log: names in topic-index order (impressions first), their ids, and the number of partitions.

    `kinds[i]` is 1 where topic i carries impressions, 2 for clicks, 0 for both (one combined topic).
    `topic_ids[i]` changes when a topic is deleted and recreated; it is part of the epoch.
    """

    topics: tuple[str, ...]
    kinds: tuple[int, ...]
    topic_ids: tuple[str, ...]
    partitions: int

    @property
    def epoch(self) -> str:
        """Identity of the log in the ledger: topic ids and partition count."""
        return ",".join(self.topic_ids) + f"/{self.partitions}"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One lane, assigned to one member in one generation."""

    lane: int
    generation: int
    member_id: str

    @property
    def name(self) -> str:
        """A short name that no other member and no other generation has."""
        return hashlib.blake2b(f"{self.member_id} {self.generation}".encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed position and the text committed with it ("" for none)."""

    offset: int
    metadata: str


@dataclass(frozen=True, slots=True)
class OffsetBounds:
    """The first offset that the log still has, and the one after its last (the end)."""

    first: int
    end: int


class GroupListener(Protocol):
    """Receives a worker's lanes. Neither method raises."""

    async def lanes_assigned(self, assignments: Collection[Assignment]) -> None:
        """Take over lanes. Called after every rebalance, with the lanes that are new or have a new generation.

        `assignments` is empty where the group has more members than lanes.
        """

    async def lanes_revoked(self, lanes: Collection[int]) -> None:
        """Stop these lanes: finish or abandon their batches. No commit is accepted after this returns."""


class Group(Protocol):
    """Membership: who owns which lane."""

    async def join(self, listener: GroupListener) -> Topology:
        """Join. The listener receives assignments after this has returned.

        Raises LogError (no broker, topics unfit, second owner).
        """

    async def leave(self) -> None:
        """Leave: lanes are revoked (the listener is called), and others may take them."""

    async def rejoin(self) -> None:
        """Revoke all lanes, and join with a new member id: needed after a commit whose outcome is unknown."""


class Offsets(Protocol):
    """Committed positions of a lane, one for each topic, each with metadata."""

    async def committed(self, lane: int) -> Mapping[int, Committed]:
        """Return topic index -> committed position; topics without a commit are left out. Raises LogError."""

    async def commit(self, assignment: Assignment, positions: Mapping[int, Committed]) -> None:
        """Commit in the assignment's name. Returns only when the commit was accepted for every topic's partition.

        Raises CommitFenced when generation or member id are not current, CommitRefused when it is certain for another
        reason that nothing was committed, CommitUnknown when there was no answer or only some partitions were accepted.
        Never sends a commit a second time.
        """


class Reader(Protocol):
    """Reading a lane's records."""

    async def bounds(self, lane: int) -> Mapping[int, OffsetBounds]:
        """Return topic index -> first and end offset. Raises LogError."""

    async def fetch(
        self, lane: int, positions: Mapping[int, int], bytes_max: int, wait_ms_max: int
    ) -> Sequence[Fetched]:
        """Fetch from each topic at its position; one `Fetched` for each topic in `positions`.

        Waits at most `wait_ms_max` when there is nothing. Returns at most `bytes_max` of each topic, but at least one record
        batch where there is one, however large. A paused lane does not fetch: that is the backpressure.
        Raises OffsetOutOfRange, LogError; LogRewritten where the log detects that the records before a position are no
        longer those that this lane has read since `resume`.
        """

    def resume(self, lane: int, positions: Mapping[int, int], leader_epochs: Mapping[int, int]) -> None:
        """Forget what was read of a lane, except the leader epoch before each position (by topic, where it is known)."""

    def leader_epochs(self, lane: int, positions: Mapping[int, int]) -> Mapping[int, int]:
        """Return topic -> leader epoch of the record batch before its position, for the topics where it was read."""


class Source(Group, Offsets, Reader, Protocol):
    """A log as a worker uses it."""
