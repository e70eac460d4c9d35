"""The benchmark's report: medians as a Markdown table and as SVG bars, with the machine that it ran on."""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from xml.sax.saxutils import escape

from adledger.loadtest.benchmarks.bench import Result
from adledger.loadtest.benchmarks.catalog import Contestant, ContestantKind, contestant
from adledger.loadtest.lab.environment import cpu_name
from adledger.pipeline.settings import cores

HEADER = (
    "tool", "events/CPU-s, warm", "lowest-highest", "with start-up", "events/s", "peak memory", "counts", "before", "versions",
)  # fmt: skip
WIDTH, ROW, TOP, LEFT, RIGHT = 860, 34, 46, 250, 150
FONT = 'font-family="system-ui, sans-serif" font-size="13" fill="#1f2933"'
LEAST = 100
"""Where the logarithmic axis begins, in events per CPU-second."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Machine and date, and how busy the machine was before the benchmark began."""

    text: str

    @classmethod
    def here(cls) -> "Machine":
        """Return this machine, now."""
        load = os.getloadavg()[0]
        day = time.strftime("%Y-%m-%d", time.gmtime())
        return cls(f"{day}, {cpu_name()}, {cores()} cores, load average {load:.1f} before it began")

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class ContestantSummary:
    """A contestant over its runs: medians, the range of its steady rate, the worst of its counts."""

    contestant: Contestant
    steady: float
    steady_range: tuple[float, float]
    with_start_up: float
    per_second: float
    memory_bytes: float
    rows: int
    rows_wrong: int
    versions: str
    failure: str


def summaries(results: Sequence[Result]) -> list[ContestantSummary]:
    """Return a summary for each contestant, slowest first, those without figures at the end."""
    names = dict.fromkeys(result.contestant for result in results)
    rows = [_summary(contestant(name), [r for r in results if r.contestant == name]) for name in names]
    return sorted(rows, key=lambda row: (not row.steady, row.steady))


def table(rows: Sequence[ContestantSummary]) -> str:
    """Return the summaries as a table of Markdown."""
    lines = [HEADER, ("---", *["---:"] * 5, "---", "---:", "---"), *map(_cells, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plot(rows: Sequence[ContestantSummary]) -> str:
    """Return the steady rates as bars on a logarithmic axis; earlier measurements are a line across each."""
    shown = [row for row in rows if row.steady]
    high = 10 ** math.ceil(math.log10(max((row.steady for row in shown), default=LEAST * 10)))
    height = TOP + ROW * len(shown) + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" {FONT}>',
        f'<title>Events per CPU-second, by tool</title><rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        '<text x="12" y="22" font-weight="600">Events per CPU-second, once warm (logarithmic; | measured once before)</text>',
    ]
    for power in range(round(math.log10(LEAST)), round(math.log10(high)) + 1):
        x = _x(10.0**power, high)
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - 26}" stroke="#d5dbe1"/>'
            f'<text x="{x:.1f}" y="{height - 10}" text-anchor="middle" fill="#52606d">{10**power:,}</text>'
        )
    for i, row in enumerate(shown):
        parts.append(_bar(row, TOP + ROW * i, high))
    return "\n".join([*parts, "</svg>\n"])


def _summary(of: Contestant, runs: Sequence[Result]) -> ContestantSummary:
    good = [run for run in runs if not run.failure]
    if not good:
        return ContestantSummary(of, 0, (0, 0), 0, 0, 0, 0, 0, "", runs[-1].failure)
    steady = [run.steady_per_cpu_second for run in good]
    return ContestantSummary(
        of, median(steady), (min(steady), max(steady)), median(run.per_cpu_second for run in good),
        median(run.steady_per_second for run in good), median(run.memory_bytes for run in good),
        good[0].rows, max(run.rows_wrong for run in good), good[0].versions,
        next((run.failure for run in runs if run.failure), ""),
    )  # fmt: skip


def _cells(row: ContestantSummary) -> tuple[str, ...]:
    if not row.steady:
        return (
            row.contestant.title,
            *["-"] * 5,
            f"no figures: {row.failure.splitlines()[0][:120]}",
            _before(row),
            "",
        )
    counts = "right" if not row.rows_wrong else f"{row.rows_wrong:,} of {row.rows:,} rows wrong"
    low, high = row.steady_range
    return (
        row.contestant.title, f"{row.steady:,.0f}", f"{low:,.0f}-{high:,.0f}", f"{row.with_start_up:,.0f}",
        f"{row.per_second:,.0f}", f"{row.memory_bytes / 2**20:,.0f} MiB",
        counts + (f"; {row.failure.splitlines()[0][:80]}" if row.failure else ""), _before(row), row.versions,
    )  # fmt: skip


def _before(row: ContestantSummary) -> str:
    if row.contestant.before is None:
        return "-"
    low, high = row.contestant.before
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"


def _bar(row: ContestantSummary, y: int, high: float) -> str:
    x = _x(row.steady, high)
    colour = (
        "#c2410c"
        if row.rows_wrong
        else "#0f766e"
        if row.contestant.kind in {ContestantKind.ADLEDGER, ContestantKind.DATA_PATH}
        else "#64748b"
    )
    marks = "".join(
        f'<line x1="{_x(value, high):.1f}" x2="{_x(value, high):.1f}" y1="{y - 2}" y2="{y + 22}" stroke="#1f2933" stroke-width="2"/>'
        for value in dict.fromkeys(row.contestant.before or ())
    )
    free = (
        max(x, *(_x(value, high) for value in row.contestant.before or (LEAST,))) + 8
    )  # right of bar and lines
    wrong = " (counts wrong)" if row.rows_wrong else ""
    return (
        f'<text x="{LEFT - 10}" y="{y + 15}" text-anchor="end">{escape(row.contestant.title)}</text>'
        f'<rect x="{LEFT}" y="{y}" width="{x - LEFT:.1f}" height="20" fill="{colour}"/>{marks}'
        f'<text x="{free:.1f}" y="{y + 15}">{row.steady:,.0f}{wrong}</text>'
    )


def _x(value: float, high: float) -> float:
    share = math.log10(max(value, LEAST) / LEAST) / math.log10(high / LEAST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)
