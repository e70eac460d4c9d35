"""A plot of values over time: where everything is drawn. templates/plot.html draws it as static SVG.

The lines are in an SVG that stretches with the page; ticks and labels do not stretch, so they stay readable at any width.
Lines differ in colour and in dashes. The table below is the legend and gives the figures that the lines show.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from adledger.loadtest.report import figures, scales

HEIGHT = 168
"""Height of a plot's inside in pixels."""

WIDTH, DEPTH = 1_000, 1_000
"""The lines' own units, across and down."""

STYLES = 6
"""Colours with dashes that the style sheet knows: s0 to s5."""

JOIN_SECONDS_MAX = 10
"""A sparse series' line continues over up to this many seconds without a value."""

LIMIT_SHOWN_MAX = 2.0
"""A threshold is drawn where it is at most this many times the largest value; otherwise it is only named."""


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
    """Lines over `seconds` (a point's time is the end of its `point_seconds`); `load_span` is the load's start and end."""

    key: str
    title: str
    unit: str
    seconds: tuple[float, ...]
    point_seconds: int
    series: tuple[Series, ...]
    load_span: tuple[float, float]
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


def drawing(plot: Plot) -> dict[str, Any]:
    """Return the values for templates/plot.html: vertical positions in pixels, horizontal ones in percent, paths in line units."""
    shown = [limit for limit in plot.limits if limit.value <= plot.high * LIMIT_SHOWN_MAX]
    ticks = scales.ticks(max([plot.high, *(limit.value for limit in shown)]))
    top = ticks[-1]
    hidden = [limit for limit in plot.limits if limit not in shown]
    notes = [plot.note, *(f"The {limit.name} lies above the plot." for limit in hidden)]
    described = " ".join(_described(plot, series) for series in plot.series)
    return {
        "key": plot.key, "title": plot.title, "unit": plot.unit, "height": HEIGHT, "width": WIDTH, "depth": DEPTH,
        "description": f"{plot.title}, {plot.unit}. {described}",
        "spans": list(_spans(plot)), "points": list(_points(plot)), "notes": [note for note in notes if note],
        "value_ticks": [{"y": _y(tick, top), "label": figures.number(tick)} for tick in ticks],
        "time_ticks": [
            {"x": _percent(plot.across(second)), "label": figures.clock(second)}
            for second in scales.time_ticks(plot.begin, plot.end)
        ],
        "limits": [{"y": _y(limit.value, top), "label": limit.name} for limit in shown],
        "lines": [_line(plot, series, top, f"s{n % STYLES}") for n, series in enumerate(plot.series)],
    }  # fmt: skip


def _y(value: float, top: float) -> float:
    return round(HEIGHT * (1 - value / top), 1)


def _percent(part: float) -> str:
    return f"{part * 100:.2f}%"


def _spans(plot: Plot) -> Iterator[dict[str, Any]]:
    for span in plot.spans:
        left, right = plot.across(span.begin), plot.across(span.end)
        if right < left or (right == left and span.number is None):
            continue
        yield {
            "kind": span.kind,
            "number": span.number,
            "left": _percent(left),
            "width": _percent(right - left),
        }


def _line(plot: Plot, series: Series, top: float, style: str) -> dict[str, Any]:
    assert len(series.values) == len(plot.seconds), "a value, or None, for each point"
    values = _values_under_load(plot, series)
    return {
        "name": series.name, "style": style, "path": "".join(_path(plot, series, top)),
        "least": min(values, default=None), "mean": sum(values) / len(values) if values else None,
        "most": max(values, default=None),
    }  # fmt: skip


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


def _points(plot: Plot) -> Iterator[dict[str, str]]:
    """Yield a strip for each point, whose label shows the point's values on hover."""
    for i, second in enumerate(plot.seconds):
        known = [(s.name, s.values[i]) for s in plot.series if s.values[i] is not None]
        if known:
            left, right = plot.across(second - plot.point_seconds), plot.across(second)
            values = "\n".join(f"{name}: {figures.number(value)} {plot.unit}" for name, value in known)
            yield {
                "left": _percent(left), "width": _percent(right - left), "label": f"{figures.clock(second)}\n{values}"
            }  # fmt: skip


def _values_under_load(plot: Plot, series: Series) -> list[float]:
    begin, end = plot.load_span
    pairs = zip(plot.seconds, series.values, strict=True)
    return [value for second, value in pairs if value is not None and begin < second <= end]


def _described(plot: Plot, series: Series) -> str:
    values = _values_under_load(plot, series)
    if not values:
        return f"{series.name}: no value during the load."
    mean = figures.number(sum(values) / len(values))
    return f"{series.name}: {figures.number(min(values))} to {figures.number(max(values))}, mean {mean}."
