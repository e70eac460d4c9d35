"""The consumer group as it is now: its members, the lanes without an owner, its lag. Pure."""

from collections.abc import Iterator

from adledger.pipeline.findings import Finding
from adledger.pipeline.log.kafka_admin.group_facts import GroupFacts

STABLE, EMPTY, DEAD = "Stable", "Empty", "Dead"
CONSUMER = "consumer"


def findings(group: GroupFacts, ours: str, lanes: int, lag_records: int) -> Iterator[Finding]:
    """Yield what is wrong with a group whose assignor must be `ours`."""
    if group.protocol_type not in {"", CONSUMER} or (group.members and group.protocol not in {"", ours}):
        names = ", ".join(sorted({member.client_id for member in group.members}))
        yield Finding(
            f"another program uses the group {group.name} (protocol {group.protocol or group.protocol_type}; {names}): "
            "adledger's workers can't join it",
            "give adledger a group of its own: --group NAME",
        )
        return
    if group.state in {EMPTY, DEAD} and lag_records:
        yield Finding(
            f"no worker is in the group {group.name}, and {lag_records:,} records wait",
            "start workers: adledger run",
            advice=True,
        )
    if group.state == STABLE:
        owned = {lane for member in group.members for lane in member.lanes}
        if unowned := sorted(set(range(lanes)) - owned):
            yield Finding(
                f"the group {group.name} has {len(group.members)} members, and none of them owns the lanes "
                + ", ".join(map(str, unowned)),
                "restart a worker: the group then assigns its lanes again",
            )
