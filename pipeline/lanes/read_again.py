"""Reading the records of a batch in doubt again, as the log has them now."""

from dataclasses import replace

from adledger.pipeline.errors import LaneHalted, UnreadableBatch
from adledger.pipeline.halts import HaltReason, override_command
from adledger.pipeline.lanes.delivery import Delivery
from adledger.pipeline.lanes.events import RetryScheduled
from adledger.pipeline.lanes.faults import fault_policy
from adledger.pipeline.lanes.intent import Intent
from adledger.pipeline.lanes.ports import Ports
from adledger.pipeline.records.columns import RecordRefs
from adledger.pipeline.retry import Attempt
from adledger.pipeline.stages.merge import OrderedRecords, merge_all
from adledger.pipeline.stages.walk import walk

FETCH_WAIT_MS_MAX = 200


async def read_again(ports: Ports, delivery: Delivery, intent: Intent) -> OrderedRecords | None:
    """Return the records of a batch in doubt, or None: they can't be read, however often it is tried.

    Without memory for them the lane halts: that says nothing about the records. Raises LaneHalted, LaneStopped,
    UnreadableBatch, LogError.
    """

    def failed(error: UnreadableBatch, attempt: Attempt) -> None:
        ports.emit(
            RetryScheduled(
                intent.lane, error.message, attempt.number, attempt.attempts_max, batch_no=intent.batch_no
            )
        )

    policy = replace(fault_policy(ports.limits.retry), sleep=delivery.pause)
    try:
        return await policy.call(lambda: fetch_again(ports, intent), UnreadableBatch, failed)
    except UnreadableBatch as error:
        if error.no_memory:
            raise
        return None


async def fetch_again(ports: Ports, intent: Intent) -> OrderedRecords:
    """Return the records of an intent's ranges, in the lane's order; none for an override.

    Raises LaneHalted if the log ends before them, UnreadableBatch, LogError.
    """
    if intent.is_override:
        return OrderedRecords.none()
    parts: list[list[RecordRefs]] = [[] for _ in ports.topology.topics]
    positions = {r.topic: r.start for r in intent.ranges if r.start < r.end}
    ends = {r.topic: r.end for r in intent.ranges}
    while positions:
        fetched = await ports.source.fetch(
            intent.lane, positions, ports.limits.fetch_bytes_max, FETCH_WAIT_MS_MAX
        )
        for f in fetched:
            refs = walk(f)
            parts[f.topic].append(refs.take(refs.offset < ends[f.topic]))
            if f.drained and f.next_offset < ends[f.topic]:
                raise LaneHalted(
                    f"lane {intent.lane}: batch {intent.batch_no} goes up to offset {ends[f.topic]} of "
                    f"{ports.topology.topics[f.topic]}, the log ends at {f.end_offset}",
                    reason=HaltReason.BATCH_TRUNCATED,
                    remedy="the log was truncated: restore it; or give up the batch, and read on where the ledger ends: "
                    + override_command(HaltReason.BATCH_TRUNCATED, intent.lane),
                )
            positions[f.topic] = f.next_offset
        positions = {t: p for t, p in positions.items() if p < ends[t]}
    return merge_all([RecordRefs.concat(p) for p in parts], intent.clock_before)
