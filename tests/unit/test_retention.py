"""What retention may drop is a function of the lanes' watermarks alone."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.retention.plan import DAY_MS, Keep, Partition, plan

TABLES = ("events", "dead_letters", "rollup_minute", "ledger")
EPOCH = date(1970, 1, 1)
WINDOW_MS = 25 * 3_600_000


def clock_of(day: date, hour: int = 0) -> int:
    return int(datetime(day.year, day.month, day.day, hour, tzinfo=UTC).timestamp() * 1000)


def tables_of(first: int, days: int) -> list[Partition]:
    """Return every table's partitions of `days` days from the day number `first` on."""
    return [
        Partition(table, EPOCH + timedelta(days=n), 10, 100)
        for table in TABLES
        for n in range(first, first + days)
    ]


@given(
    st.dictionaries(st.integers(0, 9), st.integers(0, 40 * DAY_MS), min_size=1),
    st.fixed_dictionaries({table: st.integers(1, 30) for table in TABLES}),
    st.integers(0, 7 * DAY_MS),
)
def test_nothing_is_dropped_that_a_lane_may_need(
    clocks: Mapping[int, int], days: dict[str, int], state_ms: int
):
    """A dropped partition ended a table's retention before the watermark of *every* lane, and for events before every lane's
    state.

    Every other partition did not, so nothing is kept forever.
    """
    partitions = tables_of(0, 41)
    found = plan(clocks, (), partitions, Keep(days, state_ms))
    for partition in partitions:
        end = clock_of(partition.day) + DAY_MS
        old = all(end <= clock - days[partition.table] * DAY_MS for clock in clocks.values())
        needed = partition.table == "events" and any(end > clock - state_ms for clock in clocks.values())
        if partition in found.drops:
            assert old
            assert not needed
        elif old and partition.table != "events":
            raise AssertionError(f"{partition} is kept for nothing")


KEEP = Keep(dict.fromkeys(TABLES, 3), WINDOW_MS)


def test_an_import_of_years_old_logs():
    """Rows of 1995, imported today, are as young as the lanes' watermarks, and stay."""
    first = (date(1995, 7, 1) - EPOCH).days
    partitions = tables_of(first, 3)
    assert not plan({0: clock_of(date(1995, 7, 3), 12)}, (), partitions, KEEP).drops


def test_an_outage_drops_nothing():
    """A lane that was halted for a weekend holds all others back, since it will read from where it halted."""
    day = date(2026, 3, 6)
    partitions = tables_of((day - EPOCH).days - 3, 30)
    halted, running = clock_of(day, 18), clock_of(day + timedelta(days=20))
    assert not plan({0: halted, 1: running}, (), partitions, KEEP).drops
    alone = plan({1: running}, (), partitions, KEEP)
    assert {p.table for p in alone.drops} == set(TABLES)


def test_a_lane_without_a_ledger_row():
    """It blocks nothing while it has nothing to read; with records to read its watermark is unknown, and nothing is
    dropped.
    """
    partitions = tables_of(0, 30)
    clocks = {0: 30 * DAY_MS}
    assert plan(clocks, (), partitions, KEEP).drops
    blocked = plan(clocks, (5,), partitions, KEEP)
    assert not blocked.drops
    assert "lane 5" in blocked.blocked


def test_an_empty_ledger():
    """Without any watermark nothing is old."""
    found = plan({}, (), tables_of(0, 9), KEEP)
    assert (found.drops, found.clock_min) == ((), None)
    assert found.blocked
