"""Lanes are assigned whole, evenly, and with as few moves as possible, whatever happened to the group before."""

from collections.abc import Mapping
from itertools import combinations

import pytest
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import LogError
from adledger.pipeline.log.kafka.assignor import NAME, Claim, LaneAssignor, assign_lanes, lanes_of

TOPICS = ("ad.clicks", "ad.impressions")
MEMBERS = st.sampled_from("abcdefg")
Assigned = Mapping[str, tuple[int, ...]]


class Cluster:
    """Topics as aiokafka's cluster metadata reports them."""

    def __init__(self, **partitions: int) -> None:
        self._partitions = {topic.replace("_", "."): count for topic, count in partitions.items()}

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self._partitions[topic])) if topic in self._partitions else None


def fewest_moves(owned: Mapping[str, set[int]], partitions: int) -> int:
    """Return the least number of held lanes that change hands under any balanced assignment: every choice of shares is
    tried.
    """
    fewest, rest = divmod(partitions, len(owned))
    kept_most = max(
        sum(min(len(lanes), fewest + (member in larger)) for member, lanes in owned.items())
        for larger in combinations(owned, rest)
    )
    return sum(map(len, owned.values())) - kept_most


def check(assigned: Assigned, partitions: int) -> None:
    assert sorted(lane for lanes in assigned.values() for lane in lanes) == list(range(partitions))
    sizes = [len(lanes) for lanes in assigned.values()]
    assert max(sizes) - min(sizes) <= 1


def holders(members: Mapping[str, Claim], partitions: int) -> dict[str, set[int]]:
    """Return member -> its lanes: the newest claim wins, among equals the first by instance id, else member id."""
    owned: dict[str, set[int]] = {member: set() for member in members}
    for lane in range(partitions):
        claimants = [m for m, claim in members.items() if lane in claim.lanes]
        if claimants:
            owned[min(claimants, key=lambda m: (-members[m].round, members[m].instance or m, m))].add(lane)
    return owned


def moves(owned: Mapping[str, set[int]], assigned: Assigned) -> int:
    return sum(len(lanes - set(assigned[member])) for member, lanes in owned.items())


claims = st.builds(
    Claim,
    round=st.integers(0, 4),
    lanes=st.lists(st.integers(0, 40), max_size=20, unique=True).map(tuple),
    instance=st.sampled_from(["", "one", "two"]),
)


@given(st.dictionaries(MEMBERS, claims, min_size=1), st.integers(1, 33))
def test_all_lanes_are_assigned_once_and_evenly_whatever_is_claimed(members, partitions):
    """The assignment is complete, disjoint and balanced to within one, and does not depend on the order of members."""
    assigned = assign_lanes(members, partitions)
    check(assigned, partitions)
    assert assigned.keys() == members.keys()
    assert assign_lanes(dict(reversed(members.items())), partitions) == assigned


@given(st.dictionaries(MEMBERS, claims, min_size=1), st.integers(1, 33))
def test_of_claims_that_conflict_the_newest_counts_and_moves_are_the_fewest(members, partitions):
    """A lane belongs to the newest claim, and as few lanes leave their holder as balance allows."""
    owned = holders(members, partitions)
    assert moves(owned, assign_lanes(members, partitions)) == fewest_moves(owned, partitions)


@given(
    st.lists(st.tuples(st.sets(MEMBERS, min_size=1), st.sets(MEMBERS)), min_size=1, max_size=12),
    st.integers(1, 20),
    st.booleans(),
)
def test_through_joins_leaves_deaths_and_returns_the_fewest_lanes_move(history, partitions, static):
    """Each round of a group moves the fewest lanes, over the wire format: members come, go, come back and forget.

    A history is, for each round, which members are there and which have restarted. A model keeps what each was assigned.
    """
    cluster = Cluster(ad_clicks=partitions, ad_impressions=partitions)
    group: dict[str, LaneAssignor] = {}
    model: dict[str, Claim] = {}
    for present, forgetful in history:
        for member in present:
            if member not in group or member in forgetful:
                instance = f"instance-{member}" if static else ""
                group[member], model[member] = LaneAssignor(instance), Claim(instance=instance)
        number = 1 + max(model[member].round for member in present)
        owned = holders({member: model[member] for member in present}, partitions)
        assigned = play_round({member: group[member] for member in sorted(present)}, cluster)
        check(assigned, partitions)
        assert moves(owned, assigned) == fewest_moves(owned, partitions)
        for member, lanes in assigned.items():
            model[member] = Claim(number, lanes, model[member].instance)
            assert group[member].claim == model[member]


def play_round(group: Mapping[str, LaneAssignor], cluster: Cluster) -> Assigned:
    """Run one rebalance as aiokafka does, every message encoded and decoded; the first member leads."""
    joined = {
        member: ConsumerProtocolMemberMetadata.decode(assignor.metadata(TOPICS).encode())
        for member, assignor in group.items()
    }
    leader = next(iter(group.values()))
    assigned_lanes = {}
    for member, message in leader.assign(cluster, joined).items():
        assignment = ConsumerProtocolMemberAssignment.decode(message.encode())
        of_topics = {topic: tuple(partitions) for topic, partitions in assignment.assignment}
        assert len(set(of_topics.values())) <= 1, "partition p of every topic goes to one member"
        assert set(of_topics) in (set(), set(TOPICS))
        group[member].on_assignment(assignment)
        assigned_lanes[member] = next(iter(of_topics.values()), ())
    return assigned_lanes


@given(st.lists(MEMBERS, min_size=1, unique=True), st.integers(1, 20), st.data())
def test_static_members_that_all_forgot_are_given_the_same_lanes_again(instances, partitions, data):
    """The first assignment of static members depends on their instance ids, not on their current member ids."""

    def started(order: list[str]) -> dict[str, tuple[int, ...]]:
        claims = {f"member-{number}": Claim(instance=instance) for number, instance in enumerate(order)}
        return {claims[m].instance: lanes for m, lanes in assign_lanes(claims, partitions).items()}

    assert started(instances) == started(data.draw(st.permutations(instances)))


def test_an_unreadable_claim_claims_nothing():
    """User data of another program or version costs moves, not the group."""
    cluster = Cluster(ad_clicks=4, ad_impressions=4)
    group = {f"{i}": ConsumerProtocolMemberMetadata(0, list(TOPICS), data) for i, data in enumerate(
        [b"", None, b"\x00\xff", b"[]", b'{"round": 1}', b'{"round": 1, "lanes": [null], "instance": ""}']
    )}  # fmt: skip
    assigned = LaneAssignor().assign(cluster, group)
    check({m: tuple(a.assignment[0][1]) if a.assignment else () for m, a in assigned.items()}, 4)


@pytest.mark.parametrize(
    ("partitions", "words"),
    [
        ({"ad.clicks": 8, "ad.impressions": 16}, "ad.clicks has 8, ad.impressions has 16"),
        ({"ad.clicks": 8, "ad.impressions": 0}, "ad.clicks has 8, ad.impressions has 0"),
    ],
)
def test_topics_of_different_widths_are_refused(partitions, words):
    """The message names each topic with its partitions, and is reported before aiokafka wraps the error."""
    with pytest.raises(LogError, match=words):
        lanes_of(partitions)
    refusals: list[LogError] = []
    assignor = LaneAssignor(refused=refusals.append)
    cluster = Cluster(**{topic.replace(".", "_"): count for topic, count in partitions.items() if count})
    with pytest.raises(LogError, match=words):
        assignor.assign(cluster, {"a": assignor.metadata(TOPICS)})
    assert [words in error.message for error in refusals] == [True]


def test_members_with_different_topics_are_refused():
    """A lane is partition p of all topics, so a member that reads one topic can't own any."""
    assignor = LaneAssignor()
    with pytest.raises(LogError, match=r"b: ad\.clicks; a: ad\.clicks, ad\.impressions"):
        assignor.assign(
            Cluster(ad_clicks=2, ad_impressions=2),
            {"a": assignor.metadata(TOPICS), "b": assignor.metadata(["ad.clicks"])},
        )


def test_the_protocol_has_a_name_of_its_own():
    """So the broker lets no consumer with another assignor into the group."""
    assert LaneAssignor().name == NAME == "adledger-lanes"
