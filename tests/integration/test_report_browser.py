"""The report and the worker's own page in a real browser: everything drawn is visible, and nothing overflows."""

import itertools
import struct
from pathlib import Path

import pytest

from adledger.loadtest.report.plots import WANTED
from adledger.loadtest.report.write import HTML, write_report
from adledger.loadtest.results.run_folder import FaultResult, RunVerdict
from adledger.pipeline.web.pages import INDEX
from tests.support.browser import Browser
from tests.support.run_folders import folder_of, run_of, summary_of

WIDTHS = (1280, 390)
PLOT_WIDTH_MIN = 220
LONG = "a_name_that_no_line_holds_" * 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def browser(folder) -> Browser:
    return Browser(folder)


@pytest.fixture(scope="module")
def report(folder) -> Path:
    """The page of a run with the longest strings and the largest numbers."""
    run = run_of(
        target=f"kafka://{LONG}", command=("adledger", "loadtest", "run", LONG), rate_per_second=1_234_567.0,
        environment={**run_of().environment, LONG: LONG},
    )  # fmt: skip
    fault = FaultResult(
        kind="kill-worker", at_seconds=2.0, duration_seconds=0.0, started_second=2.0, ended_second=5.5,
        took_effect=False, seen=LONG,
    )  # fmt: skip
    metrics = dict.fromkeys(summary_of().metrics, 123456789012.0)
    summary = summary_of(verdict=RunVerdict.INVALID, why=(LONG,), metrics=metrics, faults=(fault,))
    return write_report(folder_of(folder, run, summary))[HTML]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_plots_are_there_and_nothing_overflows(browser, report, width):
    """At desktop and phone width every plot has drawn lines, and nothing exceeds the page or its box."""
    seen = browser.look(report, width)
    assert seen.width == width
    assert seen.wide == []
    assert seen.clipped == []
    assert [plot["key"] for plot in seen.drawn] == [wanted.key for wanted in WANTED]
    for plot in seen.drawn:
        assert plot["width"] >= PLOT_WIDTH_MIN
        assert plot["lines"]
        assert min(plot["lines"]) > 0
        labels = itertools.pairwise(sorted(plot["texts"]))
        assert all(left[1] <= right[0] for left, right in labels), "ticks overlap"
    assert seen.fetched == 0
    assert seen.ground == "rgb(255, 255, 255)"
    assert seen.text.index("Invalid run") < seen.text.index("Throughput")


def test_a_picture_has_content(browser, report, folder):
    """A picture is a PNG of the requested size that compresses to more than one colour would."""
    picture = browser.picture(report, 1280, 1600, folder / "report.png").read_bytes()
    assert struct.unpack(">II", picture[16:24]) == (1280, 1600)
    assert len(picture) > 50_000


def test_a_reader_who_prefers_dark_gets_a_dark_page(browser, report):
    """The page follows prefers-color-scheme."""
    assert browser.look(report, 1280, dark=True).ground == "rgb(18, 22, 27)"


@pytest.mark.parametrize("width", WIDTHS)
def test_the_worker_s_page_fits(browser, folder, width):
    """The index of a worker's pages overflows at no width, and fetches nothing."""
    page = folder / "index.html"
    page.write_text(INDEX, "utf-8")
    seen = browser.look(page, width)
    assert (seen.width, seen.wide, seen.fetched) == (width, [], 0)
    assert "livez" in seen.text


def test_control_overflow_is_detected(browser, folder):
    """Control: a box that is too wide, and one that hides its content, are both named."""
    page = folder / "wide.html"
    page.write_text(
        "<!doctype html><body><p class=wide style='width:900px'>x</p>"
        "<p class=clipped style='width:50px;overflow:hidden;white-space:nowrap'>more than fifty pixels of text</p>"
    )
    seen = browser.look(page, 390)
    assert seen.width > 390
    assert any("P.wide" in name for name in seen.wide)
    assert "P.clipped" in seen.clipped
