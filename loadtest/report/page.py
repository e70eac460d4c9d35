"""The report's page: one HTML file with styles and plots in it, no script, nothing fetched."""

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.resources import files

from adledger.loadtest.report import figures, words
from adledger.loadtest.report.markup import Markup, element, joined
from adledger.loadtest.report.plot import figure
from adledger.loadtest.report.plots import plots_of
from adledger.loadtest.results.names import METRICS
from adledger.loadtest.results.run_folder import Run, RunSummary, Second, ThresholdResult

NO_NETWORK = "default-src 'none'; style-src 'unsafe-inline'"
"""What the page forbids itself: scripts, and fetching anything."""

WRONG_SHOWN_MAX = 50
SECTIONS = {
    "thresholds": "Thresholds",
    "plots": "Over time",
    "figures": "All figures",
    "run": "How it was run",
}


def page(run: Run, summary: RunSummary, seconds: Sequence[Second]) -> str:
    """Return the page as text."""
    title = f"Load test {run.profile_name}: {words.headline(run, summary).title}"
    head = element(
        "head", element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=NO_NETWORK),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", title), element("style", _style()),
    )  # fmt: skip
    body = element(
        "body", _header(run, summary),
        element(
            "main", _verdict(run, summary), _thresholds(summary.thresholds), _verification(summary),
            _steps(summary), _plots(run, summary, seconds), _figures(summary), _how(run), class_=summary.verdict.value,
        ),
        _footer(run),
    )  # fmt: skip
    return "<!doctype html>\n" + element("html", head, body, lang="en") + "\n"


def _style() -> Markup:
    return Markup(files(__package__).joinpath("style.css").read_text("utf-8"))


def _header(run: Run, summary: RunSummary) -> Markup:
    links = [element("li", element("a", name, href=f"#{key}")) for key, name in SECTIONS.items()]
    when = f"{figures.moment(run.load_started_ms or run.started_ms)}, adledger {run.environment.get('adledger', '')}"
    return element(
        "header",
        element("p", "adledger load test", class_="kicker"),
        element("h1", run.profile_name),
        element("p", str(run.profile.get("description", "")), class_="lead"),
        element("p", f"Run {summary.run_id}. {when}", class_="when"),
        element("nav", element("ul", *links), aria_label="Sections"),
    )


def _verdict(run: Run, summary: RunSummary) -> Markup:
    said = words.headline(run, summary)
    why = [element("li", reason) for reason in words.reasons(summary)]
    shown = [
        element(
            "div", element("p", tile.label, class_="label"), element("p", tile.value, class_="value"),
            element("p", _unbroken(tile.detail), class_="detail"), class_=f"tile {tile.kind}".strip(),
        )
        for tile in words.tiles(run, summary)
    ]  # fmt: skip
    return element(
        "section",
        element(
            "div",
            element("span", said.mark, class_="mark", aria_hidden="true"),
            element("div", element("h2", said.title), element("p", said.sentence), *([element("ul", *why)] if why else [])),
            class_=f"verdict {said.kind}",
        ),
        element("div", *shown, class_="tiles"),
        *(element("p", caution, class_="caution") for caution in words.cautions(run, summary)),
        id="verdict",
    )  # fmt: skip


def _unbroken(text: str) -> str:
    """Return a text whose numbers stay with their units when a line ends between them."""
    return re.sub(r"(?<=\d) (?=(?:s|ms|µs|cores)\b)", "\u00a0", text)


def _thresholds(results: Sequence[ThresholdResult]) -> Markup:
    rows = []
    for result in results:
        kind = words.GOOD if result.held else words.BAD
        said = "held" if result.held else "crossed, and ended the run" if result.aborted else "crossed"
        value = "nothing" if result.value is None else figures.metric(result.metric, result.value)
        threshold = joined(
            element("code", f"{result.metric}: {result.expression}"),
            element("span", words.meaning(result), class_="meaning"),
        )
        rows.append((joined(_tick(kind), " ", said), threshold, value))
    table = _table(("", "threshold", "measured"), rows, "thresholds") if rows else element("p", "The profile has none.")  # fmt: skip
    return _section("thresholds", table)


def _tick(kind: str) -> Markup:
    return element("span", words.MARKS[kind], class_=f"mark {kind}", aria_hidden="true")


def _verification(summary: RunSummary) -> Markup:
    found = summary.verification
    if not found.ran or found.equal:
        return Markup()
    parts = [element("h2", "What differs from the truth")]
    for title, lines in (("Counts and rows", found.wrong), ("The events behind them", found.explanations)):
        if lines:
            parts.append(element("h3", title))
            parts.append(element("ul", *(element("li", line) for line in lines[:WRONG_SHOWN_MAX])))
            if len(lines) > WRONG_SHOWN_MAX:
                parts.append(element("p", f"{len(lines) - WRONG_SHOWN_MAX:,} more stand in summary.json."))
    return element("section", *parts, id="differences")


def _steps(summary: RunSummary) -> Markup:
    if not summary.steps:
        return Markup()
    rows = [
        (joined(_tick(words.GOOD if step.held else words.BAD), " ", step.verdict),
         f"{figures.number(step.rate_per_second)} events/s", step.run_id)
        for step in summary.steps
    ]  # fmt: skip
    return element(
        "section", element("h2", "The search"), _table(("", "rate", "run"), rows, "steps"), id="steps"
    )


def _plots(run: Run, summary: RunSummary, seconds: Sequence[Second]) -> Markup:
    plots = plots_of(run, summary, seconds)
    if not plots:
        return _section("plots", element("p", "No second was sampled: the run ended before its load began."))
    key = element(
        "p", element("span", "Time is since the load began."),
        element("span", _swatch("warm-up"), "warm-up, not judged"), element("span", _swatch("drain"), "drain: nothing is sent"),
        *([element("span", _swatch("fault"), "fault, until it was undone")] if summary.faults else []), class_="key",
    )  # fmt: skip
    faults = [
        element("li", element("strong", fault.kind), f" at {fault.at_seconds:g} s: {fault.seen}",
                *(() if fault.took_effect else (element("strong", " It took no effect."),)))
        for fault in summary.faults
    ]  # fmt: skip
    return _section(
        "plots", key, *([element("ol", *faults, class_="faults")] if faults else []),
        element("div", *map(figure, plots), class_="plots"),
    )  # fmt: skip


def _swatch(kind: str) -> Markup:
    box = element("rect", width=18, height=12, class_=f"span {kind}")
    return element("svg", box, width=18, height=12, class_="swatch", aria_hidden="true")


def _figures(summary: RunSummary) -> Markup:
    rows, meaning = [], ""
    for name in dict.fromkeys([*METRICS, *summary.metrics]):
        told = METRICS.get(name, "")
        meaning = meaning if told == "the same" else told
        if name in summary.metrics:
            rows.append((element("code", name), figures.metric(name, summary.metrics[name]), meaning))
    return _section("figures", _table(("metric", "value", "what it is"), rows, "figures"))


def _how(run: Run) -> Markup:
    load = run.profile.get("load", {})
    facts = {
        "rate": words.rate_asked(run), "executor": run.executor, "duration": f"{run.duration_seconds:g} s",
        "warm-up": f"{run.warm_up_seconds:g} s", "partitions": load.get("partitions"), "workers": run.workers,
        "sender processes": run.senders, "seed": run.seed, "target": run.target, "log": run.source,
        "ClickHouse": run.clickhouse, "database": run.names.database,
    }  # fmt: skip
    environment = dict(run.environment)
    if isinstance(memory := environment.pop("memory_bytes", None), int | float):
        environment = {"memory": figures.size(memory), **environment}
    return _section(
        "run",
        element("p", "The command that repeats it:"),
        element("pre", element("code", shlex.join(run.command))),
        element("div", _facts("Load", facts), _facts("Environment", environment), class_="pair"),
        _folded("Settings of the workers", run.settings),
        _folded("Traffic: every knob of the generator", run.model),
    )


def _facts(title: str, values: Mapping[str, object]) -> Markup:
    return element("div", element("h3", title), _pairs(values))


def _folded(title: str, values: Mapping[str, object]) -> Markup:
    return element("details", element("summary", title), _pairs(values))


def _pairs(values: Mapping[str, object]) -> Markup:
    rows: Iterable[Iterator[str] | Sequence[str]] = (
        (element("code", str(name)), figures.plain(value)) for name, value in values.items()
    )
    return _table(("name", "value"), rows, "pairs")


def _section(key: str, *children: str) -> Markup:
    return element("section", element("h2", SECTIONS[key]), *children, id=key)


def _table(header: Sequence[str], rows: Iterable[Iterable[str]], kind: str) -> Markup:
    head = element("tr", *(element("th", name, scope="col") for name in header))
    body = (element("tr", *(element("td", cell) for cell in row)) for row in rows)
    return element("table", element("thead", head), element("tbody", *body), class_=kind)


def _footer(run: Run) -> Markup:
    return element(
        "footer",
        element(
            "p", "Every second is in ", element("code", "seconds.csv"), ", every figure in ", element("code", "summary.json"),
            ", the histograms of freshness in ", element("code", "freshness.hlog"), f" of run {run.id}.",
        ),
    )  # fmt: skip
