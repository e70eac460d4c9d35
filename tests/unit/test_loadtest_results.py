"""The run folder: what is written reads back equal; missing or damaged files are named."""

import dataclasses

import pytest

from adledger.loadtest.results.names import METRICS, SECONDS
from adledger.loadtest.results.run_folder import (
    FORMAT,
    FaultResult,
    Names,
    Run,
    RunFolder,
    RunSummary,
    RunVerdict,
    Step,
    ThresholdResult,
    Verification,
    runs_in,
)  # fmt: skip
from adledger.pipeline.errors import UsageError

RUN = Run(
    id="a", profile_name="p", profile={"load": {"rate": 5}}, model={"events": 7}, seed=1, executor="constant-arrival-rate",
    rate_per_second=5.0, duration_seconds=3.0, warm_up_seconds=1.0, command=("adledger", "loadtest"), target="local",
    source="kafka://h:1", clickhouse="clickhouse://h:2", names=Names("d", ("i", "c"), "r", "g"), workers=1, senders=2,
    own_servers=True, settings={"group": "g"}, environment={"cores": 2}, started_ms=1, load_started_ms=2,
    load_ended_ms=None, ended_ms=None, sent_until_ms=(3, 4),
)  # fmt: skip
SUMMARY = RunSummary(
    run_id="a", verdict=RunVerdict.CROSSED, why=("because",), metrics={"events_sent": 5.0, "drain_seconds": None},
    thresholds=(ThresholdResult(metric="m", expression="max<1", value=2.0, held=False),),
    faults=(FaultResult(kind="kill-worker", at_seconds=1, duration_seconds=0, started_second=1.0, ended_second=2.0,
                        took_effect=True, seen="gone"),),
    verification=Verification(ran=True, equal=False, rows_wrong=1, wrong=("x",), explanations=("y",)),
    steps=(Step(run_id="b", rate_per_second=5, held=True, verdict="held"),), rate_max_per_second=5,
)  # fmt: skip


def test_files_read_back_equal(tmp_path):
    """run.json, summary.json and seconds.csv read back equal; an unknown value reads back as None."""
    folder = RunFolder.create(tmp_path, "a")
    assert not folder.ended
    folder.write_run(RUN)
    folder.write_summary(SUMMARY)
    assert (folder.run(), folder.summary(), folder.ended) == (RUN, SUMMARY, True)
    lines = [dict.fromkeys(SECONDS), {name: 1_795_442_499_123.0 + i + 0.25 for i, name in enumerate(SECONDS)}]
    folder.write_seconds(lines)
    assert folder.seconds() == lines


def test_runs_are_found(tmp_path):
    """Runs are found by id, by path and as the last one; each once, the oldest first."""
    for name in ("b", "a"):
        RunFolder.create(tmp_path, name).write_run(dataclasses.replace(RUN, id=name))
    assert [folder.run().id for folder in runs_in(tmp_path)] == ["a", "b"]
    assert RunFolder.find(tmp_path, "last").path.name == "b"
    assert RunFolder.find(tmp_path, "a") == RunFolder(tmp_path / "a")
    assert RunFolder.find(tmp_path / "elsewhere", str(tmp_path / "a")) == RunFolder(tmp_path / "a")
    with pytest.raises(UsageError, match="there is no run c"):
        RunFolder.find(tmp_path, "c")
    with pytest.raises(UsageError, match="can't be made"):
        RunFolder.create(tmp_path, "a")


def test_unreadable_runs_are_named(tmp_path):
    """A run that was cut off, a damaged file and a later format are named."""
    folder = RunFolder.create(tmp_path, "a")
    with pytest.raises(UsageError, match=r"summary\.json is not there"):
        folder.summary()
    (folder.path / "run.json").write_text("{")
    with pytest.raises(UsageError, match="damaged"):
        folder.run()
    folder.write_run(dataclasses.replace(RUN, format=FORMAT + 1))
    with pytest.raises(UsageError, match="later than"):
        folder.run()


def test_exit_codes_are_those_of_the_help():
    """99 is for thresholds as in k6, 0 for held; the others are this command's."""
    assert {v.value: v.exit_code for v in RunVerdict} == {
        "held": 0, "crossed": 99, "invalid": 97, "unverified": 98, "interrupted": 130,
    }  # fmt: skip
    assert len(METRICS) == len(set(METRICS))
