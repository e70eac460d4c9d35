"""A plot of values over time, as a figure of HTML with static SVG, and its figures as a table.

The lines live in an SVG that stretches with the page; ticks and texts do not stretch, so that they can be read at any
width. Lines differ in colour and in dashes. The table beneath is the legend, and says in numbers what the lines show.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from adledger.loadtest.report import figures, scales
from adledger.loadtest.report.markup import Markup, element, joined

HEIGHT = 168
"""Pixels of a plot's inside."""

WIDTH, DEPTH = 1_000, 1_000
"""The lines' own units, across and down."""

STYLES = 6
"""Colours with dashes that the style sheet knows: s0 to s5."""

JOIN_SECONDS_MAX = 10
"""A sparse series' line goes on over seconds without a value, as long as they are so few."""

LIMIT_SHOWN_MAX = 2.0
"""A threshold is drawn where it is no more than so many times the largest value; else it is only named."""


@dataclass(frozen=True, slots=True)
class Series:
    """A line. `sparse`: seconds without a value are usual."""

    name: str
    values: tuple[float | None, ...]
    sparse: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """A shaded time: warm-up, drain, or a fault with its number."""

    kind: str
    begin: float
    end: float
    number: int | None = None


@dataclass(frozen=True, slots=True)
class Limit:
    """A threshold on what is plotted."""

    value: float
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """Lines over `seconds` (a point's time is the end of its `point_seconds`); `judged` is the load's begin and end."""

    key: str
    title: str
    unit: str
    seconds: tuple[float, ...]
    point_seconds: int
    series: tuple[Series, ...]
    judged: tuple[float, float]
    spans: tuple[Span, ...] = ()
    limits: tuple[Limit, ...] = ()
    note: str = ""

    @property
    def begin(self) -> float:
        """Where the time axis begins."""
        return self.seconds[0] - self.point_seconds

    @property
    def end(self) -> float:
        """Where the time axis ends."""
        return self.seconds[-1]

    @property
    def high(self) -> float:
        """The largest value of any line."""
        return max((v for s in self.series for v in s.values if v is not None), default=0.0)

    def across(self, second: float) -> float:
        """Return where a time is, from 0 to 1."""
        return min(1.0, max(0.0, (second - self.begin) / (self.end - self.begin)))


def figure(plot: Plot) -> Markup:
    """Return the plot as a figure: title, SVG with a text alternative, legend with figures."""
    shown = [limit for limit in plot.limits if limit.value <= plot.high * LIMIT_SHOWN_MAX]
    ticks = scales.ticks(max([plot.high, *(limit.value for limit in shown)]))
    told = f"{plot.title}, {plot.unit}. " + " ".join(_told(plot, series) for series in plot.series)
    svg = element(
        "svg", element("title", plot.title), element("desc", told),
        *_shading(plot), *_grid(plot, ticks),
        element("svg", *_lines(plot, ticks[-1]), viewBox=f"0 0 {WIDTH} {DEPTH}", preserveAspectRatio="none",
                width="100%", height=HEIGHT, class_="lines"),
        *_limits(shown, ticks[-1]), *_columns(plot),
        role="img", aria_label=told, width="100%", height=HEIGHT, class_="plot",
    )  # fmt: skip
    hidden = [limit for limit in plot.limits if limit not in shown]
    notes = [plot.note, *(f"The {limit.name} lies above the plot." for limit in hidden)]
    return element(
        "figure",
        element("h3", plot.title, " ", element("span", plot.unit, class_="unit")),
        element("div", svg, class_="frame"),
        _legend(plot),
        *(element("p", note, class_="note") for note in notes if note),
        id=plot.key,
    )


def _y(value: float, top: float) -> float:
    return round(HEIGHT * (1 - value / top), 1)


def _percent(part: float) -> str:
    return f"{part * 100:.2f}%"


def _shading(plot: Plot) -> Iterator[Markup]:
    for span in plot.spans:
        left, right = plot.across(span.begin), plot.across(span.end)
        if right < left or (right == left and span.number is None):
            continue
        kind = f"span {span.kind}"
        yield element("rect", x=_percent(left), y=0, width=_percent(right - left), height=HEIGHT, class_=kind)
        if span.number is not None:
            yield element("line", x1=_percent(left), x2=_percent(left), y1=0, y2=HEIGHT, class_="fault-line")
            yield element("text", str(span.number), x=_percent(left), y=-5, class_="fault-number")


def _grid(plot: Plot, ticks: Sequence[float]) -> Iterator[Markup]:
    for tick in ticks:
        y = _y(tick, ticks[-1])
        yield element("line", x1=0, x2="100%", y1=y, y2=y, class_="grid")
        yield element("text", figures.number(tick), x=-8, y=y + 4, class_="tick y")
    for second in scales.time_ticks(plot.begin, plot.end):
        x = _percent(plot.across(second))
        yield element("line", x1=x, x2=x, y1=HEIGHT, y2=HEIGHT + 5, class_="axis")
        yield element("text", figures.clock(second), x=x, y=HEIGHT + 19, class_="tick x")


def _limits(limits: Sequence[Limit], top: float) -> Iterator[Markup]:
    for limit in limits:
        y = _y(limit.value, top)
        yield element("line", x1=0, x2="100%", y1=y, y2=y, class_="limit")
        yield element("text", limit.name, x="100%", y=y - 4 if y > 16 else y + 13, class_="limit-name")


def _lines(plot: Plot, top: float) -> Iterator[Markup]:
    for style, series in enumerate(plot.series):
        assert len(series.values) == len(plot.seconds), "a value, or None, for each point"
        path = "".join(_path(plot, series, top))
        if path:
            yield element("path", d=path, class_=f"s{style % STYLES}", vector_effect="non-scaling-stroke")


def _path(plot: Plot, series: Series, top: float) -> Iterator[str]:
    """Yield the line's parts; a value between two gaps is a dot."""
    gap_max = max(plot.point_seconds, JOIN_SECONDS_MAX if series.sparse else 0)
    last: float | None = None
    alone = False
    for second, value in zip(plot.seconds, series.values, strict=True):
        if value is None:
            continue
        point = f"{plot.across(second) * WIDTH:.1f} {DEPTH * (1 - max(0.0, value) / top):.1f}"
        begins = last is None or second - last > gap_max
        if begins and alone:
            yield "h0"
        yield f"{'M' if begins else 'L'}{point}"
        last, alone = second, begins
    if alone:
        yield "h0"


def _columns(plot: Plot) -> Iterator[Markup]:
    """Yield a strip for each point, which tells its values when it is pointed at."""
    for i, second in enumerate(plot.seconds):
        known = [(s.name, s.values[i]) for s in plot.series if s.values[i] is not None]
        if known:
            left, right = plot.across(second - plot.point_seconds), plot.across(second)
            told = "\n".join(f"{name}: {figures.number(value)} {plot.unit}" for name, value in known)
            yield element(
                "rect", element("title", f"{figures.clock(second)}\n{told}"),
                x=_percent(left), y=0, width=_percent(right - left), height=HEIGHT, class_="point",
            )  # fmt: skip


def _judged(plot: Plot, series: Series) -> list[float]:
    begin, end = plot.judged
    pairs = zip(plot.seconds, series.values, strict=True)
    return [value for second, value in pairs if value is not None and begin < second <= end]


def _told(plot: Plot, series: Series) -> str:
    values = _judged(plot, series)
    if not values:
        return f"{series.name}: no value during the load."
    mean = figures.number(sum(values) / len(values))
    return f"{series.name}: {figures.number(min(values))} to {figures.number(max(values))}, mean {mean}."


def _legend(plot: Plot) -> Markup:
    rows = []
    for style, series in enumerate(plot.series):
        values = _judged(plot, series)
        mean = sum(values) / len(values) if values else None
        sample = element(
            "svg", element("line", x1=0, x2=28, y1=5, y2=5, class_=f"s{style % STYLES}"),
            width=28, height=10, aria_hidden="true",
        )  # fmt: skip
        rows.append(element(
            "tr", element("th", joined(sample, " ", series.name), scope="row"),
            *(element("td", figures.number(value)) for value in (min(values, default=None), mean, max(values, default=None))),
        ))  # fmt: skip
    head = element(
        "tr",
        element("th", "during the load", scope="col"),
        *(element("th", name, scope="col") for name in ("least", "mean", "most")),
    )
    return element("table", element("thead", head), element("tbody", *rows), class_="legend")
