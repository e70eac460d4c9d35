"""Reasons to halt: one list, the same in code, messages and docs; and which faults may pass."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.pipeline.errors import LaneHalted, UnreadableBatch
from adledger.pipeline.halts import SKIP, WAYS_OUT, HaltReason, override_command
from adledger.pipeline.lanes.faults import FAULT_TRIES_MAX, FaultCount, crashed, fault_policy, unreadable
from adledger.pipeline.retry import RetryPolicy
from adledger.sinks.sink import OffsetRange

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
POLICY = fault_policy(RetryPolicy(None, 15_000, draw=lambda: 0.0))
TOPICS = ("ad.impressions", "ad.clicks")


def halt(reason: HaltReason) -> LaneHalted:
    return LaneHalted("lane 3: so it is", reason=reason)


def test_the_guide_lists_every_reason_as_the_code_does():
    """Its table has the same names, words and commands, in the same order."""
    rows = [
        f"| `{reason}` | {way.found}{'; may pass' if way.passes else ''} "
        f"| {f'`{way.pattern()}`' if way.command else '-'} | {way.does} |"
        for reason, way in WAYS_OUT.items()
    ]
    text = GUIDE.read_text("utf-8")
    assert [
        line for line in text.splitlines() if line.startswith(tuple(f"| `{r}` |" for r in HaltReason))
    ] == rows
    assert list(WAYS_OUT) == list(HaltReason)


def test_only_a_newer_release_has_no_override():
    """For it an override would be wrong, and the list says what to do instead."""
    without = [reason for reason, way in WAYS_OUT.items() if not way.command]
    assert without == [HaltReason.NEWER_INTENT]
    assert all(way.command == SKIP for way in WAYS_OUT.values() if way.to), "a place is named to skip to it"


@pytest.mark.parametrize("reason", HaltReason)
def test_a_fault_that_may_pass_is_tried_some_times_and_others_halt_at_once(reason: HaltReason):
    """The pauses grow; a completed batch, or another fault in between, begins the count again."""
    faults = FaultCount(POLICY)
    pauses = [faults.pause_seconds(halt(reason), progressed=False) for _ in range(FAULT_TRIES_MAX)]
    if not WAYS_OUT[reason].passes:
        assert pauses == [None] * FAULT_TRIES_MAX
        return
    assert pauses == [0.5, 1.0, 2.0, 4.0, None]
    assert faults.pause_seconds(halt(reason), progressed=False) == 0.5, "once more after an override"
    assert faults.pause_seconds(halt(reason), progressed=True) == 0.5
    other = next(r for r, way in WAYS_OUT.items() if way.passes and r is not reason)
    assert faults.pause_seconds(halt(other), progressed=False) == 0.5
    assert faults.pause_seconds(halt(reason), progressed=False) == 0.5


@given(st.lists(st.sampled_from(HaltReason), max_size=40))
def test_no_fault_is_tried_forever(reasons: list[HaltReason]):
    """Without a completed batch, the same reason is never tried more often in a row than the policy allows."""
    faults, in_a_row, before = FaultCount(POLICY), 0, None
    for reason in reasons:
        in_a_row = in_a_row + 1 if reason is before else 1
        before = reason
        if faults.pause_seconds(halt(reason), progressed=False) is None:
            before = None
        assert in_a_row <= FAULT_TRIES_MAX


def test_a_fault_names_the_place_after_the_batch():
    """Of a batch that can't be read it is that topic's; of one that was worked on, every topic's."""
    bad = UnreadableBatch("ad.clicks-3: damaged", topic=1, start=5, end=9, remedy="look at the disk")
    error = unreadable(3, bad, TOPICS)
    assert (error.reason, error.message) == (HaltReason.BATCH_UNREADABLE, "lane 3: ad.clicks-3: damaged")
    assert error.remedy == (
        "look at the disk; or give up the batch: "
        "adledger lane skip 3 --to ad.clicks=9 --reason TEXT --dry-run"
    )
    ranges = (OffsetRange(0, 4, 7), OffsetRange(1, 5, 9))
    for failure, reason in ((MemoryError(), HaltReason.OUT_OF_MEMORY), (KeyError(1), HaltReason.BUG)):
        error = crashed(3, failure, ranges, TOPICS)
        assert error.reason is reason
        assert "lane skip 3 --to ad.impressions=7 --to ad.clicks=9 --reason" in error.remedy
    nowhere = crashed(3, KeyError(1), (), TOPICS)
    assert override_command(HaltReason.BUG, 3) in nowhere.remedy
