"""`loadtest compare` tells change from noise: it reports nothing on A against A, and finds a real change."""

import json
from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from typer.testing import CliRunner

from adledger.loadtest.compare.change import (
    ERROR_MAX,
    METRICS,
    RUNS_MIN,
    ChangeKind,
    change_of,
    two_sided_t,
)
from adledger.loadtest.compare.detectable import min_detectable_effects, undetectable
from adledger.loadtest.compare.render import as_json, markdown
from adledger.loadtest.compare.runs import MeasuredRun, compare
from adledger.loadtest.results.run_folder import RunVerdict, Verification
from adledger.pipeline.cli.loadtest import loadtest
from adledger.pipeline.cli.loadtest_report import repeated
from adledger.pipeline.errors import UsageError
from tests.support.noise import NOISE_MODELS
from tests.support.run_folders import STARTED_MS, folder_of, run_of, summary_of

CPU = METRICS[0]
COMPARISONS = 300


@pytest.mark.parametrize("runs", [3, 5])
@pytest.mark.parametrize("noise", NOISE_MODELS.values(), ids=NOISE_MODELS)
def test_a_against_a_is_silent(noise, runs):
    """Of comparisons of a system with itself, all metrics at once, at most ERROR_MAX report anything.

    The seed is fixed; the bound leaves room for three standard deviations of the count itself.
    """
    rng = np.random.default_rng(20_260_101)
    reported = 0
    for _ in range(COMPARISONS):
        values = ([noise(rng, runs).tolist() for _ in range(2)] for _ in METRICS)
        changes = [change_of(metric, a, b) for metric, (a, b) in zip(METRICS, values, strict=True)]
        reported += any(change.kind is not ChangeKind.SAME for change in changes)
    expected = ERROR_MAX * COMPARISONS
    assert reported <= expected + 3 * expected**0.5


@pytest.mark.parametrize(
    ("noise", "found_min"), [(0.01, 1.0), (0.02, 0.99), (0.03, 0.85)], ids=["1 %", "2 %", "3 %"]
)
def test_a_tenth_more_cpu_is_found_in_five_runs(noise, found_min):
    """Where runs scatter by this much, 10 % more CPU an event is reported as worse in this share of comparisons."""
    rng = np.random.default_rng(20_260_102)
    sides = np.exp(noise * rng.standard_normal((COMPARISONS, 2, 5)))
    changes = [change_of(CPU, (a * 1.1).tolist(), b.tolist()) for a, b in sides]
    assert sum(change.kind is ChangeKind.WORSE for change in changes) >= found_min * COMPARISONS
    assert not any(change.kind is ChangeKind.BETTER for change in changes)


values = st.lists(st.floats(0.5, 2.0), min_size=RUNS_MIN, max_size=8)


@given(st.sampled_from(METRICS), values, values, st.floats(1e-3, 1e9))
def test_a_change_has_no_unit_and_two_sides(metric, a, b, factor):
    """Other units change nothing, and A against B is the reverse of B against A."""
    change = change_of(metric, a, b)
    scaled = change_of(metric, [v * factor for v in a], [v * factor for v in b])
    turned = change_of(metric, b, a)
    assume(abs(abs(change.change) - metric.effect_min) > 1e-6 and abs(change.p - metric.error) > 1e-9)
    assume(abs(abs(turned.change) - metric.effect_min) > 1e-6)
    assert scaled.kind is change.kind
    assert scaled.change == pytest.approx(change.change, abs=1e-9)
    assert (1 + turned.change) * (1 + change.change) == pytest.approx(1)
    if turned.kind is not ChangeKind.SAME and change.kind is not ChangeKind.SAME:
        assert {turned.kind, change.kind} == {ChangeKind.WORSE, ChangeKind.BETTER}


@given(st.sampled_from(METRICS), values, values)
def test_a_reported_change_is_large_and_significant(metric, a, b):
    """A change is reported only where its interval excludes 0 and it is at least the effect that matters."""
    change = change_of(metric, a, b)
    assert change.low <= change.change <= change.high
    reported = change.kind is not ChangeKind.SAME
    assert reported == ((change.low > 0 or change.high < 0) and abs(change.change) >= metric.effect_min)
    assert (change.kind is ChangeKind.WORSE) == (reported and (change.change > 0) != metric.higher_is_better)


def test_what_was_not_measured_everywhere_is_not_compared():
    """A run without a value, or with 0, is not left out silently: the metric is not comparable."""
    for a in ([1.0, 1.0, None], [1.0, 1.0, 0.0, 1.0], [1.0, 1.0]):
        assert change_of(CPU, a, [1.0] * 5).kind is ChangeKind.UNKNOWN


@pytest.mark.parametrize(
    ("tails", "degrees", "t"),
    [(0.05, 1, 12.7062), (0.05, 10, 2.2281), (0.01, 4, 4.6041), (0.01, 8, 3.3554), (0.001, 30, 3.6460), (0.05, 1e6, 1.9600)],
)  # fmt: skip
def test_student_s_t_is_that_of_the_tables(tails, degrees, t):
    """Quantiles agree with printed tables to their last digit."""
    assert two_sided_t(tails, degrees) == pytest.approx(t, abs=6e-5)


def side(name: str, costs: list[float], *, first: int = 0, **other) -> list[MeasuredRun]:
    numbers = count(first, 2)  # alternating with the other side's
    return [
        MeasuredRun(
            run_of(f"{name}{i}", started_ms=STARTED_MS + next(numbers) * 60_000, **other),
            summary_of(f"{name}{i}", metrics={**summary_of().metrics, "worker_cpu_us_per_event": cost}),
        )
        for i, cost in enumerate(costs)
    ]


B = side("b", [4.0, 4.04, 3.98, 4.02, 3.97])


def test_only_like_is_compared_with_like():
    """Too few runs, another load or machine, and a run without a valid count are refused, with the reason."""
    good = [4.01, 3.99, 4.0]
    wrong = Verification(ran=True, equal=False)
    refused = {
        "at least 3": side("a", good[:2]),
        "rate is": side("a", good, rate_per_second=30_000.0),
        "profile is": side("a", good, profile_name="poison"),
        "cores is": side("a", good, environment={**run_of().environment, "cores": 2}),
        "is invalid": [
            replace(m, summary=replace(m.summary, verdict=RunVerdict.INVALID)) for m in side("a", good)
        ],
        "counted wrongly": [
            replace(m, summary=replace(m.summary, verification=wrong)) for m in side("a", good)
        ],
        "named twice": B[:3],
    }
    for reason, a in refused.items():
        found = compare(a, B)
        assert found.verdict == "refused"
        assert any(reason in line for line in found.refused), reason
        assert found.changes == ()
    assert compare(refused["cores is"], B, across_machines=True).verdict == "no change"


def test_possible_explanations_are_named():
    """Differences in A's environment are named, and so is an order of runs in which time itself may be the cause."""
    settings = {"batch_rows_max": 65_536, "database": "another"}
    alternating = compare(side("a", [4.0, 4.01, 3.99], first=1, settings=settings), B)
    assert [line.partition(":")[0] for line in alternating.differs] == ["batch_rows_max"]
    assert not any("Alternate" in line for line in alternating.cautions)
    assert any("Alternate" in line for line in compare(side("a", [4.0, 4.01, 3.99], first=100), B).cautions)


def test_an_underpowered_comparison_is_reported():
    """Where runs scatter so much that a quarter more could go unnoticed, no change is not reported as equality."""
    scattered = side("a", [3.0, 4.0, 5.5], first=1)
    assert compare(scattered, B).verdict == "no change"
    assert any("scatter" in line for line in compare(scattered, B).cautions)
    assert not any("scatter" in line for line in compare(side("a", [4.0, 4.01, 3.99], first=1), B).cautions)


def test_formats_agree():
    """JSON is plain values with the verdict; Markdown has a row for each metric."""
    found = compare(side("a", [4.4, 4.42, 4.39, 4.41, 4.4], first=1), B)
    assert found.verdict == "worse"
    assert json.loads(json.dumps(as_json(found)))["verdict"] == "worse"
    rows = [line for line in markdown(found).splitlines() if line.startswith("| ")][2:]
    assert len(rows) == len(METRICS)
    assert sum("worse" in row for row in rows) == 1


@given(st.lists(st.sampled_from(["x", "y", "--json", "--markdown"]), max_size=6), st.lists(st.sampled_from(["p", "q"]), max_size=4))  # fmt: skip
def test_against_takes_all_names_that_follow(before, names):
    """Each name after --against becomes one of its own; what precedes it stays; the next option ends it."""
    found = repeated([*before, "--against", *names, "--json"])
    assert found[: len(before)] == before
    assert found[len(before) :] == [part for name in names for part in ("--against", name)] + ["--json"]


@pytest.mark.parametrize(
    ("costs", "code", "verdict"),
    [([4.4, 4.42, 4.39], 99, "worse"), ([3.6, 3.62, 3.59], 0, "better"), ([4.01, 3.98, 4.02], 0, "no change"), ([4.4, 4.4], 97, "refused")],
)  # fmt: skip
def test_a_ci_job_fails_on_what_is_worse_and_on_nothing_else(tmp_path, costs, code, verdict):
    """The exit code is 0 for not worse, 99 for worse, 97 for not comparable; stdout of --json is one object."""
    a = side("a", costs, first=1)
    for measured in (*a, *B):
        folder_of(tmp_path, measured.run, measured.summary)
    arguments = [
        "compare",
        *(m.run.id for m in a),
        "--against",
        *(m.run.id for m in B),
        "--runs",
        str(tmp_path),
    ]
    done = CliRunner().invoke(loadtest, [*arguments, "--json"])
    assert done.exit_code == code, done.output
    assert json.loads(done.stdout)["verdict"] == verdict
    assert CliRunner().invoke(loadtest, arguments).exit_code == code


@given(st.sampled_from(METRICS), values, values, st.floats(0.1, 1.0))
def test_no_change_counts_only_where_it_was_detectable(metric, a, b, asked):
    """A requested effect is undetectable exactly where no change is reported and it is below `detectable_from`."""
    change = change_of(metric, a, b)
    assume(abs(change.detectable_from - asked) > 1e-6)
    silent = change.kind is ChangeKind.SAME and change.detectable_from > asked
    assert bool([*undetectable([change], {metric.name: asked})]) == silent
    assert not [*undetectable([change], {})]


def test_what_was_not_measured_is_undetectable():
    """A requested metric that a run lacks is undetectable, not skipped."""
    change = change_of(CPU, [1.0, None, 1.0], [1.0] * 3)
    [line] = undetectable([change], {CPU.name: 0.1})
    assert "not every run measured it" in line


@pytest.mark.parametrize(
    ("texts", "found"),
    [
        (["10%"], {metric.name: 0.1 for metric in METRICS}),
        (["worker_cpu_us_per_event=3%"], {CPU.name: 0.03}),
        (["20%", "freshness_ms.p(99)=50%"], {m.name: 0.5 if m.name == "freshness_ms.p(99)" else 0.2 for m in METRICS}),
    ],
)  # fmt: skip
def test_effects_are_set_metric_by_metric(texts, found):
    """A percentage alone applies to every metric, `METRIC=` to one, and overrides an earlier one."""
    assert min_detectable_effects(texts) == pytest.approx(found)


@pytest.mark.parametrize("text", ["10", "ten%", "0%", "200%", "-5%", "5%", "no_such=10%", "worker_cpu_us_per_event=1%"])  # fmt: skip
def test_an_impossible_effect_is_misuse(text):
    """An invalid percentage, an unknown metric, or less than what is ever reported is refused with a remedy."""
    with pytest.raises(UsageError) as refused:
        min_detectable_effects([text])
    assert refused.value.remedy


@pytest.mark.parametrize(
    ("costs", "code", "verdict"),
    [
        ([4.01, 3.98, 4.02], 0, "no change"),
        ([3.0, 4.0, 5.5], 96, "underpowered"),
        ([4.4, 4.42, 4.39], 99, "worse"),
    ],
)
def test_a_ci_job_does_not_trust_an_underpowered_comparison(tmp_path, costs, code, verdict):
    """With --min-detectable-effect the exit code is 96 where runs scatter so much that the change could be there; a
    reported change comes first.
    """
    a = side("a", costs, first=1)
    for measured in (*a, *B):
        folder_of(tmp_path, measured.run, measured.summary)
    names = [*(m.run.id for m in a), "--against", *(m.run.id for m in B)]
    arguments = ["compare", *names, "--min-detectable-effect", f"{CPU.name}=10%", "--runs", str(tmp_path)]
    done = CliRunner().invoke(loadtest, [*arguments, "--json"])
    assert done.exit_code == code, done.output
    assert json.loads(done.stdout)["verdict"] == verdict
    for form in ([], ["--markdown"]):
        result = CliRunner().invoke(loadtest, [*arguments, *form])
        assert result.exit_code == code
        assert ("could have been missed" in result.stdout.lower()) == (code == 96)


def test_report_writes_its_files_to_the_run_folder(tmp_path):
    """`report last` writes page, Markdown and JUnit, and names every file."""
    folder = folder_of(tmp_path, run_of(), summary_of())
    done = CliRunner().invoke(loadtest, ["report", "last", "--runs", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    named = json.loads(done.stdout)
    assert set(named) == {"report.html", "report.md", "junit.xml", "run.json", "summary.json", "seconds.csv"}
    assert sorted(path.name for path in folder.path.iterdir()) == sorted(named)
