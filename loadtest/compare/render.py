"""A comparison rendered as a table, as Markdown for a merge request, and as JSON."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from adledger.loadtest.compare.change import Change, ChangeKind
from adledger.loadtest.compare.runs import Comparison
from adledger.loadtest.report.figures import metric
from adledger.loadtest.report.markdown import escaped, table

MARKS = {ChangeKind.WORSE: "✗ worse", ChangeKind.BETTER: "✓ better", ChangeKind.SAME: "  no change", ChangeKind.UNKNOWN: "- not comparable"}  # fmt: skip
SENTENCES = {
    "worse": "A is worse than B.",
    "better": "A is better than B.",
    "no change": "No change was found.",
    "underpowered": "A is not found to be worse than B, but a change of the requested size could have been missed.",
    "refused": "A and B can't be compared.",
}
HEADER = ("", "metric (geometric mean)", "A", "B", "change", "between", "detectable from")
EXPLAINED = (
    "A change is reported where its interval excludes 0 and it is large enough to matter. "
    "`detectable from`: a smaller change may be missed; more runs detect smaller ones."
)


def rows(found: Comparison) -> list[tuple[str, ...]]:
    """Return the lines of the table."""
    return [_row(change) for change in found.changes]


def markdown(found: Comparison) -> str:
    """Return a comparison as short Markdown."""
    return "\n".join(_markdown(found)) + "\n"


def as_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values."""
    return {"verdict": found.verdict, **asdict(found)}


def _row(change: Change) -> tuple[str, ...]:
    name = change.metric.name
    if change.kind is ChangeKind.UNKNOWN:
        return MARKS[change.kind], change.metric.title, change.why, "", "", "", ""
    return (
        MARKS[change.kind], change.metric.title, metric(name, change.value_a), metric(name, change.value_b),
        _percent(change.change), f"{_percent(change.low)} and {_percent(change.high)}",
        _percent(change.detectable_from).removeprefix("+"),
    )  # fmt: skip


def _markdown(found: Comparison) -> Iterator[str]:
    yield f"### {escaped(SENTENCES[found.verdict])}"
    yield ""
    yield f"A: {escaped(', '.join(found.a))}; B: {escaped(', '.join(found.b))}"
    yield ""
    if found.changes:
        yield from table(HEADER, ([cell.strip() for cell in row] for row in rows(found)))
        yield ""
        yield EXPLAINED
        yield ""
    for title, lines in (
        ("", found.refused), ("Could have been missed:", found.undetectable), ("Where A differs from B:", found.differs),
        ("", found.cautions),
    ):  # fmt: skip
        if lines:
            yield from ([title, ""] if title else [])
            yield from (f"- {escaped(line)}" for line in lines)
            yield ""


def _percent(value: float | None) -> str:
    assert value is not None, "known wherever the kind is"
    return f"{value * 100:+,.0f} %" if abs(value) >= 1 else f"{value * 100:+.1f} %"
