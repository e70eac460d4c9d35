"""A member leaves its group through the current coordinator, however often that moves."""

from dataclasses import dataclass, field

from aiokafka import errors
from aiokafka.protocol.group import LeaveGroupResponse_v1

from adledger.pipeline.log.kafka.aiokafka_private import leave_group

NOT_COORDINATOR, UNKNOWN_MEMBER, NOT_AUTHORISED = 16, 25, 30
BRIEFLY = 0.3


@dataclass
class Cluster:
    """A client whose cluster answers look-ups with `nodes`, in turn, and LeaveGroup with its node's code."""

    nodes: list[int | Exception]
    codes: dict[int, int]
    asked: list[int] = field(default_factory=list)

    async def coordinator_lookup(self, _kind: int, _group: str) -> int:
        node = self.nodes.pop(0) if len(self.nodes) > 1 else self.nodes[0]
        if isinstance(node, Exception):
            raise node
        return node

    async def send(self, node: int, _request: object) -> LeaveGroupResponse_v1:
        self.asked.append(node)
        return LeaveGroupResponse_v1(throttle_time_ms=0, error_code=self.codes[node])

    async def force_metadata_update(self) -> None:
        pass


async def test_the_coordinator_is_looked_up_until_one_removes_the_member():
    """The answer of a former coordinator does not count, and an unreachable one is waited for."""
    cluster = Cluster([1, errors.GroupCoordinatorNotAvailableError(), 2], {1: NOT_COORDINATOR, 2: 0})
    assert await leave_group(cluster, "group", "member", 60)
    assert cluster.asked == [1, 2]


async def test_an_unknown_member_has_left():
    """A member that the group has forgotten has left."""
    assert await leave_group(Cluster([1], {1: UNKNOWN_MEMBER}), "group", "member", 60)


async def test_leaving_is_bounded_in_time():
    """Leaving never takes longer than its limit, and a refusal ends it at once."""
    assert not await leave_group(Cluster([1], {1: NOT_COORDINATOR}), "group", "member", BRIEFLY)
    assert not await leave_group(Cluster([1], {1: NOT_AUTHORISED}), "group", "member", 60)
