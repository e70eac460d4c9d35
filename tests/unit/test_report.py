"""The report says what the run folder says, in every format, and no value of it can break the format."""

import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adledger.loadtest.report import figures, scales, wording
from adledger.loadtest.report.junit import FAILURE, Case, junit
from adledger.loadtest.report.markdown import markdown
from adledger.loadtest.report.page import page
from adledger.loadtest.report.plots import POINTS_MAX, WANTED, plots_of
from adledger.loadtest.report.rendering import render
from adledger.loadtest.results.run_folder import RunVerdict, Step, ThresholdResult, Verification
from tests.support.run_folders import LOAD_SECONDS, run_of, seconds_of, summary_of

VOID = {"br", "hr", "meta"}
"""Elements of HTML that have no end tag."""

NASTY = "<script>alert('x')</script>&\"'|`*_[a](b)\x00\x1b\ud800"
UNVERIFIED = Verification(ran=False, equal=False, why_not="3 events were not queryable")
WRONG = Verification(
    ran=True,
    equal=False,
    records_expected=10,
    records_found=9,
    rows_compared=7,
    rows_wrong=2,
    wrong=(NASTY,),
    explanations=(NASTY,),
)
CROSSED = ThresholdResult(metric="freshness_ms", expression="p(99)<5000", value=9_876.5, held=False)

ENDS = {
    "held": summary_of(),
    "held, not verified": summary_of(verification=replace(UNVERIFIED, why_not="--no-verify")),
    "crossed": summary_of(verdict=RunVerdict.CROSSED, why=("crossed",), thresholds=(CROSSED,)),
    "wrong": summary_of(verdict=RunVerdict.CROSSED, why=("wrong",), verification=WRONG),
    "unverified": summary_of(
        verdict=RunVerdict.UNVERIFIED, why=("not verified",), verification=UNVERIFIED, metrics={}
    ),
    "invalid": summary_of(verdict=RunVerdict.INVALID, why=("the generator fell behind",)),
    "interrupted": summary_of(verdict=RunVerdict.INTERRUPTED, why=("interrupted",), verification=UNVERIFIED),
    "search": summary_of(
        steps=(
            Step(run_id="r1_01", rate_per_second=50_000.0, held=True, verdict="held"),
            Step(run_id="r1_02", rate_per_second=80_000.0, held=False, verdict="crossed"),
        ),
        rate_max_per_second=50_000.0,
    ),
}
ends = pytest.mark.parametrize("summary", ENDS.values(), ids=ENDS)


class Outline(HTMLParser):
    """A page's elements and strings; fails where an element is closed that is not open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements, self.ids, self.links, self.texts, self._open = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.elements.append(tag)
        self.ids += [found["id"]] if "id" in found else []
        self.links += [value for key, value in attrs if key in {"href", "src", "xlink:href", "action"}]
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@ends
def test_a_page_is_well_formed_and_fetches_nothing(summary):
    """However a run ended, its page is well-formed, has unique ids, links only within itself, and has no script."""
    outline = Outline(page(run_of(), summary, seconds_of()))
    assert len(set(outline.ids)) == len(outline.ids)
    assert all(link.removeprefix("#") in outline.ids for link in outline.links)
    assert not {"script", "img", "link", "iframe", "object"} & set(outline.elements)
    assert "url(" not in page(run_of(), summary, [])


@pytest.mark.parametrize(
    ("metric", "expression", "value", "words"),
    [
        ("freshness_ms", "p(99)<5000", 6_205.0, "99 of 100 events took up to 6.21 s from when an event was due until queries return it; less than 5 s is required"),
        ("freshness_ms", "max<=200", 900.0, "The slowest event took 900 ms"),
        ("dropped_events", "count<=0", 12.0, "events that were not sent in time: 12; at most 0 is required"),
        ("rate", "mean>1000", 900.0, "events a second that the log took: 900; more than 1,000 is required"),
        ("lag_records", "max<10", None, "events in the log and not yet queryable: nothing was measured"),
    ],
)  # fmt: skip
def test_a_crossed_threshold_is_explained(metric, expression, value, words):
    """Page and Markdown say what was required and what was measured, for readers who don't read profiles."""
    result = ThresholdResult(metric=metric, expression=expression, value=value, held=False)
    summary = summary_of(verdict=RunVerdict.CROSSED, why=("a\u00a0reason",), thresholds=(result,))
    [reason] = wording.reasons(summary)
    assert reason.startswith(words)
    assert reason in page(run_of(), summary, seconds_of())
    assert reason in markdown(run_of(), summary)


@ends
def test_the_verdict_comes_first(summary):
    """In page and Markdown the verdict's title, its reasons and the figures precede any other section."""
    headline = wording.headline(run_of(), summary)
    text = page(run_of(), summary, seconds_of()).partition("<main")[2]
    places = [
        text.index(f">{part}<")
        for part in (headline.title, *wording.reasons(summary), "Counted", "Thresholds", "Over time")
    ]
    assert places == sorted(places)
    assert markdown(run_of(), summary).splitlines()[0] == f"### {headline.mark} steady-day: {headline.title}"


def test_a_verdict_is_good_only_where_the_run_held():
    """An invalid, interrupted or unverified run is shown as neither good nor bad."""
    kinds = {name: wording.headline(run_of(), summary).kind for name, summary in ENDS.items()}
    assert {name for name, kind in kinds.items() if kind == wording.GOOD} == {
        "held",
        "held, not verified",
        "search",
    }
    assert {name for name, kind in kinds.items() if kind == wording.BAD} == {"crossed", "wrong"}
    assert "Don't use" in wording.headline(run_of(), ENDS["invalid"]).sentence


def test_counting_is_never_called_exact_without_a_comparison():
    """The tile says Exactly only of a run that was verified and equal."""
    exact = {name for name, summary in ENDS.items() if wording.tiles(run_of(), summary)[2].value == "Exactly"}
    assert exact == {"held", "crossed", "invalid", "search"}


def test_every_plot_has_its_lines_its_legend_and_its_text_alternative():
    """Each plot has a line and a legend's row for each series, and a description with figures."""
    plots = plots_of(run_of(), summary_of(), seconds_of())
    assert [plot.key for plot in plots] == [wanted.key for wanted in WANTED]
    text = page(run_of(), summary_of(), seconds_of())
    for plot in plots:
        figure = text.partition(f'<figure id="{plot.key}">')[2].partition("</figure>")[0]
        assert len(re.findall(r"<path d=\"M", figure)) == len(plot.series)
        assert figure.count('scope="row"') == len(plot.series)
        description = re.search(r"<desc>(.*?)</desc>", figure)[1]
        assert all(f"{figures_name}:" in description for figures_name in (s.name for s in plot.series))
        assert re.search(r"\d", description)


def test_warm_up_drain_and_faults_are_marked_where_they_were():
    """The shaded spans match the times of the run and its faults."""
    for plot in plots_of(run_of(), summary_of(), seconds_of()):
        spans = {span.kind: span for span in plot.spans}
        assert (spans["warm-up"].begin, spans["warm-up"].end) == (plot.begin, 0)
        assert (spans["drain"].begin, spans["drain"].end) == (LOAD_SECONDS, plot.end)
        assert (spans["fault"].begin, spans["fault"].end, spans["fault"].number) == (4.01, 7.2, 1)


@settings(max_examples=20)
@given(st.integers(1, 3_000))
def test_a_long_run_has_no_more_points_than_can_be_seen(count):
    """However long the run, there are at most POINTS_MAX points, the last at the last second, and the largest lag is
    kept.
    """
    some = seconds_of()
    lines = some * (count // len(some) + 1)
    lines = [{**line, "second": float(i)} for i, line in enumerate(lines[:count], 1)]
    for plot in plots_of(run_of(), summary_of(), lines):
        assert len(plot.seconds) <= POINTS_MAX
        assert plot.end == count
    lag = next(plot for plot in plots_of(run_of(), summary_of(), lines) if plot.key == "lag")
    assert lag.high == max(line["lag_records"] for line in lines)


def test_unknown_values_are_left_out():
    """Columns without a value make no line; without any second there is no plot, and the page says why."""
    lines = [{**line, "worker_cpu_cores": None, "parts": None} for line in seconds_of()]
    plots = {plot.key: plot for plot in plots_of(run_of(), summary_of(), lines)}
    assert "parts" not in plots
    assert "workers" not in [series.name for series in plots["cpu"].series]
    assert "No second was sampled" in page(run_of(), summary_of(), [])


def test_outside_strings_are_escaped():
    """Whatever a profile, a command or a difference contains, no format interprets it as markup."""
    run = run_of(profile_name=NASTY, command=("adledger", NASTY), target=NASTY, environment={NASTY: NASTY})
    summary = replace(ENDS["wrong"], why=(NASTY,), run_id=NASTY)
    assert "script" not in Outline(page(run, summary, seconds_of())).elements
    assert "<script" not in markdown(run, summary).rpartition("Repeat it:")[0]
    tree = ET.fromstring(junit(run, summary))
    assert any("<script>" in (node.text or "") for node in tree.iter("failure"))


@given(st.text(), st.text())
def test_a_template_gives_back_text_and_attribute(text, attribute):
    """A reader that unescapes gets the original; only characters that XML can't hold are replaced."""
    case = Case("group", "name", FAILURE, attribute, text)
    tree = ET.fromstring(
        render(
            "junit.xml", profile="", cases=[case], count={FAILURE: 1, "error": 0, "skipped": 0}, seconds="0"
        )
    )
    node = next(tree.iter("failure"))
    readable = re.compile("[\x09\x0a\x20-\x7e]*")
    if readable.fullmatch(text):
        assert (node.text or "") == text
    if re.fullmatch("[\x20-\x7e]*", attribute):
        assert node.get("message") == attribute


@ends
def test_junit_fails_exactly_where_the_exit_code_does(summary):
    """The XML has a failure or an error if and only if the run's exit code is not 0, and the sums are right."""
    suite = ET.fromstring(junit(run_of(), summary))[0]
    bad = suite.findall(".//failure") + suite.findall(".//error")
    assert bool(bad) == (summary.verdict.exit_code != 0)
    assert int(suite.get("tests")) == len(suite.findall("testcase"))
    assert int(suite.get("failures")) + int(suite.get("errors")) == len(bad)
    assert int(suite.get("skipped")) == len(suite.findall(".//skipped"))
    names = [case.get("name") for case in suite.findall("testcase")]
    assert all(f"{t.metric}: {t.expression}" in names for t in summary.thresholds)


@given(st.floats(1e-6, 1e12), st.integers(2, 8))
def test_ticks_are_round_few_and_reach_the_top(high, count_max):
    """A value axis begins at 0 and ends at or little above the largest value."""
    found = scales.ticks(high, count_max)
    assert found[0] == 0
    assert found[-1] >= high * (1 - 1e-9)
    assert found[-2] < high
    assert len(found) <= count_max + 1


@given(st.integers(-600, 0), st.integers(1, 90_000))
def test_time_ticks_are_within_and_include_the_loads_start(low, high):
    """A time axis has few ticks, none outside, and 0 is one of them."""
    found = scales.time_ticks(low, high)
    assert 0.0 in found
    assert all(low <= tick <= high for tick in found)
    assert len(found) <= 8


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (0, "0"), (1_234_567, "1,234,567"), (12_345.6, "12,346"), (12.34, "12.3"), (1.234, "1.23"), (0.0123, "0.0123")],
)  # fmt: skip
def test_numbers_have_thousands_separators(value, text):
    """Long numbers have separators, short ones their significant digits."""
    assert figures.number(value) == text


def schemes() -> dict[str, dict[str, str]]:
    style = files("adledger.loadtest.report").joinpath("templates/style.css").read_text("utf-8")
    light, dark = re.findall(r":root \{(.*?)\}", style, re.DOTALL)
    return {name: dict(re.findall(r"--([a-z0-9-]+): (#[0-9a-f]{6})", part)) for name, part in (("light", light), ("dark", dark))}  # fmt: skip


def contrast(one: str, other: str) -> float:
    """Return WCAG 2's contrast of two colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_can_be_read(scheme):
    """Text has a contrast of 4.5 on its background, lines 3 (WCAG 2 AA), light and dark alike."""
    colours = schemes()[scheme]
    for text in ("text", "soft", "link", "good", "bad", "void", "limit"):
        assert contrast(colours[text], colours["ground"]) >= 4.5, text
    for text in ("text", "soft", "good", "bad", "void"):
        assert contrast(colours[text], colours["raised"]) >= 4.5, text
    for kind in ("good", "bad"):
        assert contrast(colours[kind], colours[f"{kind}-ground"]) >= 4.5, kind
        assert contrast(colours["text"], colours[f"{kind}-ground"]) >= 4.5, kind
    for line in range(6):
        assert contrast(colours[f"s{line}"], colours["ground"]) >= 3, line
