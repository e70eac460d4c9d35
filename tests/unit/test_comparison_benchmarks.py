"""Laws of the comparison benchmarks: what counts as correct, what is reported, and that each contestant has what it
needs.
"""

import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adledger.loadtest.benchmarks.bench import Result, run_contestant
from adledger.loadtest.benchmarks.catalog import CONTESTANTS, Contestant, ContestantKind, contestant
from adledger.loadtest.benchmarks.environments import CLIENTS, CONSTRAINTS, FLINK
from adledger.loadtest.benchmarks.render import plot, summaries, table
from adledger.loadtest.benchmarks.traffic import (
    MINUTE,
    FilledTopic,
    minutes_of,
    model_of,
    read_found,
    rows_wrong,
)
from adledger.loadtest.lab.measured_process import ProcessFailed, measured
from adledger.loadtest.traffic.generator import Generator
from adledger.loadtest.traffic.ground_truth import GroundTruthBuilder


def minutes(*rows: tuple[int, int, int, int, int]):
    return np.array(sorted(rows), MINUTE)


def result(name: str, rate: float, **changes) -> Result:
    return Result(
        **{
            "contestant": name, "events": 1_000, "cpu_seconds": 1.0, "seconds": 1.0, "steady_events": int(rate),
            "steady_cpu_seconds": 1.0, "steady_seconds": 1.0, "rows": 10, **changes,
        }
    )  # fmt: skip


@given(
    st.dictionaries(st.tuples(st.integers(0, 9), st.integers(0, 9)), st.integers(1, 3)),
    st.dictionaries(st.tuples(st.integers(0, 9), st.integers(0, 9)), st.integers(1, 3)),
)
def test_every_row_that_differs_is_counted_once(a, b):
    """A publisher-minute that is missing, extra or has other values counts one; equal tables count none."""
    one, other = (minutes(*((*key, n, 0, n) for key, n in rows.items())) for rows in (a, b))
    assert rows_wrong(one, other) == sum(a.get(key) != b.get(key) for key in {*a, *b})


def test_the_job_is_well_defined():
    """No record is malformed, expired or misrouted, ids are unique over publishers and kinds, and there are duplicates."""
    model = model_of(30_000)
    builder = GroundTruthBuilder(model)
    ids: set[bytes] = set()
    for chunk in Generator(model).chunks():
        builder.add(chunk.rows)
        for _, _, block in chunk.blocks:
            values, begin = block.values.tobytes(), 0
            for end in block.value_ends.tolist():
                ids.add(_event_id(values[begin:end]))
                begin = end
    ground_truth = builder.build()
    classes = ground_truth.classes.sum(axis=0)
    billable, duplicates = int(classes[1]), int(classes[2])
    assert billable + duplicates == ground_truth.records_received == model.events
    assert duplicates > model.events // 200
    assert len(ids) == billable
    assert not ground_truth.misrouted.any()
    found = minutes_of(ground_truth)
    assert int(found["impressions"].sum() + found["clicks"].sum()) == billable
    assert int(found["nanos"].sum()) == sum(
        nanos for (code, _), (_, nanos) in ground_truth.money().items() if code == 1
    )


def _event_id(value: bytes) -> bytes:
    import json

    return json.loads(value)["event_id"].encode()


def test_a_contestants_output_is_read_in_any_order(tmp_path: Path):
    """The output is five columns of integers."""
    (tmp_path / "found.tsv").write_text("2\t60\t1\t0\t5\n1\t60\t1\t2\t7\n")
    assert read_found(tmp_path / "found.tsv").tolist() == [(1, 60, 1, 2, 7), (2, 60, 1, 0, 5)]


def test_a_process_is_measured_from_outside(tmp_path: Path):
    """CPU and memory are those of the process alone, and a failure is raised with its output."""
    cost = measured([sys.executable, "-c", "sum(range(3_000_000))"], tmp_path / "log", seconds_max=60)
    assert 0 < cost.cpu_seconds < 60
    assert 0 < cost.memory_bytes < 64 * 2**20
    with pytest.raises(ProcessFailed, match="the reason"):
        measured([sys.executable, "-c", "raise SystemExit('the reason')"], tmp_path / "log", seconds_max=60)


def test_an_unavailable_contestant_is_reported_and_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Without Java there is no Flink, and the benchmark goes on."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    traffic = FilledTopic("t", 10, 10, minutes())
    failed = run_contestant(contestant("flink"), traffic, "127.0.0.1:1", tmp_path / "run")
    assert "Flink" in failed.failure
    assert "no figures" in table(summaries([failed, result("aiokafka", 5_000)]))


def test_the_table_has_medians_and_wrong_counts():
    """The table has the middle run of three, and any run's wrong count is reported."""
    runs = [result("aiokafka", 1_000), result("aiokafka", 5_000, rows_wrong=3), result("aiokafka", 3_000)]
    output = table(summaries([*runs, result("confluent", 9_000)]))
    lines = output.splitlines()
    assert "| 3,000 | 1,000-5,000 |" in lines[2]
    assert "3 of 10 rows wrong" in lines[2]
    assert "| right |" in lines[3]
    assert len({line.count("|") for line in lines}) == 1


def test_the_plot_is_svg():
    """The plot is well-formed SVG with a bar for each contestant that has figures."""
    rows = summaries([result(p.name, 1_000 * (i + 1)) for i, p in enumerate(CONTESTANTS)])
    picture = ET.fromstring(plot(rows))
    texts = {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}
    assert {p.title for p in CONTESTANTS} <= texts


@pytest.mark.parametrize("one", CONTESTANTS, ids=lambda p: p.name)
def test_every_contestant_has_its_script_and_versions(one: Contestant):
    """Every script of the catalogue exists, and its packages have exact versions."""
    if one.kind is ContestantKind.PYTHON:
        assert (CLIENTS / one.script).is_file()
        assert all("==" in CONSTRAINTS[package] for package in one.packages)
    if one.kind is ContestantKind.FLINK:
        assert (FLINK / "pom.xml").is_file()
