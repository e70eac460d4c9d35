"""Lane events: each has a name, a log line, and values that the event log can hold."""

import inspect
import json
import logging
from pathlib import Path

import pytest

from adledger.pipeline.errors import UsageError
from adledger.pipeline.halts import HaltReason
from adledger.pipeline.lanes import events, worker_events
from adledger.pipeline.lanes.emit import Event, Measurement, fan_out
from adledger.pipeline.lanes.event_log import event_log
from adledger.pipeline.lanes.phase_tracker import PhaseTracker
from adledger.sinks.sink import LedgerEntry

ENTRY = LedgerEntry(
    lane=3, batch_no=8, epoch="e", ranges=(), cut_time=0, cut_topic=0, cut_offset=0, clock_before=0, clock_after=7,
    records_received=5, counts={}, money=(), judge_version=1, rollup_rows=1, events_digest=0, dead_letters_digest=0,
)  # fmt: skip

LINES: tuple[tuple[Event, str], ...] = (
    (events.PhaseChanged(3, events.Phase.IDLE), ""),
    (events.BatchDone(ENTRY, 9), ""),
    (events.InsertFailed(3, 8, "events", "InsertRefused", 243), ""),
    (events.BatchInDoubt(3, "No answer", 8), "lane 3, batch 8: in doubt. No answer"),
    (events.BatchSettled(3, 8), "lane 3, batch 8: settled"),
    (events.BatchCutAgain(3, 8), "lane 3, batch 8: cut again, the log was rewritten"),
    (events.LeftoversRemoved(3, 8), "lane 3, batch 8: its rows are removed by an operator override"),
    (events.RetryScheduled(3, "away", 2, 10), "lane 3: away; try 2 of 10"),
    (events.RetryScheduled(3, "away", 1, None, 243, 8), "lane 3: batch 8 is still in doubt. away; try 1"),
    (events.RebuildProgressed(3, 10_000_000, 25_000_000), "lane 3: 10,000,000 ids rebuilt, of about 25,000,000"),
    (events.ParentAwaited(3, 1, (7, 9)), "lane 3: waits for lane 1 to reach offsets 7, 9"),
    (events.Halted(3, "lane 3: rows differ", "look", HaltReason.ROWS_INCOMPLETE), "lane 3 halted: rows differ\n  remedy: look"),
    (events.OverrideFound(3), "lane 3: there is an override for it; it starts again"),
    (events.RestartScheduled(3, "refused", "", 15), "lane 3: refused; it starts again in 15 s"),
    (events.LaneLost(3, "fenced"), "lane 3: given to another worker. fenced"),
    (events.LaneLeft(3, "stopped while it waited: batch 8"), "lane 3: stopped while it waited: batch 8"),
    (events.LaneCrashed(3, "ValueError"), "lane 3: failed, so it begins again from the ledger, or halts. ValueError"),
    (events.LaneReleased(3), ""),
    (worker_events.LanesAssigned((1, 3), (1, 2, 3)), "lanes taken: 1,3; now owned: 1,2,3"),
    (worker_events.LanesRevoked((1,), (), 0.25), "lanes given back: 1, after 0.2 s; now owned: none"),
    (worker_events.RejoinStarted(3, "lane 3, group g: no answer"), "lane 3: group g: no answer; leaving the group to join as a new member"),
    (worker_events.RejoinFailed("no broker", 4), "the group can't be joined again: no broker; try 4"),
    (worker_events.LedgerUnreadable("away"), "the ledger can't be read: away"),
    (worker_events.PagesBound("http://127.0.0.1:1/"), "pages at http://127.0.0.1:1/"),
    (worker_events.AlertRaised("breach"), ""),
    (worker_events.PeriodClosed("2026-11-30T12:15Z", 40, 3), "period 2026-11-30T12:15Z is closed: 40 final sums, 3 adjustments booked"),
    (worker_events.PeriodHeld("2026-11-30T12:15Z", (1, 3)), "period 2026-11-30T12:15Z is held open by lanes 1,3: `adledger periods status` shows since when, and what waits"),
    (worker_events.ClosingFailed("sums differ", "look"), "closing periods failed: sums differ; look"),
    (worker_events.RulesNoticed("new rules"), "new rules"),
    (worker_events.RulesTrouble("no rules"), "no rules"),
)  # fmt: skip
EVENTS = [event for event, _ in LINES]


def of_the_module() -> set[type[Event]]:
    modules = {events.__name__, worker_events.__name__}
    found = (v for m in (events, worker_events) for _, v in inspect.getmembers(m, inspect.isclass))
    return {kind for kind in found if issubclass(kind, Event) and kind.__module__ in modules}


def test_every_event_is_covered() -> None:
    """Every event is among the examples below; base classes are not events."""
    abstract = {worker_events.OwnershipChanged}
    assert {type(event) for event in EVENTS} == {
        kind for kind in of_the_module() if not issubclass(kind, Measurement)
    } - abstract


@pytest.mark.parametrize(
    ("event", "line"), LINES, ids=lambda value: value.name() if isinstance(value, Event) else ""
)
def test_a_line_names_the_lane_once_and_the_reason(event: Event, line: str) -> None:
    """Errors of log and recovery begin with their lane and those of ClickHouse don't; the line has it once either way."""
    assert event.line == line


def test_what_an_operator_must_look_at_is_a_warning_or_worse() -> None:
    """So is the reason of a batch in doubt."""
    urgent = {type(event) for event in EVENTS if event.level >= logging.WARNING}
    assert urgent == {
        events.BatchInDoubt, events.RetryScheduled, events.Halted, events.RestartScheduled, events.LaneCrashed,
        worker_events.RejoinStarted, worker_events.RejoinFailed, worker_events.RulesTrouble, worker_events.PeriodHeld,
        worker_events.ClosingFailed,
    }  # fmt: skip


def test_the_first_tries_have_a_line_each_then_every_twelfth() -> None:
    """A night without ClickHouse does not fill the disk with log lines."""
    logged = [n for n in range(1, 50) if events.RetryScheduled(0, "away", n, None).line]
    assert logged == [1, 2, 3, 4, 5, 12, 24, 36, 48]


def test_the_event_log_has_every_event_and_no_measurement(tmp_path: Path) -> None:
    """Each line is a JSON object with time, name in snake case, and the fields; a restart appends to the same file."""
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        with event_log(path, lambda: 1.5) as emit:
            for event in EVENTS:
                emit(event)
            emit(events.InsertDone("events"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["event"] for line in lines] == [event.name() for event in EVENTS] * 2
    assert {line["at"] for line in lines} == {1.5}
    by_name = {line["event"]: line for line in lines}
    assert by_name["batch_in_doubt"] == {
        "at": 1.5, "event": "batch_in_doubt", "lane": 3, "reason": "No answer", "batch_no": 8,
    }  # fmt: skip
    assert by_name["batch_done"]["records"] == 5
    assert by_name["lanes_revoked"]["owned"] == []


def test_an_event_log_that_can_not_be_written_is_refused_at_once(tmp_path: Path) -> None:
    """The error names the setting; without a path events are not written."""
    with pytest.raises(UsageError, match="event_log = "), event_log(tmp_path / "none" / "events.jsonl"):
        pass
    with event_log(None) as emit:
        emit(events.OverrideFound(1))


def test_a_full_disk_ends_the_event_log_and_no_lane(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failure is logged once."""
    logger = logging.getLogger("adledger.lanes")
    monkeypatch.setattr(logger, "disabled", False)  # as another test's logging.config leaves it
    with event_log(Path("/dev/full")) as emit:
        emit(events.OverrideFound(1))
        emit(events.OverrideFound(2))
    assert [record.getMessage() for record in caplog.records] == [
        "event_log = /dev/full can't be written any more: No space left on device"
    ]


def test_a_phase_is_emitted_when_it_changes() -> None:
    """A phase is emitted once however often it is entered, and a lane that waited returns to its phase of before."""
    one: list[Event] = []
    other: list[Event] = []
    phase = PhaseTracker(3, fan_out(one.append, other.append))
    before = phase.current
    for _ in range(3):
        phase.enter(events.Phase.WAITING, "away")
    phase.resume(before)
    phase.resume(before)
    assert one == other == [before, events.PhaseChanged(3, events.Phase.WAITING, "away"), before]
