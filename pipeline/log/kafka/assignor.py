"""Lane assignment: partition p of every topic goes to one member, balanced, and as few lanes as possible move.

`assign_lanes` decides from the members' claims alone; `LaneAssignor` is the shell that implements aiokafka's assignor
interface and Kafka's `consumer` protocol (version 0), so that Kafka's own tools show the assignment.

**Claims.** With every join a member sends, as user data, the lanes of its last assignment, the *round* of that
assignment, and its `group.instance.id`. Where two members claim a lane, the newer round wins. A round is a number of our
own: each leader adds one to the newest that it sees. aiokafka gives an assignor neither the group's generation nor the
members' instance ids, and generations start over when the group was empty for long. Claims only decide which lanes move,
never who may commit: the broker's generation does (`commits.py`).

**Static members.** When one restarts within its session timeout, the broker returns its old lanes without a round.
Members are ordered by instance id (else member id), so that a group whose members all restart at once gets the same
assignment as before.

**Eager, not cooperative.** aiokafka revokes every lane of every member before a join and assigns them all after it, so
a rebalance pauses all lanes for its duration, including those that do not move. A lane that returns has a new generation
and so a new `Assignment`; nothing is accepted under the old one. Its worker has kept the lane's state in memory and
reuses it if the ledger's end has not changed, since only an owner writes there; otherwise the lane rebuilds its state
from ClickHouse (ADR 12).
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import orjson
from aiokafka.cluster import ClusterMetadata
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.kafka_admin.worker_info import NO_INFO, WorkerInfo

NAME = "adledger-lanes"
"""The protocol's name, on which the group's members agree. It changes when claims or assignments change their meaning."""

PROTOCOL_VERSION = 0
"""The version of Kafka's `consumer` embedded protocol that every tool reads."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A member's last assignment: `lanes`, assigned in `round` (0: never any). `instance` is "" if not static."""

    round: int = 0
    lanes: tuple[int, ...] = ()
    instance: str = ""


def assign_lanes(members: Mapping[str, Claim], partitions: int) -> dict[str, tuple[int, ...]]:
    """Return the lanes of each member: each of 0..partitions-1 exactly once, and member counts differ by at most one.

    As many lanes as balance allows stay with the member whose claim is the newest. The result does not depend on the
    mapping's order. `members` is not empty.
    """
    order = sorted(members, key=lambda member: (members[member].instance or member, member))
    claimed = _claimed(members, order, partitions)
    fewest, rest = divmod(partitions, len(order))
    # The larger shares go to the members with the most lanes, so that as few lanes as possible move.
    by_claims = sorted(order, key=lambda member: -len(claimed[member]))
    share = {member: fewest + (place < rest) for place, member in enumerate(by_claims)}
    staying = {member: claimed[member][: share[member]] for member in order}
    free = iter(sorted(set(range(partitions)).difference(*staying.values())))
    return {
        member: tuple(
            sorted([*staying[member], *(next(free) for _ in range(share[member] - len(staying[member])))])
        )
        for member in order
    }


def _claimed(members: Mapping[str, Claim], order: Iterable[str], partitions: int) -> dict[str, list[int]]:
    """Return each member's lanes, ascending: the newest of several claims wins, then the first member in `order`."""
    owner: dict[int, str] = {}
    for member in order:
        for lane in members[member].lanes:
            if lane not in owner or members[member].round > members[owner[lane]].round:
                owner[lane] = member
    claimed: dict[str, list[int]] = {member: [] for member in members}
    for lane in range(partitions):
        if lane in owner:
            claimed[owner[lane]].append(lane)
    return claimed


def lanes_of(partitions: Mapping[str, int]) -> int:
    """Return the number of lanes of topics (name -> partitions). Raises LogError where the counts differ."""
    counts = set(partitions.values())
    if len(counts) != 1 or 0 in counts:
        found = ", ".join(f"{topic} has {count}" for topic, count in sorted(partitions.items()))
        raise LogError(
            f"partition p of every topic is one lane, but the topics' partition counts differ: {found}",
            remedy="make them equal (`adledger topics check` says how), or name other topics in the settings; "
            "partitions can be added, but then keys move to other lanes",
        )
    return counts.pop()


class LaneAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka has no types
    """One member's assignor: `partition_assignment_strategy=[LaneAssignor(...)]`, one instance per consumer.

    aiokafka calls `metadata` for the claim before each join, `assign` for everyone's lanes where this member leads, and
    `on_assignment` with this member's lanes.
    """

    name = NAME

    def __init__(
        self,
        instance: str | None = None,
        *,
        refused: Callable[[LogError], None] | None = None,
        info: WorkerInfo = NO_INFO,
    ) -> None:
        """Create the assignor of a member with this `group.instance.id`.

        `refused` is called when lanes can't be assigned: aiokafka wraps the error that `assign` raises and holds it until
        the next poll.
        """
        self._claim = Claim(instance=instance or "")
        self._refused = refused
        self._info = info

    @property
    def claim(self) -> Claim:
        """The last assignment of this member."""
        return self._claim

    def metadata(self, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Return the subscription to send with a join: the topics, and the claim as user data."""
        user_data = _encode_claim(self._claim, self._info)
        return ConsumerProtocolMemberMetadata(PROTOCOL_VERSION, sorted(topics), user_data)

    def assign(
        self, cluster: ClusterMetadata, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Assign lanes to all members. Raises LogError: partition counts differ, or the members' topics do."""
        try:
            topics = _common_topics(members)
            lanes = lanes_of({topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics})
        except LogError as error:
            if self._refused is not None:
                self._refused(error)
            raise
        claims = {member: _decode_claim(metadata.user_data) for member, metadata in members.items()}
        assigned = assign_lanes(claims, lanes)
        number = 1 + max(claim.round for claim in claims.values())
        return {
            member: ConsumerProtocolMemberAssignment(
                PROTOCOL_VERSION,
                [(topic, list(lanes_of_member)) for topic in topics if lanes_of_member],
                orjson.dumps({"round": number}),
            )
            for member, lanes_of_member in assigned.items()
        }

    def on_assignment(self, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Remember the assignment, to claim it in the next round."""
        lanes = {tuple(sorted(partitions)) for _, partitions in assignment.assignment} or {()}
        assert len(lanes) == 1, (
            f"an assignment by {NAME} has the same partitions of every topic: {assignment}"
        )
        self._claim = Claim(orjson.loads(assignment.user_data)["round"], lanes.pop(), self._claim.instance)


def _common_topics(members: Mapping[str, ConsumerProtocolMemberMetadata]) -> list[str]:
    """Return the topics that every member subscribes to. Raises LogError where they differ."""
    subscriptions = {tuple(sorted(metadata.subscription)): member for member, metadata in members.items()}
    if len(subscriptions) != 1:
        found = "; ".join(
            f"{member}: {', '.join(topics)}" for topics, member in sorted(subscriptions.items())
        )
        raise LogError(
            f"workers of one group have different topics, so no lane is complete: {found}",
            remedy="set the same topics for all workers of the group, or use another group",
        )
    return list(next(iter(subscriptions)))


def _encode_claim(claim: Claim, info: WorkerInfo) -> bytes:
    return orjson.dumps({
        "round": claim.round, "lanes": claim.lanes, "instance": claim.instance,
        "worker": info.worker, "pages": info.pages,
    })  # fmt: skip


def _decode_claim(user_data: bytes | None) -> Claim:
    """Return a member's claim. An unreadable one claims nothing: claims only avoid moves."""
    try:
        decoded = orjson.loads(user_data or b"{}")
        return Claim(
            int(decoded["round"]), tuple(int(lane) for lane in decoded["lanes"]), str(decoded["instance"])
        )
    except (KeyError, TypeError, ValueError):
        return Claim()
