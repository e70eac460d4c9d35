"""Which partitions may be dropped: pure, from the lanes' watermarks and what the tables hold.

A partition is a day of the *watermark*. It is dropped when the lane that is furthest behind has passed it by the
table's retention. So an import of years-old logs keeps its rows, and after an outage nothing is missing: while a lane
is halted, its watermark does not move, and neither does retention.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Partition:
    """One day of a table."""

    table: str
    day: date
    rows: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Keep:
    """How long tables keep their rows (table -> days), and how far back in log time (ms) lanes look."""

    days: Mapping[str, int]
    state_ms: int

    def milliseconds(self, table: str) -> int:
        """Return how far (ms) behind the watermark a partition must end; for `events`, at least what lanes rebuild from."""
        kept = self.days[table] * DAY_MS
        return max(kept, self.state_ms + DAY_MS) if table == "events" else kept


@dataclass(frozen=True, slots=True)
class RetentionPlan:
    """What to drop. `clock_min` (ms) is the watermark of `lane`, the furthest behind; `blocked`: why nothing is dropped."""

    clock_min: int | None
    lane: int | None
    drops: Sequence[Partition]
    blocked: str


def plan(
    clocks: Mapping[int, int], at_work: Collection[int], partitions: Sequence[Partition], keep: Keep
) -> RetentionPlan:
    """Return what to drop. `clocks`: lane -> watermark in the ledger (ms); `at_work`: lanes without one that have records to read."""
    if not clocks:
        return RetentionPlan(None, None, (), "the ledger is empty")
    lane = min(clocks, key=lambda number: (clocks[number], number))
    clock = clocks[lane]
    if at_work:
        first = min(at_work)
        return RetentionPlan(
            clock, lane, (), f"lane {first} has records to read and no ledger row: its watermark is not known"
        )
    drops = [p for p in partitions if _end_ms(p.day) <= clock - keep.milliseconds(p.table)]
    return RetentionPlan(clock, lane, sorted(drops, key=lambda p: (p.day, p.table)), "")


def _end_ms(day: date) -> int:
    return int(datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC).timestamp() * 1000)
