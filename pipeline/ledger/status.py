"""The state of each lane: the ledger's end, its watermark, and how much of the log is still ahead."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from adledger.pipeline.ledger.queries import QueryClient, TableNames

LogEnds = Sequence[Sequence[int]]
"""`ends[topic][partition]`: the offset after the last."""


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One lane. `clock` is its watermark (ms) after its last batch; without a batch both are None.

    `positions` is topic index -> the next offset, by the ledger; `lag_records` how many offsets of the log lie
    beyond them, None if the log was not read.
    """

    lane: int
    batch_no: int | None
    clock: int | None
    positions: Mapping[int, int]
    lag_records: int | None

    @property
    def clock_text(self) -> str | None:
        """The watermark, ISO 8601, UTC."""
        if self.clock is None:
            return None
        return datetime.fromtimestamp(self.clock / 1000, UTC).isoformat(timespec="milliseconds")


def lane_statuses(client: QueryClient, tables: TableNames, log_ends: LogEnds | None) -> list[LaneStatus]:
    """Return every lane that the ledger or the log has, in order."""
    rows = client.execute(
        "SELECT lane, max(batch_no), toUnixTimestamp64Milli(max(clock_after)) "
        f"FROM {tables('ledger')} GROUP BY lane ORDER BY lane"
    )
    ends = {int(lane): (int(batch_no), int(clock)) for lane, batch_no, clock in rows}
    positions: dict[int, dict[int, int]] = {}
    for lane, topic, end in client.execute(
        f"SELECT lane, topic, max(end) FROM {tables('ledger')} "
        "ARRAY JOIN range_topic AS topic, range_end AS end GROUP BY lane, topic ORDER BY lane, topic"
    ):
        positions.setdefault(int(lane), {})[int(topic)] = int(end)
    partitions = range(len(log_ends[0])) if log_ends else range(0)
    statuses = []
    for lane in sorted({*ends, *partitions}):
        batch_no, clock = ends.get(lane, (None, None))
        held = positions.get(lane, {})
        behind = None if log_ends is None else lag(held, log_ends, lane)
        statuses.append(LaneStatus(lane, batch_no, clock, held, behind))
    return statuses


def lag(positions: Mapping[int, int], log_ends: LogEnds, lane: int) -> int:
    """Return how many offsets of a lane lie beyond its positions; a topic without one is read from 0."""
    ends = {topic: partitions[lane] for topic, partitions in enumerate(log_ends) if lane < len(partitions)}
    return sum(max(0, end - positions.get(topic, 0)) for topic, end in ends.items())
