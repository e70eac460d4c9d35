"""The course of a chaos run, and the verdict that its findings add up to."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.loadtest.chaos import control_runs, controls, faults
from adledger.loadtest.chaos.plan import KILLS_TOGETHER, ROUND, chosen, planned
from adledger.loadtest.chaos.results import ChaosReport, ChaosVerdict, ControlDone, FaultDone
from adledger.loadtest.chaos.run import ChaosRequest, _Course
from adledger.loadtest.lab.waiting import Broken, NotSeen
from adledger.loadtest.lab.worker_log import Doubt, doubts_of
from adledger.pipeline.errors import UsageError
from adledger.pipeline.lanes.event_log import event_log
from adledger.pipeline.lanes.events import BatchInDoubt, RetryScheduled

FAULT = FaultDone("kill-broker", 1.0, 2.0, took_effect=True, held=True, seen="it went", recovery_seconds=3.0)
CONTROL = ControlDone("kill-broker", "patience", "rows are missing", 4.0)
REPORT = ChaosReport(
    seed=1, started="2026-01-01T00:00:00+00:00", seconds=9.0, workers=3, lanes=6, records=7, kills=0,
    faults=(FAULT,), controls=(CONTROL,), wrong=(), died=(), compared=True,
)  # fmt: skip


def test_every_fault_is_in_a_round_and_has_a_control() -> None:
    """Every planned fault is possible and has a control without its protection; at least 30 workers die."""
    controlled = [fault for acts in control_runs.CONTROLS.values() for fault in acts]
    assert sorted(ROUND) == sorted(faults.FAULTS) == sorted(controlled)
    assert ROUND["kill-worker"] * KILLS_TOGETHER >= 30


@given(st.integers(0, 2**32), st.integers(0, 9), st.sets(st.sampled_from(sorted(ROUND))))
def test_a_round_follows_from_seed_and_number(seed: int, number: int, names: set[str]) -> None:
    """Each fault occurs as often as requested, in a repeatable order."""
    wanted = chosen(sorted(names))
    order = planned(seed, number, wanted)
    assert order == planned(seed, number, wanted)
    assert Counter(order) == Counter(wanted)
    assert wanted.keys() == (names or ROUND.keys())


def test_an_unknown_fault_is_refused() -> None:
    """The error names it and lists the existing ones."""
    with pytest.raises(UsageError, match="there is no kill-moon") as refused:
        chosen(["kill-broker", "kill-moon"])
    assert "kill-broker" in refused.value.remedy


@pytest.mark.parametrize(
    ("report", "verdict", "code"),
    [
        (REPORT, ChaosVerdict.PASSED, 0),
        (replace(REPORT, wrong=("one row",)), ChaosVerdict.FAILED, 1),
        (replace(REPORT, died=("worker-1",)), ChaosVerdict.FAILED, 1),
        (replace(REPORT, faults=(replace(FAULT, held=False),)), ChaosVerdict.FAILED, 1),
        (replace(REPORT, faults=(replace(FAULT, took_effect=False),)), ChaosVerdict.INVALID, 97),
        (replace(REPORT, controls=(replace(CONTROL, differs=""),)), ChaosVerdict.INVALID, 97),
        (replace(REPORT, stopped="no traffic"), ChaosVerdict.INVALID, 97),
        (replace(REPORT, compared=False), ChaosVerdict.INVALID, 97),
        (replace(REPORT, wrong=("one row",), stopped="no traffic"), ChaosVerdict.FAILED, 1),
        (replace(REPORT, interrupted=True), ChaosVerdict.INTERRUPTED, 130),
    ],
)  # fmt: skip
def test_a_run_holds_only_when_everything_was_seen_and_held(
    report: ChaosReport, verdict: ChaosVerdict, code: int
) -> None:
    """A violation outranks an unseen effect; a fault or a control without effect makes a run invalid."""
    assert (report.verdict, report.verdict.exit_code) == (verdict, code)


def test_a_report_is_kept(tmp_path: Path) -> None:
    """It is JSON with all of it, and a page that names each fault and control."""
    REPORT.write(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(json.dumps(REPORT.as_json()))
    page = (tmp_path / "report.md").read_text()
    assert all(text in page for text in ("kill-broker", "3.0 s", "rows are missing", "Equal, to the nano"))


def test_doubts_are_read_from_event_logs(tmp_path: Path) -> None:
    """Each has its time, lane and batch; an attempt within one is not another, and a half-written line is ignored."""
    log, times = tmp_path / "worker.events.jsonl", iter((1.0, 2.5, 3.0))
    with event_log(log, lambda: next(times)) as emit:
        emit(BatchInDoubt(3, "no answer", 8))
        emit(RetryScheduled(3, "batch_in_doubt", 1, None, batch_no=8))
        emit(BatchInDoubt(4, "it was intended", 9))
    with log.open("a") as file:
        file.write('{"at":4.0,"event":"batch_in_doubt","lane":5')
    assert list(doubts_of(log)) == [Doubt(1.0, 3, 8), Doubt(3.0, 4, 9)]
    assert list(doubts_of(tmp_path / "none.jsonl")) == []


def test_controls_name_existing_protections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A renamed protection would no longer be removed, so each control names an existing one."""
    replaced = []

    def note(owner: object, name: str, changed: object) -> None:
        assert hasattr(owner, name), (owner, name)
        replaced.append((owner, name))

    monkeypatch.setattr(controls, "_replace", note)
    for take_out in controls.WITHOUT.values():
        before = len(replaced)
        take_out()
        assert len(replaced) > before


@pytest.mark.parametrize(
    ("raised", "recovers", "verdict"),
    [
        (NotSeen("no effect"), True, ChaosVerdict.INVALID),
        (NotSeen("no effect"), False, ChaosVerdict.INVALID),
        (OSError("no process"), True, ChaosVerdict.INVALID),
        (Broken("a lane moved"), True, ChaosVerdict.FAILED),
        (None, False, ChaosVerdict.FAILED),
        (None, True, ChaosVerdict.PASSED),
    ],
)
def test_a_course_ends_and_says_what_was_not_seen(
    raised: Exception | None,
    recovers: bool,
    verdict: ChaosVerdict,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """A fault without effect makes the run invalid whatever follows; one with an effect must be recovered from."""

    def fault(_: object) -> str:
        if raised is not None:
            raise raised
        return "seen"

    monkeypatch.setitem(faults.FAULTS, "kill-broker", fault)
    lines: list[str] = []
    play: Any = _Play(recovers)
    course = _Course(ChaosRequest(1, {"kill-broker": 1}, tmp_path), play, lines.append)
    stopped = ""
    try:
        course.run()
    except NotSeen as error:
        stopped = error.message
    report = replace(course.reported(REPORT), controls=(), stopped=stopped)
    assert report.verdict is verdict
    assert len(lines) == len(report.faults) == 1
    assert ("not caught up after kill-broker" in stopped) is not recovers


class _Play:
    """A deployment without processes, on which lanes recover or don't."""

    def __init__(self, recovers: bool) -> None:
        self.deployment = self.traffic = self.tables = self
        self.records, self.workers, self.folder = 7, (), Path("nowhere")
        self._recovers = recovers

    def start(self) -> None:
        """Send nothing."""

    def records_of(self, batches: set[tuple[int, int]]) -> int:
        return len(batches)

    def caught_up(self, records: int) -> float:
        if not self._recovers:
            raise NotSeen(f"{records} records in the ledger")
        return 0.5
